"""Hand mail to the service from any Python program: kombu only, no eventlet, no nameko, no Django."""

from mail_service.client.mailclient import MailClient

__all__ = ["MailClient"]
