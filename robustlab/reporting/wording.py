"""Numbers and names as people read them: one rounding for every table, figure and page."""

from typing import Final, Protocol

MISSING: Final = "–"
MINUS: Final = "\u2212"


class Aimed(Protocol):
    """Anything that has an attack, the explainer it aimed at and the one it was measured on."""

    @property
    def attack(self) -> str: ...
    @property
    def against(self) -> str: ...
    @property
    def explainer(self) -> str: ...


def number(value: float | None) -> str:
    """Three decimals below ten, three significant digits above: ``0.042``, ``12.3``, ``456``."""
    if value is None:
        return MISSING
    size = abs(value)
    if size >= 10_000 or 0 < size < 0.0005:
        digits, _, power = f"{value:.1e}".partition("e")
        return _typographic(digits) + "e" + _typographic(f"{int(power)}")
    return _typographic(f"{value:.{3 if size < 10 else 1 if size < 100 else 0}f}")


def with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    """``0.042 [0.021, 0.068]``; without brackets where there is no interval."""
    if low is None or high is None:
        return number(mean)
    return f"{number(mean)} [{number(low)}, {number(high)}]"


def percent(value: float) -> str:
    """Whole percent, with one decimal below one: ``42 %``, ``0.4 %``."""
    share = 100 * value
    digits = 1 if 0 < abs(share) < 1 else 0
    return _typographic(f"{share:.{digits}f}") + "\u202f%"


def signed(value: float | None) -> str:
    """As ``number``, with a plus sign for positive values."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 else text


def budget(norm: str, epsilon: float) -> str:
    """``8/255`` where papers would write an L∞ budget so, else the number: ``0.3``."""
    steps = epsilon * 255
    short = abs(epsilon - round(epsilon, 3)) < 1e-9
    if norm == "linf" and not short and abs(steps - round(steps, 2)) < 1e-6:
        return f"{round(steps, 2):g}/255"
    return f"{epsilon:.4g}"


def norm_name(norm: str) -> str:
    """``L∞`` and ``L2`` for the norms of the lab."""
    return {"linf": "L∞", "l2": "L2"}.get(norm, norm)


def attack_name(row: Aimed) -> str:
    """The attack's label; a transferred attack says which explainer it aimed at."""
    if row.against and row.against != row.explainer:
        return f"{row.attack} (aimed at {row.against})"
    return row.attack


def count(number: int, noun: str) -> str:
    """``1 image``, ``4 images``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _typographic(text: str) -> str:
    """A real minus sign, and no minus before a zero."""
    if text.strip("-0.") == "":
        text = text.removeprefix("-")
    return text.replace("-", MINUS, 1) if text.startswith("-") else text
