"""
A transactional outbox, for programs that must not lose a mail when RabbitMQ is down, nor send one when they roll back.

    INSTALLED_APPS = [..., "mail_service.django.outbox"]
    MAIL_SERVICE = {"AMQP_URI": ..., "OUTBOX": True}     # or "fallback"

``manage.py migrate`` makes the table ``mail_service_outbox``. With ``True`` a mail is a row there, written in the
transaction of the caller: it exists when that commits and never did when that rolls back; RabbitMQ is not spoken to.
With ``"fallback"`` only those mails become rows that RabbitMQ did not confirm. ``manage.py send_outbox`` hands the rows
over, under supervision as any daemon, or from cron with ``--once``.

A row is deleted after RabbitMQ has confirmed its mail, which has had its id since it was written. So whatever happens
in between, the mail is handed over at least once, and for the service the same id is one mail.

What to know:

- The row is in the caller's transaction only if it is in the caller's database. A router decides where the app
  ``mail_service_outbox`` lives.
- Rows go in the order in which they were written; one process keeps it. Several share the rows between them.
- A row keeps the name of the ``MAILERS`` entry it was sent with, not its settings: no password is written down.
- A row that the service would refuse is kept, with ``refused_at`` and ``error``, and does not hold up the others.
"""
