"""Names after the colon: hundreds are known, so an error shows the closest only."""

from collections.abc import Collection
from difflib import get_close_matches

from robustlab.core.errors import InvalidInput


def check_arch(family: str, arch: str, known: Collection[str]) -> None:
    """Refuse an architecture that ``family`` does not have, with the nearest spellings."""
    if arch in known:
        return
    close = get_close_matches(arch, known, n=5, cutoff=0.5)
    guess = f"did you mean {', '.join(close)}? " if close else ""
    problem = f"{family} has no image classifier {arch!r}"
    raise InvalidInput("arch", problem, f"{guess}{family}.list_models() shows all {len(known)}")
