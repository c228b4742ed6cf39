"""The command line: parse, call the lab, print. Nothing heavy is imported before it is needed."""

from robustlab.cli.commands import app, main

__all__ = ["app", "main"]
