"""Servers of our own for ``make demo``, ``make run`` and the tests: RabbitMQ and a scripted SMTP server."""
