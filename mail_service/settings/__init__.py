"""
``config.yaml`` as typed, frozen data: what every key means, its unit and its default.

``load_config_file`` reads the file as nameko does, ``load_settings`` turns its ``mail`` section into ``Settings`` and
reports all mistakes at once, ``check_imports`` tries the dotted paths in it, ``mask`` makes any of it fit to print.
"""

from mail_service.settings.file import load_config_file
from mail_service.settings.imports import check_imports
from mail_service.settings.loading import load_settings
from mail_service.settings.masks import is_secret_name, mask, mask_text
from mail_service.settings.model import (
    Bounce,
    Content,
    DkimKey,
    DoorSchedules,
    DynamicSchedule,
    FixedSchedule,
    HardBounces,
    Limit,
    Limits,
    MailerSettings,
    OnUnknown,
    Retention,
    RoutingRule,
    Schedule,
    Settings,
)

__all__ = [
    "Bounce",
    "Content",
    "DkimKey",
    "DoorSchedules",
    "DynamicSchedule",
    "FixedSchedule",
    "HardBounces",
    "Limit",
    "Limits",
    "MailerSettings",
    "OnUnknown",
    "Retention",
    "RoutingRule",
    "Schedule",
    "Settings",
    "check_imports",
    "is_secret_name",
    "load_config_file",
    "load_settings",
    "mask",
    "mask_text",
]
