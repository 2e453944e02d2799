"""The outbox's table: a mail in each row, until RabbitMQ has it."""

from __future__ import annotations

from django.db import models


class OutboxMail(models.Model):
    """A mail that waits to be handed over, or that the service would refuse."""

    #: the order in which they are handed over
    number = models.BigAutoField(primary_key=True)
    #: fixed when it was written: the same id is one mail, however often it is handed over
    mail_id = models.CharField(max_length=200)
    #: name of the entry of MAILERS it was sent with; empty for MAIL_SERVICE as it is
    entry = models.CharField(max_length=200, default="")
    #: JSON as text, in ASCII: a JSON column may change the order of headers, and refuses characters that mail may have
    message = models.TextField()
    #: JSON, without the id
    options = models.TextField()
    #: bytes of ``message``, so that a batch can be chosen without reading it
    size = models.PositiveIntegerField()
    stored_at = models.DateTimeField()
    #: the process that hands it over now, where rows are not locked for that
    claimed_by = models.CharField(max_length=32, null=True)  # nobody is not the empty process
    #: milliseconds since the epoch, when the claim is void; not a time, since USE_TZ changes their form
    claimed_until_ms = models.BigIntegerField(null=True)
    #: when it was found that the service would refuse it; such a row is not tried again by itself
    refused_at = models.DateTimeField(null=True)
    error = models.TextField(default="")

    class Meta:
        # so that it can be imported where the app is not installed
        app_label = "mail_service_outbox"
        db_table = "mail_service_outbox"
        verbose_name = "mail in the outbox"
        verbose_name_plural = "mails in the outbox"

    def __str__(self) -> str:
        return str(self.mail_id)
