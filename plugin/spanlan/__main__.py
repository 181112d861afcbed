"""``python -m spanlan`` is the ``spanlan`` command."""

from spanlan.cli import main

main()
