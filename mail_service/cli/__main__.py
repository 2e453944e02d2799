"""``python -m mail_service.cli``"""

from mail_service.cli import main

main()
