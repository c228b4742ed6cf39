"""What models of the leaderboard are compared by: one explainer, and two metrics of it."""

from collections.abc import Sequence
from typing import Final

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Robustness, Stability

PAPER_EXPLAINER: Final = "integrated_gradients"
FIXED: Final = "fixed_map"
METRICS: Final = ("IN", "CO")
"""As the paper calls them: the share of top pixels that stay, and Kendall's correlation."""


def leading(strict: Sequence[Robustness]) -> Robustness | None:
    """The explainer that stands for the stricter protocol, and never the picture that is fixed.

    One that was attacked through its own definition, if there is any: a map that an attack on
    another explainer leaves alone has passed no test. Among these the paper's.
    """
    useful = [one for one in strict if one.name != FIXED]
    direct = [one for one in useful if one.attack.against == one.explainer]
    some = direct or useful
    return next((one for one in some if one.name == PAPER_EXPLAINER), (*some, None)[0])


def board_lead(cards: Sequence[Scorecard]) -> str:
    """Label of the explainer by which all models are compared; "" where there is none."""
    found = leading([one for card in cards for one in card.strict])
    return found.explainer if found else ""


def lead_of(card: Scorecard, lead: str) -> Robustness | None:
    """That explainer on one model."""
    return next((one for one in card.strict if one.explainer == lead), None)


def part(found: Robustness | None, metric: str) -> Stability | None:
    """IN or CO of it."""
    if found is None:
        return None
    return found.intersection if metric == "IN" else found.kendall
