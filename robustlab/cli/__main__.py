"""``python -m robustlab.cli``."""

from robustlab.cli.commands import main

main()
