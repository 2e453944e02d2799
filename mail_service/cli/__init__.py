"""
The command line: commands ask the running service and print its answer, as a table or, with ``--json``, as it came.

Exit status: 0 done, 1 "no" or failed, 2 misused. Imports are inside the commands, so that ``--help`` comes at once.
"""

from mail_service.cli.commands import main

__all__ = ["main"]
