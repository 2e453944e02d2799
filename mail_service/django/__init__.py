"""
Mail from Django: ``EMAIL_BACKEND = "mail_service.django.EmailBackend"``, or a ``MAILERS`` entry from Django 6.1 on.

    MAIL_SERVICE = {"AMQP_URI": "amqps://shop:secret@rabbitmq.example.org/mail"}

``send()`` returns once RabbitMQ has confirmed the mail. Every setting with its default stands in ``settings.Settings``;
an entry of ``MAILERS`` may have the same names in its ``OPTIONS``, which then go before ``MAIL_SERVICE``. A message may
have options of its own (``id``, ``mailer``, ``priority``, ``backoff``, ``expires_at``, ``tenant``)::

    message.mail_service = {"priority": "bulk", "tenant": "acme"}
    message.send()
    message.mail_service_status   # {"id": "…", "status": "queued"}

``mail_service.django`` in ``INSTALLED_APPS`` is needed for its management commands and system checks only.

Django has no asynchronous ``send``. In an async view neither of these blocks the event loop::

    await sync_to_async(message.send)()
    await connection.asend_messages([message])
"""

from mail_service.django import checks as _checks
from mail_service.django.backend import EmailBackend
from mail_service.django.clients import close_clients

# for projects that import this without having the app installed; twice is once
_checks.register()

__all__ = ["EmailBackend", "close_clients"]
