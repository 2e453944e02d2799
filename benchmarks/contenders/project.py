"""The Django settings of all contenders' processes."""

from benchmarks.contenders.place import Place

_PLACE = Place.here()

SECRET_KEY = "bench"
USE_TZ = True
INSTALLED_APPS = {
    "post_office": ["django.contrib.contenttypes", "post_office"],
    "django_mailer": ["mailer"],
}.get(_PLACE.contender, [])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _PLACE.folder / "peer.db",
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
LOGGING_CONFIG = None

SMTP = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = _PLACE.smtp_port
EMAIL_TIMEOUT = 30
EMAIL_BACKEND = {
    "ours_django": "mail_service.django.EmailBackend",
    "post_office": "post_office.EmailBackend",
    "django_mailer": "mailer.backend.DbBackend",
}.get(_PLACE.contender, SMTP)
MAIL_SERVICE = {"AMQP_URI": _PLACE.amqp_uri}

# as fast as its documentation says it can be made
POST_OFFICE = {"BACKENDS": {"default": SMTP}, "BATCH_SIZE": 1000, "THREADS_PER_PROCESS": 8, "LOG_LEVEL": 1}

MAILER_EMAIL_BACKEND = SMTP
MAILER_USE_FILE_LOCK = False
