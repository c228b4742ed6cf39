"""The leaderboard as Markdown: the main tables, and the paper's beside them."""

from collections.abc import Sequence
from typing import Final

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Estimate
from robustlab.reporting import published, wording
from robustlab.reporting.board import TITLE, Line, boards
from robustlab.reporting.comparison import METRICS, part
from robustlab.reporting.ordering import Ordering
from robustlab.reporting.published import PaperRow
from robustlab.reporting.wording import number

INTRODUCTION: Final = (
    "Shares with 95 % intervals over images. Clean: predicted right. PGD: right before and after. "
    "IN: share of the top pixels that stay; CO: Kendall's rank correlation. Published: the attack "
    "of Chen et al. 2019 on integrated gradients; stricter: worst case of many attacks. An image "
    "where no attack keeps the prediction counts as unmoved."
)
MAIN: Final = (
    "Model",
    "Training",
    "Clean",
    "PGD",
    "Published IN",
    "Published CO",
    "Stricter IN",
    "Stricter CO",
    "Random sign IN",
    "Random sign CO",
    "Deletion",
    "Deletion, random order",
)
PAPER: Final = ("Paper", "Training", "Clean", "PGD", "Published IN", "Published CO")


def leaderboard_markdown(cards: Sequence[Scorecard]) -> str:
    """The main tables, and the paper's beside them, as Markdown."""
    text = [f"# {TITLE}", "", INTRODUCTION]
    for board in boards(cards):
        text += ["", f"## {_cell(board.data)}", "", _cell(" · ".join(board.facts)), ""]
        if board.lead:
            text += [f"Stricter and deletion: {_cell(board.lead)}.", ""]
        text += _table(MAIN, [_main(line) for line in board.lines])
        if board.beside:
            text += ["", f"{published.SOURCE}, {published.STATUS}; other network and length:", ""]
            text += _table(PAPER, [_paper(one.paper) for one in board.beside])
        text += ["", *(f"- {_order(order)}" for order in board.orders)]
    return "\n".join(text).rstrip() + "\n"


def _main(line: Line) -> list[str]:
    card, lead = line.card, line.lead
    drifts = [part(one, metric) for one in (card.published, lead) for metric in METRICS]
    signs = [part(lead, metric) for metric in METRICS]
    faithful = lead.deletion if lead else None
    return [
        card.model.label,
        card.model.objective or wording.MISSING,
        *(_interval(one.share if one else None) for one in (card.clean, card.adversarial)),
        *(_interval(one.ones if one else None) for one in drifts),
        *(number(one.random_sign.mean if one else None) for one in signs),
        _interval(faithful.clean if faithful else None),
        number(faithful.clean_random.mean if faithful else None),
    ]


def _paper(row: PaperRow) -> list[str]:
    values = (row.natural, row.adversarial, row.intersection, row.kendall)
    return [row.name, row.objective, *(f"{value:.4f}" for value in values)]


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return wording.MISSING
    return wording.with_interval(estimate.mean, estimate.low, estimate.high)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    sides = [":--", ":--", *["--:"] * (len(head) - 2)]
    return [f"| {' | '.join(map(_cell, row))} |" for row in (head, sides, *rows)]


def _cell(text: str) -> str:
    """Harmless in a table: a bar would end the cell, a bracket open a tag."""
    for sign, instead in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(sign, instead)
    return text


def _order(order: Ordering) -> str:
    """One sentence on one order."""
    remarks = f" ({'; '.join(order.remarks)})" if order.remarks else ""
    return f"{order.metric}, {order.protocol} protocol: {order.chain}: {order.words}{remarks}."
