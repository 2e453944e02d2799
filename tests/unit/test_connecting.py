"""Connections to the broker have what nameko's own keys say."""

from __future__ import annotations

from mail_service.amqp import connecting

URI = "amqp://guest:guest@127.0.0.1:5672//"


def test_namekos_keys_for_a_connection_are_kept() -> None:
    config = {
        "AMQP_URI": URI,
        "LOGIN_METHOD": "EXTERNAL",
        "HEARTBEAT": 7,
        "TRANSPORT_OPTIONS": {"confirm_timeout": 3},
    }

    made = connecting.connection(config)

    assert (made.login_method, made.heartbeat, made.transport_options) == ("EXTERNAL", 7, {"confirm_timeout": 3})


def test_without_them_it_is_namekos_heartbeat_and_the_usual_login() -> None:
    made = connecting.connection({"AMQP_URI": URI})

    assert (made.login_method, made.heartbeat, made.transport_options) == (None, 60, {})
