"""The leaderboard before it is a page: models by rank, explainers, the paper, facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from robustlab.records.scorecard import Scene, Scorecard
from robustlab.records.scores import Robustness
from robustlab.reporting import wording
from robustlab.reporting.board_figures import Figure, board_figures
from robustlab.reporting.board_methods import Methods, ball, methods, threats
from robustlab.reporting.comparison import FIXED, METRICS, board_lead, lead_of, part
from robustlab.reporting.ordering import Ordering, by_objective, orderings, paper_breaks
from robustlab.reporting.published import PaperRow, paper_rows
from robustlab.reporting.wording import number

TITLE: Final = "Attributional robustness"


@dataclass(frozen=True)
class Line:
    """One model of the main table."""

    card: Scorecard
    lead: Robustness | None

    @property
    def rank(self) -> tuple[float, ...]:
        """By the stricter IN, then the published one, then accuracy under attack."""
        parts = (part(self.lead, "IN"), part(self.card.published, "IN"))
        shares = [one.ones.mean if one else None for one in parts]
        shares.append(self.card.adversarial.share.mean if self.card.adversarial else None)
        return tuple(-1.0 if share is None else share for share in shares)


@dataclass(frozen=True)
class Group:
    """One explainer under the stricter protocol, on every model where it was measured."""

    explainer: str
    name: str
    chance: str
    rows: tuple[tuple[Scorecard, Robustness], ...]

    @property
    def transferred(self) -> str:
        """The explainers that the attack was made against, where it is not this one."""
        aims = dict.fromkeys(one.attack.against for _, one in self.rows)
        return ", ".join(aim for aim in aims if aim != self.explainer)

    @property
    def fixed(self) -> bool:
        """Is it the picture that never moves?"""
        return self.name == FIXED


@dataclass(frozen=True)
class Beside:
    """A line of the paper with the model from here that had the same training."""

    paper: PaperRow
    card: Scorecard | None


@dataclass(frozen=True)
class Board:
    """Everything about one set of images: numbers on different images are never mixed."""

    data: str
    dataset: str
    slug: str
    facts: tuple[str, ...]
    chance: str
    lead: str
    lines: tuple[Line, ...]
    groups: tuple[Group, ...]
    figures: tuple[Figure, ...]
    beside: tuple[Beside, ...]
    orders: tuple[Ordering, ...]
    breaks: tuple[str, ...]
    scenes: tuple[tuple[Scorecard, tuple[Scene, ...]], ...]
    methods: Methods
    notes: tuple[str, ...]


def boards(cards: Sequence[Scorecard]) -> list[Board]:
    """One per label of images, by name; best model first."""
    names = sorted({card.data for card in cards})
    return [_board(i, [c for c in cards if c.data == name]) for i, name in enumerate(names)]


def _board(index: int, cards: Sequence[Scorecard]) -> Board:
    lead = board_lead(cards)
    lines = [Line(card, lead_of(card, lead)) for card in cards]
    lines.sort(key=lambda line: line.card.model.label)
    lines.sort(key=lambda line: line.rank, reverse=True)
    ranked = [line.card for line in lines]
    first = ranked[0]
    rows = paper_rows(first.dataset)
    models = by_objective(ranked)
    return Board(
        data=first.data,
        dataset=first.dataset,
        slug=f"board-{index}",
        facts=_facts(ranked),
        chance=_chances([one for card in ranked for one in _shown_first(card, lead)]),
        lead=lead,
        lines=tuple(lines),
        groups=_groups(ranked),
        figures=board_figures(f"board-{index}", ranked, lead),
        beside=tuple(Beside(row, models.get(row.objective)) for row in rows),
        orders=tuple(orderings(ranked, lead)) if rows else (),
        breaks=tuple(paper_breaks(rows)),
        scenes=tuple((card, card.scenes) for card in ranked if card.scenes),
        methods=methods(ranked),
        notes=tuple(f"{c.model.label}: {note}" for c in ranked for note in c.notes),
    )


def _facts(cards: Sequence[Scorecard]) -> tuple[str, ...]:
    images = [card.clean.share.n for card in cards if card.clean]
    attacks = [attack for card in cards for attack in threats(card).values()]
    counts = " to ".join(f"{n:,}" for n in sorted({min(images), max(images)})) if images else ""
    seeds = [one.seeds for card in cards for one in card.strict]
    return (
        wording.count(len(cards), "model"),
        *((f"{counts} labelled images",) if counts else ()),
        *dict.fromkeys(map(ball, attacks)),
        *((f"{wording.count(max(seeds), 'seed')} of the stricter attack",) if seeds else ()),
    )


def _shown_first(card: Scorecard, lead: str) -> list[Robustness]:
    """What the main table has of it."""
    return [one for one in (card.published, lead_of(card, lead)) if one is not None]


def _groups(cards: Sequence[Scorecard]) -> tuple[Group, ...]:
    """Explainers in the order in which cards name them; the picture that never moves last."""
    found: dict[str, list[tuple[Scorecard, Robustness]]] = {}
    for card in cards:
        for one in card.strict:
            found.setdefault(one.explainer, []).append((card, one))
    made = [
        Group(label, rows[0][1].name, _chances([one for _, one in rows]), tuple(rows))
        for label, rows in found.items()
    ]
    return tuple(sorted(made, key=lambda group: group.fixed))


def _chances(rows: Sequence[Robustness]) -> str:
    """``IN 0.128, CO 0.000``: what unrelated maps score."""
    said = []
    for metric in METRICS:
        known = [s.chance for one in rows if (s := part(one, metric)) and s.chance is not None]
        ends = dict.fromkeys((number(min(known)), number(max(known)))) if known else ()
        said += [f"{metric} {' to '.join(ends)}"] if ends else []
    return ", ".join(said)
