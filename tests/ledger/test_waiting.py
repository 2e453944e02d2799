"""Mail that waits is cancelled and put off in one transaction; copies under way learn of it when they ask."""

from __future__ import annotations

from typing import Any

import pytest

from mail_service import clock
from mail_service.envelope import ReplyTo
from mail_service.errors import Conflict, NotFound
from mail_service.ledger import Ledger
from mail_service.ledger.database import Database
from mail_service.ledger.errorlog import ErrorLog, Filter
from mail_service.ledger.records import Granted, PutOff, Superseded, recipient
from mail_service.ledger.waiting import WaitingMail
from mail_service.outcome import Status

from .building import a_change, a_copy, a_mail, in_status

CALLER = ReplyTo(routing_key="caller", correlation_id="1")


@pytest.fixture
def waiting(database: Database) -> WaitingMail:
    return WaitingMail(database)


def later(seconds: float = 3600) -> str:
    return clock.iso(clock.later(seconds))


@pytest.mark.parametrize("ask", [WaitingMail.cancel, lambda waiting, mail_id: waiting.put_off(mail_id, later())])
class TestBoth:
    @pytest.mark.parametrize("status", ["sent", "failed", "expired", "discarded", "suppressed"])
    def test_a_final_mail_is_a_conflict(self, ask: Any, status: str, ledger: Ledger, waiting: WaitingMail) -> None:
        ledger.claim(a_copy())
        ledger.record(a_change(in_status(status)))

        with pytest.raises(Conflict, match=status):
            ask(waiting, "mail")

    def test_a_mail_that_is_being_attempted_is_a_conflict(self, ask: Any, ledger: Ledger, waiting: WaitingMail) -> None:
        ledger.claim(a_copy())

        with pytest.raises(Conflict, match="at this moment"):
            ask(waiting, "mail")

    def test_nobody_knows_the_id(self, ask: Any, waiting: WaitingMail) -> None:
        with pytest.raises(NotFound):
            ask(waiting, "mail")


class TestCancel:
    def test_a_copy_of_a_cancelled_mail_is_of_no_use(self, ledger: Ledger, waiting: WaitingMail) -> None:
        ledger.claim(a_copy())
        ledger.record(a_change(in_status("deferred")))

        changed = waiting.cancel("mail")

        assert changed.mail.status == Status.DISCARDED
        assert ledger.find("mail") == changed.mail
        claim = ledger.claim(a_copy(generation=1))
        assert isinstance(claim, Superseded)
        assert not claim.wants_content

    def test_who_was_accepted_stays_so(self, ledger: Ledger, waiting: WaitingMail) -> None:
        recipients = {"ann@example.org": recipient(Status.SENT), "bob@example.org": recipient(Status.DEFERRED)}
        ledger.claim(a_copy())
        ledger.record(a_change(in_status("deferred", recipients=recipients)))

        changed = waiting.cancel("mail")

        assert [state["status"] for state in changed.mail.recipients.values()] == ["sent", "discarded"]

    def test_callers_who_joined_the_wait_are_handed_out_once(self, ledger: Ledger, waiting: WaitingMail) -> None:
        ledger.accept(a_mail())
        ledger.join("mail", "d" * 64, CALLER)

        assert list(waiting.cancel("mail").waiters) == [CALLER]

    def test_the_first_copy_that_comes_brings_the_content_that_nobody_had(
        self, ledger: Ledger, waiting: WaitingMail, error_log: ErrorLog
    ) -> None:
        ledger.accept(a_mail())
        waiting.cancel("mail")
        assert error_log.entry("mail")["message"] is None

        claim = ledger.claim(a_copy())
        assert isinstance(claim, Superseded)
        assert claim.wants_content
        content = a_change(in_status("deferred")).content
        ledger.accept(a_mail(), content)

        assert error_log.entry("mail")["message"]
        assert [mail.id for mail, _ in error_log.contents(Filter(), ["discarded"])] == ["mail"]
        again = ledger.claim(a_copy())
        assert isinstance(again, Superseded)
        assert not again.wants_content

    def test_it_is_found_by_its_recipient(self, ledger: Ledger, waiting: WaitingMail, error_log: ErrorLog) -> None:
        ledger.accept(a_mail())

        waiting.cancel("mail")

        assert [record["id"] for record in error_log.find(Filter(recipient="ann@EXAMPLE.org"))] == ["mail"]


class TestPutOff:
    @pytest.mark.parametrize("status", ["queued", "deferred", "held"])
    def test_no_copy_is_attempted_before_its_time(self, status: str, ledger: Ledger, waiting: WaitingMail) -> None:
        if status == "queued":
            ledger.accept(a_mail())
        else:
            ledger.claim(a_copy())
            ledger.record(a_change(in_status(status)))
        at = later()

        changed = waiting.put_off("mail", at)

        assert changed.mail.status == ("queued" if status == "queued" else "deferred")
        assert changed.mail.next_attempt_at == at
        assert isinstance(ledger.claim(a_copy(generation=changed.mail.generation)), PutOff)

    def test_a_newer_copy_comes_at_its_own_time_also_before_it_is_written_down(
        self, ledger: Ledger, waiting: WaitingMail
    ) -> None:
        ledger.claim(a_copy())
        ledger.record(a_change(in_status("deferred")))
        waiting.put_off("mail", later())

        claim = ledger.claim(a_copy(generation=2))

        assert isinstance(claim, Granted)
        assert claim.mail.not_before is not None
        assert claim.mail.not_before <= clock.now_iso()

    def test_its_time_comes_and_it_is_remembered_what_was_said(self, ledger: Ledger, waiting: WaitingMail) -> None:
        ledger.accept(a_mail())
        at = later(-1)

        waiting.put_off("mail", at)

        claim = ledger.claim(a_copy())
        assert isinstance(claim, Granted)
        assert claim.mail.not_before == at

    def test_held_mail_is_held_no_longer_so_that_no_release_brings_it(
        self, ledger: Ledger, waiting: WaitingMail
    ) -> None:
        ledger.claim(a_copy())
        ledger.record(a_change(in_status("held", attempts=0)))

        changed = waiting.put_off("mail", later())

        assert changed.mail.status == Status.QUEUED
        assert [state["status"] for state in changed.mail.recipients.values()] == ["queued"]
        assert changed.content

    def test_a_replay_forgets_it(self, ledger: Ledger, waiting: WaitingMail) -> None:
        ledger.accept(a_mail())
        waiting.put_off("mail", later())
        cancelled = waiting.cancel("mail").mail

        claim = ledger.claim(a_copy(generation=cancelled.generation + 1, replay=True))

        assert isinstance(claim, Granted)
        assert claim.mail.not_before is None


def test_content_is_kept_of_mail_that_waits_and_never_of_mail_that_was_sent(
    ledger: Ledger, waiting: WaitingMail
) -> None:
    content = a_change(in_status("deferred")).content
    ledger.claim(a_copy(id="sent"))
    ledger.record(a_change(in_status("sent", id="sent")))
    ledger.accept(a_mail(id="sent"), content)
    ledger.accept(a_mail(id="waits"), content)
    ledger.accept(a_mail(id="other"))
    ledger.accept(a_mail(id="other", digest="e" * 64), content)

    assert waiting.cancel("waits").content == content
    assert waiting.cancel("other").content == b""
    with pytest.raises(Conflict):
        waiting.cancel("sent")
