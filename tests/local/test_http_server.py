from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from mail_service.local.http_server import HttpServer, Request, Rule
from tests.support.waiting import eventually

FINE = Rule(status=200, body={"id": "$number"})


@pytest.fixture
def server(http_server: HttpServer) -> HttpServer:
    http_server.script(FINE)
    return http_server


def post(server: HttpServer, path: str = "/send", *, timeout_s: float = 5, **arguments: Any) -> requests.Response:
    """On a connection of its own."""
    return requests.post(server.url + path, timeout=timeout_s, **arguments)


def only(entries: list[Request]) -> Request:
    assert len(entries) == 1
    return entries[0]


def test_a_request_is_noted_down_as_it_came(server: HttpServer) -> None:
    before = time.time()
    post(server, "/send?try=1", json={"to": "a@example.org"}, headers={"X-Token": "secret"})

    request = only(server.requests())
    assert (request.method, request.path, request.json) == ("POST", "/send?try=1", {"to": "a@example.org"})
    assert (request.headers["x-token"], request.status) == ("secret", 200)
    assert before <= request.time <= time.time()


def test_an_answer_is_as_the_rule_says(server: HttpServer) -> None:
    server.script(Rule(status=429, headers={"Retry-After": "3"}, body={"code": "slower", "n": "$number"}))

    answer = post(server)

    assert (answer.status_code, answer.reason, answer.headers["Retry-After"]) == (429, "Too Many Requests", "3")
    assert answer.json() == {"code": "slower", "n": str(only(server.requests()).number)}


def test_a_request_without_a_rule_is_not_found(server: HttpServer) -> None:
    server.script(Rule(path="/other", status=200))

    assert post(server).status_code == 404


@pytest.mark.parametrize(
    ("rule", "applies"),
    [
        (Rule(path="/s*", status=500), True),
        (Rule(path="/other", status=500), False),
        (Rule(method="POST", status=500), True),
        (Rule(method="GET", status=500), False),
        (Rule(if_headers={"x-KEY": "right*"}, status=500), True),
        (Rule(if_headers={"X-Key": "wrong"}, status=500), False),
        (Rule(if_headers={"X-None": "?*"}, status=500), False),
        (Rule(body_has=r"late@\w+", status=500), True),
        (Rule(body_has="nobody@", status=500), False),
        (Rule(times=0, status=500), False),
    ],
)
def test_a_rule_applies_to_what_it_describes(server: HttpServer, rule: Rule, applies: bool) -> None:
    server.script(rule, FINE)

    answer = post(server, "/send?path=/other", json={"to": "late@example.org"}, headers={"X-Key": "right one"})

    assert answer.status_code == (500 if applies else 200)


def test_a_rule_applies_so_many_times_and_counts_anew_when_it_is_replaced(server: HttpServer) -> None:
    rules = (Rule(status=503, times=2), FINE)
    server.script(*rules)
    first = [post(server).status_code for _ in range(3)]
    server.script(*rules)

    assert [*first, post(server).status_code] == [503, 503, 200, 503]


def test_each_recipient_can_have_its_own_count(server: HttpServer) -> None:
    server.script(Rule(status=503, times=1, each=r"\w+@"), FINE)

    statuses = [post(server, data=f"to {name}@example.org").status_code for name in ("a", "b", "a", "b")]

    assert statuses == [503, 503, 200, 200]


def test_a_rule_that_only_hangs_goes_on_to_the_next(server: HttpServer) -> None:
    server.script(Rule(hang_s=0.3), Rule(status=418))
    begun = time.monotonic()

    assert post(server).status_code == 418
    assert time.monotonic() - begun >= 0.3


def test_a_client_that_does_not_wait_long_enough_gets_no_answer(server: HttpServer) -> None:
    server.script(Rule(hang_s=30, status=200))

    with pytest.raises(requests.ReadTimeout):
        post(server, timeout_s=0.2)
    assert only(server.requests()).status == 200


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("moment", "noted"), [("connection", []), ("head", [b""]), ("request", [b"hello"])])
def test_a_drop_comes_when_it_is_said_to(server: HttpServer, moment: Any, noted: list[bytes], reset: bool) -> None:
    server.script(Rule(drop=moment, reset=reset, times=1), FINE)

    with pytest.raises(requests.ConnectionError):
        post(server, data=b"hello")

    assert [request.body for request in server.requests()] == noted
    assert all(request.status is None for request in server.requests())
    assert post(server).status_code == 200


def test_garbage_is_not_http(server: HttpServer) -> None:
    server.script(Rule(garbage="SSH-2.0-what\r\n"))

    with pytest.raises(requests.ConnectionError):
        post(server)


def test_half_a_body_is_cut_off(server: HttpServer) -> None:
    server.script(Rule(status=200, body="x" * 100, cut_after=50))

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        post(server)


def test_an_answer_may_come_byte_by_byte(server: HttpServer) -> None:
    server.script(Rule(status=200, body="slow", byte_s=0.002))
    begun = time.monotonic()

    assert post(server).text == "slow"
    assert time.monotonic() - begun >= 0.002 * len("slow")


def test_a_connection_is_kept_and_reused(server: HttpServer) -> None:
    with requests.Session() as session:
        for _ in range(3):
            session.post(server.url, data="x", timeout=5)
    post(server)

    first, second, third, other = (request.connection for request in server.requests())
    assert first == second == third != other


@pytest.mark.parametrize("rule", [Rule(status=200, close=True), Rule(status=200, headers={"Connection": "close"})])
def test_a_connection_may_be_closed_after_the_answer(server: HttpServer, rule: Rule) -> None:
    server.script(rule)
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1000), b""))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (b"Connection: close" in answer) is not rule.close


def test_a_chunked_body_and_one_announced_are_read(server: HttpServer) -> None:
    post(server, data=iter([b"one ", b"two"]))
    with socket.create_connection((server.host, server.port), timeout=5) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ok")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")

    assert [request.body for request in server.requests()] == [b"one two", b"ok"]


def test_connections_that_hang_do_not_hold_up_others(server: HttpServer) -> None:
    server.script(Rule(body_has="slow", hang_s=30, status=200), FINE)
    with ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(socket.create_connection((server.host, server.port), timeout=5))
            connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nslow")
        eventually(lambda: len(server.requests()) == 50)

        assert post(server, data="fast").status_code == 200


def test_a_body_of_many_megabytes_arrives(server: HttpServer) -> None:
    post(server, data=b"x" * 30_000_000)

    assert len(only(server.requests()).body) == 30_000_000


def test_it_speaks_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")

    with HttpServer(FINE, certificate=tmp_path / "server.pem") as server:
        assert server.url.startswith("https://")
        assert post(server, verify=str(tmp_path / "ca.pem")).status_code == 200
        with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            post(server)


def test_it_starts_again_on_its_port_with_rules_and_log() -> None:
    with HttpServer(FINE) as server:
        post(server)
        port = server.port
        server.kill9()
        assert not server.is_alive
        with pytest.raises(requests.ConnectionError):
            post(server)
        server.start()
        post(server)

        assert (server.port, len(server.requests())) == (port, 2)


def test_while_paused_it_answers_nothing(server: HttpServer) -> None:
    server.pause()
    try:
        with pytest.raises(requests.ReadTimeout):
            post(server, timeout_s=0.2)
    finally:
        server.resume()
    assert post(server).status_code == 200


def test_its_temporary_folder_is_gone_afterwards() -> None:
    with HttpServer() as server:
        folder = server._folder

    assert not folder.exists()


@pytest.mark.parametrize(
    "wrong",
    [{"drop": "connection", "path": "/a"}, {"drop": "connection", "body_has": "a"}, {"drop": "head", "each": "a"}],
)
def test_a_rule_cannot_know_what_was_not_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="before"):
        Rule(**wrong)
