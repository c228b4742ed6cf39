"""The leaderboard as a page and as Markdown, from scorecards alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from markupsafe import Markup

from robustlab.records.scorecard import (
    Accuracy,
    Estimate,
    Robustness,
    Scene,
    Scorecard,
    Stability,
    Threat,
)
from robustlab.reporting import published, wording
from robustlab.reporting.figures import NARROW, WIDE
from robustlab.reporting.ordering import (
    Ordering,
    board_lead,
    by_objective,
    lead_of,
    orderings,
    paper_breaks,
)
from robustlab.reporting.pages import render
from robustlab.reporting.published import PaperRow, paper_rows
from robustlab.reporting.scoring import FIXED, leading
from robustlab.reporting.tradeoff_plot import Point, TradeoffPlot
from robustlab.reporting.verdicts import Verdict
from robustlab.reporting.wording import number

TITLE: Final = "Attributional robustness"
TITLES: Final = {"published": "Published protocol", "strict": "Stricter protocol"}


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
class Figure:
    """A trade-off figure in its two drawings."""

    title: str
    caption: str
    drawings: tuple[Markup, ...]


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
    methods: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    notes: tuple[str, ...]


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


def leaderboard_markdown(cards: Sequence[Scorecard]) -> str:
    """The main tables, and the paper's beside them, as Markdown."""
    text = [f"# {TITLE}", "", MARKDOWN]
    for board in boards(cards):
        text += ["", f"## {_cell(board.data)}", "", _cell(" · ".join(board.facts)), ""]
        if board.lead:
            text += [f"Stricter and deletion: {_cell(board.lead)}.", ""]
        text += _table(MAIN, [_main(line) for line in board.lines])
        if board.beside:
            text += ["", f"{published.SOURCE}, {published.STATUS}; other network and length:", ""]
            text += _table(PAPER, [_paper(one.paper) for one in board.beside])
        text += ["", *(f"- {order_text(order)}" for order in board.orders)]
    return "\n".join(text).rstrip() + "\n"


def boards(cards: Sequence[Scorecard]) -> list[Board]:
    """One per label of images, by name; best model first."""
    names = sorted({card.data for card in cards})
    return [_board(i, [c for c in cards if c.data == name]) for i, name in enumerate(names)]


def part(found: Robustness | None, metric: str) -> Stability | None:
    """IN or CO of it."""
    if found is None:
        return None
    return found.intersection if metric == "IN" else found.kendall


def beats(found: Stability | None) -> Verdict:
    """Does the attack leave less than random sign? Both metrics of the board fall with damage."""
    if found is None or found.difference.mean is None:
        return ""
    low, high = found.difference.low, found.difference.high
    if low is None or high is None:
        return "undecided"
    return "yes" if high < 0 else "no" if low >= 0 else "undecided"


def settings(options: Mapping[str, Any]) -> str:
    """``epsilon 0.1, steps 7``; options within options stand flat."""
    said = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            said += [settings(value)] if value else []
        elif value is not None:
            said.append(f"{key} {_shown(value)}")
    return ", ".join(said)


def order_text(order: Ordering) -> str:
    """One sentence on one order."""
    remarks = f" ({'; '.join(order.remarks)})" if order.remarks else ""
    return f"{order.metric}, {order.protocol} protocol: {order.chain}: {order.words}{remarks}."


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
        figures=_figures(f"board-{index}", ranked, lead),
        beside=tuple(Beside(row, models.get(row.objective)) for row in rows),
        orders=tuple(orderings(ranked, lead)) if rows else (),
        breaks=tuple(paper_breaks(rows)),
        scenes=tuple((card, card.scenes) for card in ranked if card.scenes),
        methods=_methods(ranked),
        notes=tuple(f"{c.model.label}: {note}" for c in ranked for note in c.notes),
    )


def _facts(cards: Sequence[Scorecard]) -> tuple[str, ...]:
    images = [card.clean.share.n for card in cards if card.clean]
    attacks = [a for card in cards for a in _threats(card).values()]
    radii = dict.fromkeys(
        f"{wording.norm_name(a.norm)} ε = {wording.radius(a.norm, a.epsilon)}" for a in attacks
    )
    counts = " to ".join(f"{n:,}" for n in sorted({min(images), max(images)})) if images else ""
    seeds = [one.seeds for card in cards for one in card.strict]
    return (
        wording.count(len(cards), "model"),
        *((f"{counts} labelled images",) if counts else ()),
        *radii,
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
    for metric in ("IN", "CO"):
        known = [s.chance for one in rows if (s := part(one, metric)) and s.chance is not None]
        ends = dict.fromkeys((number(min(known)), number(max(known)))) if known else ()
        said += [f"{metric} {' to '.join(ends)}"] if ends else []
    return ", ".join(said)


def _figures(slug: str, cards: Sequence[Scorecard], lead: str) -> tuple[Figure, ...]:
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
    drawings = tuple(
        TradeoffPlot(
            name=f"{name}-{kind}",
            title=f"{title}: natural accuracy against stability",
            metric=f"IN under {shown.attack.name} (higher = more stable)",
            points=points,
            chance=chance,
            still=still,
        ).draw(width, kind)
        for kind, width in (("wide", WIDE), ("narrow", NARROW))
    )
    caption = f"Top pixels of {shown.explainer} that stay under {shown.attack.name}."
    return Figure(title, caption, drawings)


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


def _threats(card: Scorecard) -> dict[str, Threat]:
    """The attacks behind a card, by what they are for."""
    lead = leading(card.strict)
    found: dict[str, Accuracy | Robustness | None] = {
        "Adversarial accuracy": card.adversarial,
        "Published protocol": card.published,
        "Stricter protocol": lead,
    }
    return {k: v.attack for k, v in found.items() if v is not None and v.attack is not None}


def _methods(cards: Sequence[Scorecard]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Each way of measuring in words, and who was measured so: one entry where all agree."""
    found: dict[str, dict[str, list[str]]] = {}
    for card in cards:
        for what, threat in _threats(card).items():
            text = _method(threat)
            found.setdefault(what, {}).setdefault(text, []).append(card.model.label)
        for one in [card.published, *card.strict]:
            for metric in ("IN", "CO"):
                stability = part(one, metric)
                if stability:
                    text = _named(stability.label, stability.options)
                    who = found.setdefault(metric, {}).setdefault(text, [])
                    who += [card.model.label] if card.model.label not in who else []
            if one and one.deletion:
                text = _named(one.deletion.label, one.deletion.options)
                who = found.setdefault("Deletion", {}).setdefault(text, [])
                who += [card.model.label] if card.model.label not in who else []
    return tuple(
        (
            what,
            tuple((text, "" if len(ways) == 1 else ", ".join(who)) for text, who in ways.items()),
        )
        for what, ways in found.items()
    )


def _method(threat: Threat) -> str:
    ball = f"{wording.norm_name(threat.norm)} ε = {wording.radius(threat.norm, threat.epsilon)}"
    return f"{_named(threat.name, threat.options)}; {ball}"


def _named(name: str, options: Mapping[str, Any]) -> str:
    told = settings(options)
    return f"{name} ({told})" if told else name


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(_shown(item) for item in value)
    return str(value)


MARKDOWN: Final = (
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


def _main(line: Line) -> list[str]:
    card, lead = line.card, line.lead
    drifts = [part(one, metric) for one in (card.published, lead) for metric in ("IN", "CO")]
    signs = [part(lead, metric) for metric in ("IN", "CO")]
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
