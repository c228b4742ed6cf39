"""What can go wrong, in the caller's language.

Every mistake a user can make ends in one of these. The command line prints the
message and exits with 2; it never shows a traceback for them.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RobustlabError(Exception):
    """Base of every error that robustlab raises on purpose."""


class InvalidInput(RobustlabError, ValueError):
    """A value that the caller gave cannot be used.

    Args:
        field: name of the argument, spec key or file, as the caller knows it.
        problem: what came and what is wrong with it.
        remedy: what would have worked.
    """

    def __init__(self, field: str, problem: str, remedy: str = "") -> None:
        self.field, self.problem, self.remedy = field, problem, remedy
        super().__init__(f"{field}: {problem}" + (f"; {remedy}" if remedy else ""))

    def within(self, prefix: str) -> "InvalidInput":
        """The same error, with its field named from further outside: ``prefix.field``."""
        return InvalidInput(f"{prefix}.{self.field}", self.problem, self.remedy)

    def __reduce__(self) -> tuple[type["InvalidInput"], tuple[str, str, str]]:
        return type(self), (self.field, self.problem, self.remedy)


class NotDifferentiable(RobustlabError):
    """A gradient attack was asked of an explainer or path that has no gradient."""


class MissingDependency(RobustlabError):
    """An optional package is needed; the message says how to install it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for a misspelt name: the closest known ones, then the whole list."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}known: {', '.join(known)}"
