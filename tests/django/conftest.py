"""A Django project for these tests, a service that delivers what it sends, and both ways to name the backend."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import django
import pytest
from django.conf import settings as django_settings
from django.core.mail import EmailMessage
from django.db import connections
from django.test.utils import override_settings

from mail_service.client import MailClient
from mail_service.django import close_clients
from mail_service.local.node import Node
from mail_service.local.smtp_server import Accepted, Rule, SmtpServer

from ..support.service import Service, configuration
from . import settings as project

BACKEND = "mail_service.django.EmailBackend"
DJANGO_6_1 = django.VERSION >= (6, 1)

#: what becomes of whom
PEOPLE = (
    Rule(at="rcpt", to="refused*", reply="550 5.1.1 No such person"),
    Rule(at="rcpt", to="later*", reply="450 4.2.0 Come back later"),
    Rule(at="end", to="slow*", hang_s=3),
)


def _set_up_django() -> None:
    """Whatever test configured the settings before, as mail alone needs them."""
    for name in filter(str.isupper, dir(project)):
        setattr(django_settings, name, getattr(project, name))
    django.setup()


_set_up_django()


def pytest_itemcollected(item: pytest.Item) -> None:
    if DJANGO_6_1 and item.path.is_relative_to(__file__.rpartition("/")[0]):
        # for projects without MAILERS, which Django 6.1 still supports
        item.add_marker(pytest.mark.filterwarnings("ignore::django.utils.deprecation.RemovedInDjango2028Warning"))


def an_email(**changes: Any) -> EmailMessage:
    """A small message."""
    made = {"subject": "Hello", "body": "Text", "from_email": "shop@example.org", "to": ["ann@example.org"]} | changes
    return EmailMessage(**made)


def project_with(amqp_uri: str, **settings: Any) -> AbstractContextManager[Any]:
    """Django's settings with our backend, and with *settings* in ``MAIL_SERVICE``."""
    overridden: AbstractContextManager[Any] = override_settings(
        EMAIL_BACKEND=BACKEND, MAIL_SERVICE={"AMQP_URI": amqp_uri, "TIMEOUT": 10} | settings
    )
    return overridden


@dataclass
class House:
    """A running service, and the mail server it sends to."""

    service: Service
    smtp: SmtpServer
    amqp_uri: str
    _numbers: Iterator[int]

    def person(self, name: str = "ann") -> str:
        """An address nobody else has; the name decides what the mail server thinks of it (``PEOPLE``)."""
        return f"{name}-{next(self._numbers)}-{uuid.uuid4().hex[:6]}@example.org"

    def mails_to(self, address: str) -> list[Accepted]:
        return [mail for mail in self.smtp.accepted() if address in mail.rcpt_tos]


@pytest.fixture(scope="session")
def house(rabbitmq_3: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One service for all tests. Its virtual host is not from the stock, which deletes those that were used."""
    vhost = f"django-{uuid.uuid4().hex}"
    rabbitmq_3.add_vhosts(vhost)
    with ExitStack() as stack:
        stack.callback(rabbitmq_3.delete_vhosts, vhost)
        uri = rabbitmq_3.uri(vhost)
        smtp = stack.enter_context(SmtpServer(*PEOPLE))
        folder = tmp_path_factory.mktemp("django")
        schedules = {"quick": {"schedule": [100], "limit": 1}, "hourly": {"schedule": [3_600_000], "limit": 2}}
        config = configuration(uri, folder, smtp_port=smtp.port, schedules=schedules)
        config["mail"]["mailers"]["rehearsal"] = {"BACKEND": "mail_service.mailers.rehearsal.EmailBackend"}
        config["mail"]["mailers"]["fussy"] = {"BACKEND": "tests.support.backends.Fussy"}
        yield House(stack.enter_context(Service(config, folder)), smtp, uri, count(1))


@pytest.fixture
def waiting(house: House) -> Iterator[House]:
    """A project whose mail goes to a running service, and that waits for the delivery."""
    with project_with(house.amqp_uri, WAIT=True):
        yield house


@pytest.fixture
def queueing(amqp_uri: str) -> Iterator[str]:
    """A project whose mail goes to RabbitMQ, where no service runs."""
    with project_with(amqp_uri):
        yield amqp_uri


@pytest.fixture(autouse=True)
def _clean_up() -> Iterator[None]:
    yield
    close_clients()
    connections.close_all()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """How often a method of the client was called."""
    calls: list[str] = []

    def count_calls(name: str) -> None:
        method = getattr(MailClient, name)

        def counting(self: MailClient, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return method(self, *args, **kwargs)

        monkeypatch.setattr(MailClient, name, counting)

    for name in ("submit", "submit_many", "submit_checked", "send"):
        count_calls(name)
    return calls.count
