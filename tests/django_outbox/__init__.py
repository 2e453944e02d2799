"""The models of an app can be imported only after Django's apps are set up; these tests add ours to them later."""

import django
from django.conf import settings

from ..django import settings as project
from ..support.messages import configure_django

# the same project as that of the other tests with Django, whichever are collected first
configure_django()
for name in filter(str.isupper, dir(project)):
    setattr(settings, name, getattr(project, name))
django.setup()
