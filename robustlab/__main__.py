"""``python -m robustlab``: the command line without its script on the path."""

from robustlab.cli.commands import main

main()
