"""Makes docs/leaderboard*, and README's table of defences, from the records of an evaluation.

Run it as ``python docs/make_leaderboard.py results/attributional_robustness [more results]``;
without results it makes the table from docs/leaderboard/*.json again.
"""

import re
import sys
from pathlib import Path
from typing import Final

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Estimate
from robustlab.reporting import write_leaderboard
from robustlab.reporting.comparison import lead_of, part
from robustlab.reporting.leaderboard import read_cards

DOCS: Final = Path(__file__).resolve().parent
MARKS: Final = re.compile(r"(<!-- defences[^\n]*\n).*?(<!-- end of defences -->)", re.DOTALL)
DATA: Final = "fashion_3k"
HEAD: Final = (
    "trained by", "accuracy", "under PGD", "published attack", "worst case", "random signs",
)  # fmt: skip


def main() -> None:
    """Write all."""
    for folder in sys.argv[1:]:
        write_leaderboard(folder, DOCS)
    cards = [card for card in read_cards(DOCS) if card.data == DATA]
    readme = DOCS.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(MARKS.sub(lambda m: m[1] + table(cards) + m[2], text), encoding="utf-8")


def table(cards: list[Scorecard]) -> str:
    """What each training costs and what it keeps, the most stable gradient first."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    rows = [(kept(card), card) for card in cards]
    for _, card in sorted(rows, key=lambda row: -row[0]):
        strict = part(lead_of(card, "gradient"), "IN")
        published = part(card.published, "IN")
        if not (card.clean and card.adversarial and strict and published):
            raise SystemExit(f"{card.file_name} was not evaluated by both protocols")
        cells = (card.clean.share, card.adversarial.share, published.ones, strict.ones)
        signs = strict.random_sign.mean
        shown = [*map(interval, cells), "–" if signs is None else f"{signs:.2f}"]
        lines.append(f"| {card.model.label} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def kept(card: Scorecard) -> float:
    """What the worst case leaves of the gradient's top pixels."""
    found = part(lead_of(card, "gradient"), "IN")
    return found.ones.mean or 0.0 if found else 0.0


def interval(estimate: Estimate) -> str:
    """A mean with its 95 % interval."""
    return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


if __name__ == "__main__":
    main()
