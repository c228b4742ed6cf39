"""What may not be overlooked: flags, failures, and pictures that gave no number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from robustlab.records import CellSpec
from robustlab.records.record import IMAGE_OUTCOMES
from robustlab.reporting.loading import Run
from robustlab.reporting.results import Measurement, measurements
from robustlab.reporting.saved import is_below_level
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import attack_name, budget, count

MOST: Final = 12
ODD: Final = frozenset(IMAGE_OUTCOMES) - {"ok", "crashed"}

EXPLAINED: Final = {
    "does not beat random sign": "The interval of the paired difference lies on the wrong side "
    "of zero or ends there: the attack found nothing that noise does not find.",
    "not clearly beyond random sign": "The interval of the paired difference contains zero.",
    "no random-sign control": "There is nothing to tell the attack from noise.",
    "near chance floor": "The maps have nearly nothing in common any more, so differences "
    "between rows down here mean little.",
    "past the chance floor": "Lower than two unrelated maps would score: the attack moved "
    "importance away on purpose.",
    "no more faithful than random": "The same pixels in random order score as well: the "
    "model does not rely on what the map points at.",
    "moves without an attack": "The explainer does not repeat itself; its own noise is part "
    "of every drift.",
    "not clearly beyond its own draws": "Other random numbers move the clean map as far: the "
    "drift may be the explainer’s own noise.",
    "few images": "Percentile intervals from so few images are too narrow.",
    "prediction changed": "A map should change when the prediction does; the table tells "
    "the two apart.",
    "infeasible, counted as unmoved": "No iterate kept the prediction, so the image was left "
    "alone; summary.csv has the mean without such images too.",
    "diverged, left out": "The map was not a number.",
    "over budget, left out": "The attack left its budget; nothing it did counts.",
    "crashed, left out": "The cell failed; see below.",
    "without a value": "The metric is not defined on these maps.",
}


@dataclass(frozen=True)
class Caution:
    """One kind of flag and where it was raised."""

    text: str
    meaning: str
    places: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class Skipped:
    """A picture that gave no ordinary number under one attack."""

    image_id: str
    attack: str
    epsilon: str
    outcome: str


@dataclass(frozen=True)
class Doubt:
    """What attacks said of their own results, and in how many images of which attack."""

    text: str
    places: tuple[str, ...]
    more: int


def shared_flags(table: Sequence[SummaryRow]) -> tuple[str, ...]:
    """Kinds of flags that every attack row has: worth one sentence, not one word per row."""
    rows = [row for row in table if row.role == "attack" and row.n]
    if len(rows) < 2:
        return ()
    first, *others = [[kind(flag) for flag in row.flags] for row in rows]
    return tuple(name for name in first if all(name in other for other in others))


def cautions(table: Sequence[SummaryRow]) -> list[Caution]:
    """Every kind of flag with the rows that carry it, controls left aside."""
    shared = shared_flags(table)
    places: dict[str, dict[str, None]] = {}
    for row in table:
        for flag in row.flags:
            if row.role == "attack" or kind(flag) == "moves without an attack":
                places.setdefault(kind(flag), {})[_place(row)] = None
    return [
        _caution(name, ["every attack"] if name in shared else list(places[name]))
        for name in sorted(places, key=_rank)
    ]


def below_a_level(table: Sequence[SummaryRow]) -> list[Caution]:
    """Budgets that no 8-bit file can hold, as one caution; empty without such budgets."""
    small = [r for r in table if r.role == "attack" and is_below_level(r.norm, r.epsilon)]
    budgets = dict.fromkeys(f"ε = {budget(row.norm, row.epsilon)}" for row in small)
    meaning = (
        "Nobody can send such an image in an 8-bit file: what an attack finds there is a fact "
        "about the explainer, not an image that anyone can send."
    )
    if not budgets:
        return []
    return [Caution("less than one level of an 8-bit file", meaning, tuple(budgets), 0)]


def doubts(run: Run) -> list[Doubt]:
    """Every caution of an image with the attacks that raised it, in plan order."""
    several = len({record.cell.model for record in run.records}) > 1
    seen: dict[str, set[str]] = {}
    said: dict[str, dict[str, set[str]]] = {}
    for record in run.records:
        place = _made(record.cell, several)
        seen.setdefault(place, set()).update(record.cell.ids)
        for image in record.images:
            for text in image.cautions:
                said.setdefault(text, {}).setdefault(place, set()).add(image.id)
    return [
        _doubt(
            text,
            [f"{p}: {len(ids)} of {count(len(seen[p]), 'image')}" for p, ids in found.items()],
        )
        for text, found in said.items()
    ]


def skipped(run: Run) -> list[Skipped]:
    """Pictures that an attack could not move, or that moved out of what can be measured."""
    return list(dict.fromkeys(_skipped(item) for item in measurements(run.records, ODD)))


def notes(run: Run) -> list[tuple[str, int]]:
    """Cautions that the cells themselves recorded, with how many cells said so."""
    said: dict[str, int] = {}
    for record in run.records:
        for text in dict.fromkeys(record.cautions):
            said[text] = said.get(text, 0) + 1
    return list(said.items())


def kind(flag: str) -> str:
    """A flag without its numbers: ``prediction changed on 3 of 8`` → ``prediction changed``."""
    return re.sub(r"^\d+ | \(n=\d+\)$| on \d+ of \d+$", "", flag)


def _caution(name: str, places: Sequence[str]) -> Caution:
    shown, more = tuple(places[:MOST]), max(0, len(places) - MOST)
    return Caution(name, EXPLAINED.get(name, ""), shown, more)


def _doubt(text: str, places: Sequence[str]) -> Doubt:
    return Doubt(text, tuple(places[:MOST]), max(0, len(places) - MOST))


def _made(cell: CellSpec, several_models: bool) -> str:
    """``top_k on gradient, 2/255``: an attack by what it was made against."""
    attack = f"{cell.attack} made on {cell.made_on}" if cell.made_on else cell.attack
    aim = f" on {cell.against}" if cell.against else ""
    model = f", {cell.model}" if several_models else ""
    return f"{attack}{aim}{model}, {budget(cell.budget.ball, cell.budget.epsilon)}"


def _rank(name: str) -> int:
    return list(EXPLAINED).index(name) if name in EXPLAINED else len(EXPLAINED)


def _place(row: SummaryRow) -> str:
    return f"{row.explainer}, {attack_name(row)}, {budget(row.norm, row.epsilon)}"


def _skipped(item: Measurement) -> Skipped:
    words = item.outcome.replace("_", " ")
    return Skipped(item.image_id, attack_name(item), budget(item.norm, item.epsilon), words)
