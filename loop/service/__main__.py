"""``python -m loop.service`` is ``turnwise``."""

from loop.service.command_line import main

main()
