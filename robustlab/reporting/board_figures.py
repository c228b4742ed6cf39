"""The trade-off figures of the leaderboard: one per protocol, all models in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from markupsafe import Markup

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Robustness
from robustlab.reporting.comparison import FIXED, lead_of, part
from robustlab.reporting.figures import twice
from robustlab.reporting.tradeoff_plot import Point, TradeoffPlot

TITLES: Final = {"published": "Published protocol", "strict": "Stricter protocol"}


@dataclass(frozen=True)
class Figure:
    """A trade-off figure in its two drawings."""

    title: str
    caption: str
    drawings: tuple[Markup, ...]


def board_figures(slug: str, cards: Sequence[Scorecard], lead: str) -> tuple[Figure, ...]:
    """One per protocol that any model was measured under; ``slug`` opens their identifiers."""
    chosen = {
        "published": [(card, card.published) for card in cards],
        "strict": [(card, lead_of(card, lead)) for card in cards],
    }
    still = {"published": None, "strict": _still(cards)}
    made = (_figure(f"{slug}-{k}", TITLES[k], found, still[k]) for k, found in chosen.items())
    return tuple(figure for figure in made if figure is not None)


def _figure(
    name: str,
    title: str,
    found: Sequence[tuple[Scorecard, Robustness | None]],
    still: float | None,
) -> Figure | None:
    """None where no model has both an accuracy and an IN."""
    points, shown, chance = [], None, None
    labels = without_prefix([card.model.label for card, _ in found])
    for i, (card, one) in enumerate(found):
        stability = part(one, "IN")
        if card.clean and one and stability and stability.ones.n:
            points.append(Point(labels[i], i, card.clean.share, stability.ones))
            shown, chance = shown or one, chance if shown else stability.chance
    if shown is None:
        return None
    plot = TradeoffPlot(
        name=name,
        title=f"{title}: natural accuracy against stability",
        metric=f"IN under {shown.attack.name} (higher = more stable)",
        points=points,
        chance=chance,
        still=still,
    )
    caption = f"Top pixels of {shown.explainer} that stay under {shown.attack.name}."
    return Figure(title, caption, twice(plot))


def without_prefix(labels: Sequence[str]) -> list[str]:
    """Names without the words that all begin with, such as ``mnist_``."""
    columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*labels, strict=False))
    start = "".join(letters[0] for letters in columns)
    cut = max((start.rfind(sign) for sign in "_: -/"), default=-1) + 1
    return [label[cut:] for label in labels] if len(labels) > 1 else list(labels)


def _still(cards: Sequence[Scorecard]) -> float | None:
    """IN of the picture that never moves, if it was measured."""
    for card in cards:
        for one in card.strict:
            if one.name == FIXED and one.intersection:
                return one.intersection.ones.mean
    return None
