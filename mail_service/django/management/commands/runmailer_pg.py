"""``manage.py runmailer_pg``, as django-mailer has it: says what replaces it."""

from __future__ import annotations

from mail_service.django.management.commands.runmailer import Command

__all__ = ["Command"]
