"""The leaderboard as a page, from scorecards alone."""

from collections.abc import Sequence

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Stability
from robustlab.reporting import published, wording
from robustlab.reporting.board import TITLE, boards
from robustlab.reporting.board_methods import settings
from robustlab.reporting.comparison import part
from robustlab.reporting.pages import render
from robustlab.reporting.verdicts import Verdict, beyond_control


def leaderboard_html(cards: Sequence[Scorecard]) -> str:
    """The page as text; equal cards give equal bytes."""
    return render(
        "leaderboard",
        title=TITLE,
        boards=boards(cards),
        models=len({card.model.label for card in cards}),
        source=published.SOURCE,
        status=published.STATUS,
        part=part,
        beats=beats,
        w=wording,
        settings=settings,
    )


def beats(found: Stability | None) -> Verdict:
    """Does the attack leave less than random sign? Both metrics of the board fall with damage."""
    return beyond_control(found.difference, falls=True) if found else ""
