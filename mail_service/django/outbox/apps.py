"""The app: one table and the command ``send_outbox``."""

from __future__ import annotations

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """``INSTALLED_APPS = [..., "mail_service.django.outbox"]``."""

    name = "mail_service.django.outbox"
    label = "mail_service_outbox"
    verbose_name = "Mail service: outbox"
