"""Servers of our own for ``make demo``, ``make run`` and the tests: RabbitMQ, and scripted SMTP and HTTP servers."""
