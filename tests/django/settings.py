"""The least that a Django project has: two databases, and our app."""

INSTALLED_APPS = ["mail_service.django"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    "orders": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
# Django would set up logging for the whole test run
LOGGING_CONFIG = None
