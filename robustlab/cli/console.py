"""Where the command line prints, and how a mistake of the user's is told."""

import sys
from typing import Final, NoReturn

from rich.console import Console

# a pipe has no width of its own: tables get room, since nobody can resize it
out: Final = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
err: Final = Console(stderr=True, highlight=False)


def escaped(text: str) -> str:
    """Text in which square brackets are no markup."""
    return text.replace("[", r"\[")


def complain(message: str) -> None:
    """One line on stderr for a mistake of the user's."""
    _tell("[bold red]error[/]", message)


def failed(what: str, reason: str) -> None:
    """One line on stderr for a piece of work that crashed."""
    _tell("[bold red]failed[/]", f"{what}: {reason}")


def warn(word: str, text: str) -> None:
    """One line on stderr that begins with a yellow word."""
    _tell(f"[yellow]{word}[/]", text)


def leave(message: str) -> NoReturn:
    """Complain and exit with 2."""
    complain(message)
    sys.exit(2)


def _tell(word: str, text: str) -> None:
    err.print(f"{word} {escaped(text)}", soft_wrap=True)
