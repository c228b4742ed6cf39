"""Numbers and names as people read them: one rounding for every table, figure and page."""

from typing import Final, Protocol

from robustlab.records import MetricInfo

MISSING: Final = "–"
MINUS: Final = "\u2212"


class Aimed(Protocol):
    """An attack, the explainer and model it was made on, and the explainer it was measured on."""

    @property
    def attack(self) -> str: ...
    @property
    def against(self) -> str: ...
    @property
    def explainer(self) -> str: ...
    @property
    def made_on(self) -> str: ...


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


def share(value: float | None) -> str:
    """A share of images to a tenth of a per cent; a dash where there is none."""
    return MISSING if value is None else f"{100 * value:.1f}\u202f%"


def percent(value: float) -> str:
    """Whole percent, with one decimal below one: ``42 %``, ``0.4 %``."""
    share = 100 * value
    digits = 1 if share and round(abs(share), 1) < 1 else 0
    return _typographic(f"{share:.{digits}f}") + "\u202f%"


def points(share: float | None) -> str:
    """A difference of shares in points of a per cent, with its sign: ``+4.2``."""
    if share is None:
        return MISSING
    return ("+" if share > 0 else "") + _typographic(f"{100 * share:.1f}")


def signed(value: float | None) -> str:
    """As ``number``, with a plus sign for positive values."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 else text


def budget(norm: str, epsilon: float) -> str:
    """The radius; ``1.5 L2`` where it is not of the usual norm, and ``2/255 (8 bit)`` on a grid."""
    ball, _, grid = norm.partition("/")
    unusual = " L2" if ball == "l2" else ""
    return radius(norm, epsilon) + unusual + (f" ({_grid(grid)})" if grid else "")


def radius(norm: str, epsilon: float) -> str:
    """ε beside the name of its norm: ``8/255`` where papers write it so for L∞, else ``0.3``.

    A patch covers a share of the area, ``5 %``.
    """
    ball = norm.partition("/")[0]
    steps = epsilon * 255
    short = abs(epsilon - round(epsilon, 3)) < 1e-9
    if ball == "linf" and not short and abs(steps - round(steps, 2)) < 1e-6:
        return f"{round(steps, 2):g}/255"
    if ball == "patch":
        return f"{100 * epsilon:.3g}\u202f%"
    return f"{epsilon:.4g}"


def norm_name(norm: str) -> str:
    """``L∞``, ``L2`` and ``patch area`` for the norms of the lab; ``L∞, 8 bit`` on a grid."""
    ball, _, grid = norm.partition("/")
    name = {"linf": "L∞", "l2": "L2", "patch": "patch area"}.get(ball, ball)
    return f"{name}, {_grid(grid)}" if grid else name


def _grid(name: str) -> str:
    """``8 bit`` for ``8bit``."""
    return name.removesuffix("bit") + " bit"


def attack_name(row: Aimed) -> str:
    """The attack's label; a transferred attack says what it was made on."""
    if row.against and row.against != row.explainer:
        return f"{waged(row)} (aimed at {row.against})"
    return waged(row)


def waged(row: Aimed) -> str:
    """The attack's label, and the model it looked at where that is not the judged one."""
    return f"{row.attack} made on {row.made_on}" if row.made_on else row.attack


def praise(metric: MetricInfo) -> str:
    """What a map on the better side of a metric is: drift is told from facts about one map.

    Not to be asked where neither side is better.
    """
    if metric.of_model:
        return "more faithful"
    if metric.of_explainer:  # stable nearby, or alive to another class
        return "better"
    return "better aimed" if metric.of_region else "more stable"


def better(metric: MetricInfo) -> str:
    """``higher is more stable``; ``neither end is better`` of a metric that only describes."""
    if metric.of_map_alone:
        return "neither end is better"
    return f"{'higher' if metric.higher_is_more_stable else 'lower'} is {praise(metric)}"


def ignorant(metric: MetricInfo) -> str:
    """Who scores the metric's chance, in the plural."""
    if metric.of_model:
        return "random orders"
    if metric.of_map_alone:
        return "shuffled maps"
    return "maps that know nothing" if metric.of_region else "unrelated maps"


def count(number: int, noun: str) -> str:
    """``1 image``, ``4 images``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _typographic(text: str) -> str:
    """A real minus sign, and no minus before a zero."""
    if text.strip("-0.") == "":
        text = text.removeprefix("-")
    return text.replace("-", MINUS, 1) if text.startswith("-") else text
