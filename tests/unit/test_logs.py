"""Log lines are readable by people and machines, and have nothing of a mail in them."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import logging.config
import os
import smtplib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mail_service.errors import ConfigurationError, InvalidMessage
from mail_service.logs import JsonFormatter, TextFormatter, quiet_the_stack, safe_traceback, say

ROOT = Path(__file__).resolve().parents[2]
ADDRESS, BODY, SECRET = "bob@private.example", "Dear Bob, you are fired", "hunter2"
ATTEMPT = "attempt %(attempt)d of %(id)s by %(mailer)s: %(verdict)s (%(code)s) in %(seconds).3f s"
FIELDS: dict[str, Any] = {
    "event": "attempt",
    "id": "0b9",
    "mailer": "default",
    "attempt": 2,
    "verdict": "deferred",
    "code": "smtp 450 4.2.1",
    "seconds": 0.03125,
}


class Printed:
    """A logger of its own, and what it printed."""

    def __init__(self, formatter: logging.Formatter, name: str = "mail_service.delivery") -> None:
        self._stream = io.StringIO()
        self._handler = logging.StreamHandler(self._stream)
        self._handler.setFormatter(formatter)
        self.log = logging.getLogger(name)
        self.log.addHandler(self._handler)
        self.log.setLevel(logging.DEBUG)
        self.log.propagate = False

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def json(self) -> dict[str, object]:
        (line,) = self.text.splitlines()
        parsed = json.loads(line)
        assert isinstance(parsed, dict)
        return parsed

    def after_the_time(self) -> str:
        return self.text.partition(" ")[2].rstrip("\n")

    def close(self) -> None:
        self.log.removeHandler(self._handler)
        self.log.setLevel(logging.NOTSET)
        self.log.propagate = True


@pytest.fixture
def as_text() -> Iterator[Printed]:
    printed = Printed(TextFormatter())
    yield printed
    printed.close()


@pytest.fixture
def as_json() -> Iterator[Printed]:
    printed = Printed(JsonFormatter())
    yield printed
    printed.close()


@pytest.fixture(params=[TextFormatter, JsonFormatter])
def printed(request: pytest.FixtureRequest) -> Iterator[Printed]:
    printed = Printed(request.param())
    yield printed
    printed.close()


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc  # noqa: TRY301
    except BaseException as caught:  # noqa: BLE001
        return caught


class TestText:
    def test_an_attempt_is_one_sentence(self, as_text: Printed) -> None:
        say(as_text.log, logging.INFO, ATTEMPT, **FIELDS)

        assert as_text.after_the_time() == (
            "INFO mail_service.delivery attempt 2 of 0b9 by default: deferred (smtp 450 4.2.1) in 0.031 s"
        )

    def test_a_line_begins_with_its_time_in_utc(self, as_text: Printed) -> None:
        as_text.log.info("now")

        time = dt.datetime.fromisoformat(as_text.text.split(" ")[0])
        assert time.utcoffset() == dt.timedelta(0)
        assert abs(dt.datetime.now(dt.UTC) - time) < dt.timedelta(minutes=1)

    def test_fields_that_the_sentence_does_not_use_follow_it(self, as_text: Printed) -> None:
        say(
            as_text.log,
            logging.WARNING,
            "%(id)s waits",
            id="0b9",
            seconds=1.5,
            reason="a pause",
            code=None,
            event="held",
        )

        assert as_text.after_the_time() == 'WARNING mail_service.delivery 0b9 waits seconds=1.5 reason="a pause"'

    def test_extra_works_without_say(self, as_text: Printed) -> None:
        as_text.log.info("done with %d", 3, extra={"mail": {"mailer": "default"}})

        assert as_text.after_the_time() == "INFO mail_service.delivery done with 3 mailer=default"

    def test_a_percent_sign_needs_no_care_where_there_are_no_fields(self, as_text: Printed) -> None:
        say(as_text.log, logging.INFO, "100% done")

        assert as_text.after_the_time().endswith("100% done")

    def test_a_line_break_in_a_value_forges_no_line(self, as_text: Printed) -> None:
        say(as_text.log, logging.INFO, "took %(id)s", id="x\n2026 INFO mail_service.delivery all is well\u2028\x1b[0m")

        assert as_text.text.count("\n") == 1
        assert r"x\n2026 INFO" in as_text.text
        assert "\x1b" not in as_text.text

    def test_a_traceback_stands_below_without_the_exceptions_text(self, as_text: Printed) -> None:
        say(as_text.log, logging.ERROR, "%(id)s is broken", id="0b9", cause=raised(ValueError(BODY)))

        first, *below = as_text.text.splitlines()
        assert first.endswith("0b9 is broken")
        assert below[0] == "Traceback (most recent call last):"
        assert "in raised" in below[1]
        assert below[-1] == "ValueError"


class TestJson:
    def test_an_attempt_is_one_object(self, as_json: Printed) -> None:
        say(as_json.log, logging.INFO, ATTEMPT, **FIELDS)

        line = as_json.json
        assert dt.datetime.fromisoformat(str(line.pop("time"))).utcoffset() == dt.timedelta(0)
        assert line == {
            "level": "INFO",
            "logger": "mail_service.delivery",
            "message": "attempt 2 of 0b9 by default: deferred (smtp 450 4.2.1) in 0.031 s",
            **FIELDS,
        }

    def test_an_exception_has_a_type_and_a_traceback(self, as_json: Printed) -> None:
        as_json.log.error("broken", exc_info=raised(ValueError(BODY)))

        exception = as_json.json["exception"]
        assert isinstance(exception, dict)
        assert exception["type"] == "ValueError"
        assert exception["traceback"].endswith("ValueError")
        assert BODY not in as_json.text

    def test_a_field_replaces_no_key_of_the_line(self, as_json: Printed) -> None:
        say(as_json.log, logging.INFO, "x", time="later", level=7)

        assert as_json.json["level"] == "INFO"
        assert (as_json.json["mail_time"], as_json.json["mail_level"]) == ("later", 7)

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (float("nan"), "nan"),
            (1 / 3, 0.333333),
            (None, None),
            (True, True),
            (["a", "b"], ["a", "b"]),
            ({"to": ADDRESS}, "dict"),
            ([{"to": ADDRESS}], ["dict"]),
            (b"bytes", "bytes"),
            (KeyError(BODY), "KeyError"),
            (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "2026-01-01 00:00:00+00:00"),
        ],
        ids=repr,
    )
    def test_any_value_of_a_field_can_be_printed(self, as_json: Printed, value: object, shown: object) -> None:
        say(as_json.log, logging.INFO, "x", value=value)

        assert as_json.json["value"] == shown


class _BadText:
    def __str__(self) -> str:
        raise ValueError(BODY)


class TestNothingOfAMail:
    @pytest.mark.parametrize(
        "address",
        [
            ADDRESS,
            f"<{ADDRESS}>",
            f"Bob <{ADDRESS}>",
            f"['{ADDRESS}', \"{ADDRESS}\"]",
            '"bob private"@private.example',
            "bob@[192.0.2.1]",
            "bob%40private.example",
            f"mailto:{ADDRESS}",
            "bob+private@private.example",
            "bøb@prívate.example",
        ],
    )
    def test_an_address_in_a_line_is_not_printed(self, printed: Printed, address: str) -> None:
        printed.log.warning("refused: %s", address)
        say(printed.log, logging.INFO, "to " + address.replace("%", "%%") + " by %(mailer)s", mailer=address)

        assert "private" not in printed.text
        assert "bob" not in printed.text.replace("Bob", "")

    @pytest.mark.parametrize("name", ["to", "recipients", "subject", "body", "payload", "password", "api_key"])
    def test_a_field_with_a_private_name_is_not_printed(self, printed: Printed, name: str) -> None:
        printed.log.info("x", extra={"mail": {name: SECRET, f"other_{name}_id": 1}})

        assert SECRET not in printed.text

    def test_passwords_in_urls_are_not_printed(self, printed: Printed) -> None:
        printed.log.warning("cannot reach %s", f"pyamqp://guest:{SECRET}@localhost:5672//")

        assert SECRET not in printed.text
        assert "pyamqp://guest:***@localhost:5672//" in printed.text

    @pytest.mark.parametrize(
        "exc",
        [
            ValueError(BODY),
            smtplib.SMTPRecipientsRefused({ADDRESS: (550, BODY.encode())}),
            smtplib.SMTPSenderRefused(550, BODY.encode(), ADDRESS),
            smtplib.SMTPDataError(550, BODY),
            FileNotFoundError(2, "No such file", f"/srv/{ADDRESS}/{SECRET}"),
            InvalidMessage("to[0]", BODY),
            ExceptionGroup(BODY, [ValueError(ADDRESS)]),
            SystemExit(BODY),
        ],
        ids=lambda exc: type(exc).__name__,
    )
    @pytest.mark.parametrize("logger", ["mail_service.delivery", "nameko.rpc", "sqlalchemy.pool"])
    def test_an_exceptions_text_is_not_printed(self, exc: BaseException, logger: str) -> None:
        for formatter in (TextFormatter(), JsonFormatter()):
            printed = Printed(formatter, logger)
            exc.add_note(BODY)
            printed.log.error("failed: %s", raised(exc), exc_info=exc)
            printed.log.error(exc)
            printed.log.error("%(why)s", {"why": exc})
            printed.close()

            assert type(exc).__name__ in printed.text
            assert not [word for word in ("Bob", "bob", "private", SECRET) if word in printed.text]

    def test_a_systems_reason_is_printed(self, as_text: Printed) -> None:
        as_text.log.warning("no connection: %s", ConnectionRefusedError(111, "Connection refused"))

        assert "no connection: ConnectionRefusedError (Connection refused)" in as_text.text

    def test_the_list_of_mistakes_in_the_configuration_is_printed(self, as_text: Printed) -> None:
        as_text.log.critical("%s", ConfigurationError("mail.max_sise: unknown key"))

        assert "mail.max_sise: unknown key" in as_text.text

    @pytest.mark.parametrize("args", [(ADDRESS, BODY), (_BadText(),)], ids=["too many", "one that cannot be shown"])
    @pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
    def test_a_line_that_cannot_be_made_shows_no_arguments(
        self, formatter: logging.Formatter, args: tuple[object, ...]
    ) -> None:
        # not by way of a logger, since pytest's own handler would fail at it
        record = logging.LogRecord("mail_service", logging.WARNING, __file__, 1, "one %s", args, None)

        line = formatter.format(record)

        assert "one %s (its arguments do not fit)" in line
        assert BODY not in line

    def test_a_body_is_cut(self, printed: Printed) -> None:
        printed.log.warning("odd: %s", "x" * 100_000)

        assert len(printed.text) < 2_300


class TestSafeTraceback:
    def test_it_names_every_cause_the_first_one_first(self) -> None:
        def fails() -> None:
            try:
                try:
                    raise KeyError(BODY)  # noqa: TRY301
                except KeyError as exc:
                    raise ValueError(BODY) from exc
            except ValueError:
                raise TypeError(BODY)  # noqa: B904 - the context is what is tested

        with pytest.raises(TypeError) as caught:
            fails()

        lines = safe_traceback(caught.value).splitlines()
        outline = [line for line in lines if line and not line.startswith((" ", "Traceback"))]
        assert outline == [
            "KeyError",
            "which was the cause of:",
            "ValueError",
            "during the handling of which came:",
            "TypeError",
        ]

    def test_it_ends_for_exceptions_in_a_circle(self) -> None:
        first, second = ValueError(), KeyError()
        first.__cause__, second.__cause__ = second, first

        assert safe_traceback(first).splitlines()[-1] == "ValueError"

    def test_endless_recursion_is_cut(self) -> None:
        def again() -> None:
            again()

        with pytest.raises(RecursionError) as caught:
            again()

        assert len(safe_traceback(caught.value).splitlines()) < 100


class Backoff(Exception):
    """Stands for nameko_amqp_retry's, which cannot be imported without eventlet."""


class Transient(Backoff):
    pass


WORKER = SimpleNamespace(service_name="mail_service", entrypoint=SimpleNamespace(method_name="send"))
EXPECTED = "(expected) error handling worker %s: %s"
UNEXPECTED = "error handling worker %s: %s"


class TestNamekosLines:
    @pytest.fixture
    def nameko(self) -> Iterator[Printed]:
        """nameko's logger with a formatter that hides nothing: the rewriting comes before it."""
        quiet_the_stack()
        printed = Printed(logging.Formatter("%(levelname)s %(message)s"), "nameko.containers")
        yield printed
        printed.close()

    @pytest.mark.parametrize(
        ("template", "exc", "line"),
        [
            (EXPECTED, InvalidMessage("to[0]", ADDRESS), "INFO mail_service.send refused: InvalidMessage"),
            (UNEXPECTED, InvalidMessage("to[0]", ADDRESS), "INFO mail_service.send refused: InvalidMessage"),
            (EXPECTED, ValueError(BODY), "INFO mail_service.send refused: ValueError"),
            (UNEXPECTED, Transient(BODY), "DEBUG mail_service.send is tried again later: Transient"),
        ],
        ids=["a refusal", "a refusal nameko did not expect", "what nameko expected", "a Backoff"],
    )
    def test_a_failed_call_is_one_line_without_values(
        self, nameko: Printed, template: str, exc: Exception, line: str
    ) -> None:
        nameko.log.error(template, WORKER, raised(exc), exc_info=raised(exc))

        assert nameko.text == line + "\n"

    def test_a_defect_of_ours_is_one_line_with_its_place(self, nameko: Printed) -> None:
        exc = raised(KeyError(BODY))

        nameko.log.error(UNEXPECTED, WORKER, exc, exc_info=exc)

        line_number = exc.__traceback__.tb_lineno if exc.__traceback__ else 0
        assert nameko.text == f"ERROR mail_service.send failed: KeyError at test_logs.py:{line_number} raised\n"

    def test_a_dying_container_says_why_without_values(self, nameko: Printed) -> None:
        nameko.log.critical("%s thread exited with error", "<ServiceContainer>", exc_info=raised(KeyError(BODY)))
        nameko.log.info("killing %s due to %s", "<ServiceContainer>", KeyError(BODY))

        first, second = nameko.text.splitlines()
        assert first.startswith("CRITICAL <ServiceContainer> thread exited with error: KeyError at test_logs.py")
        assert second == "INFO killing <ServiceContainer> due to KeyError"

    def test_a_backoff_is_not_printed_where_debug_is_off(self, nameko: Printed) -> None:
        nameko.log.setLevel(logging.INFO)

        nameko.log.error(UNEXPECTED, WORKER, Transient(BODY))

        assert nameko.text == ""

    def test_other_lines_stay_as_they_are(self, nameko: Printed) -> None:
        nameko.log.warning("killing %s active workers(s)", 3)

        assert nameko.text == "WARNING killing 3 active workers(s)\n"

    def test_nameko_still_uses_these_words(self) -> None:
        spec = find_spec("nameko")
        assert spec is not None
        assert spec.origin is not None
        source = (Path(spec.origin).parent / "containers.py").read_text()

        assert f"'{EXPECTED}'" in source
        assert f"'{UNEXPECTED}'" in source

    def test_an_unreadable_messages_body_is_not_printed(self) -> None:
        quiet_the_stack()
        printed = Printed(logging.Formatter("%(message)s"), "kombu.mixins")
        printed.log.error(
            "Can't decode message body: %r (type:%r encoding:%r raw:%r')", ValueError(BODY), "text/plain", "utf-8", BODY
        )
        printed.close()

        assert printed.text == "a message could not be decoded; its body is not shown\n"

    def test_quieting_twice_is_quieting_once(self) -> None:
        with warnings.catch_warnings():
            quiet_the_stack()
            filters = list(logging.getLogger("nameko.containers").filters)
            quiet_the_stack()

        assert logging.getLogger("nameko.containers").filters == filters

    def test_a_real_container_prints_no_argument(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", REAL_CONTAINER],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "default"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        lines = [line.partition(" ")[2] for line in done.stdout.splitlines()]
        assert lines[:2] == [
            "INFO nameko.containers broken.refuses refused: InvalidMessage",
            "INFO nameko.containers broken.expects refused: ValueError",
        ]
        assert lines[2].startswith("ERROR nameko.containers broken.fails failed: KeyError at containers.py:")
        assert len(lines) == 3
        assert done.stderr == ""


#: a service of nameko's, without a broker, configured with this project's LOGGING
REAL_CONTAINER = """
import mail_service.logs
mail_service.logs.quiet_the_stack()
import eventlet
eventlet.monkey_patch()
import logging.config, sys
from mail_service.errors import InvalidMessage
from mail_service.settings import load_config_file
from nameko.containers import ServiceContainer
from nameko.testing.services import dummy, entrypoint_hook

logging_config = load_config_file("config.yaml")["LOGGING"]
logging_config["handlers"]["console"]["stream"] = "ext://sys.stdout"
logging.config.dictConfig(logging_config)

class Broken:
    name = "broken"

    @dummy
    def refuses(self, message):
        raise InvalidMessage("to[0]", message)

    @dummy(expected_exceptions=ValueError)
    def expects(self, message):
        raise ValueError(message)

    @dummy
    def fails(self, message):
        raise KeyError(message)

container = ServiceContainer(Broken, {})
container.start()
for method in ("refuses", "expects", "fails"):
    with entrypoint_hook(container, method) as hook:
        try:
            hook("bob@private.example")
        except Exception:
            pass
container.stop()
"""


class TestConfiguration:
    @pytest.mark.parametrize("formatter", ["TextFormatter", "JsonFormatter"])
    def test_dict_config_takes_the_formatters_in_both_spellings(self, formatter: str) -> None:
        path = f"mail_service.logs.{formatter}"
        formatters = {"one": {"()": path}, "two": {"class": path}}

        logging.config.dictConfig(
            {"version": 1, "incremental": False, "disable_existing_loggers": False, "formatters": formatters}
        )
