"""The app: management commands and system checks. Sending mail does not need it."""

from __future__ import annotations

from django.apps import AppConfig


class MailServiceConfig(AppConfig):
    """``INSTALLED_APPS = [..., "mail_service.django"]``."""

    name = "mail_service.django"
    label = "mail_service"
    verbose_name = "Mail service"
