"""The gallery: what every attack did to every picture and to every explanation of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from robustlab.records import Problem, RunRecord, Store, atomic_write
from robustlab.reporting import wording
from robustlab.reporting.artefacts import read_artefact
from robustlab.reporting.cards import Album, Card, cards_of, control_values
from robustlab.reporting.loading import Run, Source, load
from robustlab.reporting.pages import render

LIMIT: Final = 13_000_000  # characters of pictures on one page
ROLES: Final = ("attack", "none", "control")  # who comes first when there is not room for all


@dataclass(frozen=True)
class Contents:
    """What made it onto the page, and what did not."""

    cards: tuple[Card, ...]
    album: Album
    left_out: int
    problems: tuple[Problem, ...]


def write_gallery(source: Source, *, limit: int = LIMIT) -> Path:
    """Write ``gallery.html``, a self-contained page, and return its path.

    Args:
        source: a run, or the folder that it left.
        limit: characters of pictures after which further images are left out; the page
            says how many.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
    path = run.folder / "gallery.html"
    atomic_write(path, gallery_html(run, limit=limit))
    return path


def gallery_html(run: Run, *, limit: int = LIMIT) -> str:
    """The page as text; equal records and artefacts give equal bytes."""
    contents = collect(run, limit)
    cards = contents.cards
    return render(
        "gallery",
        manifest=run.manifest,
        groups=_by_image(cards),
        album=contents.album.uris,
        filters=[
            (name, known)
            for name in ("explainer", "attack", "epsilon", "model", "image_id")
            if len(known := list(dict.fromkeys(getattr(card, name) for card in cards))) > 1
        ],
        titles={"image_id": "Image", "epsilon": "ε"},
        left_out=contents.left_out,
        problems=contents.problems,
        w=wording,
    )


def collect(run: Run, limit: int) -> Contents:
    """Cards in plan order; where room is short, a few images of every cell.

    Images are taken in rounds, the first of every cell, then the second, so that a full
    page shows every attack on some pictures rather than some attacks on every picture.
    """
    store, album = Store(run.folder), Album()
    controls = control_values(run)
    waiting = [record for record in _shown(run) if store.artefact_path(record.key).is_file()]
    cards: list[tuple[int, Card]] = []
    problems: list[Problem] = []
    left_out = 0
    for i in range(max((len(record.images) for record in waiting), default=0)):
        for record in [record for record in waiting if i < len(record.images)]:
            if album.size >= limit:
                left_out += len(record.cell.explainers)
                continue
            artefact = read_artefact(store, record)  # again in every round: all would not fit
            if isinstance(artefact, Problem):
                problems.append(artefact)
                waiting.remove(record)
                continue
            if i >= len(artefact.clean):
                continue
            place = waiting.index(record)
            cards += [(place, card) for card in cards_of(record, artefact, i, album, controls)]
    order = {name: i for i, name in enumerate(dict.fromkeys(card.image_id for _, card in cards))}
    cards.sort(key=lambda item: (order[item[1].image_id], item[0]))
    return Contents(tuple(card for _, card in cards), album, left_out, tuple(problems))


def _shown(run: Run) -> list[RunRecord]:
    """Cells that worked, of the first seed of each, attacks first."""
    seeds: dict[tuple[Any, ...], int] = {}
    for record in run.records:
        seeds.setdefault(_without_seed(record), record.cell.seed)
    shown = [
        record
        for record in run.records
        if record.outcome == "ok" and record.cell.seed == seeds[_without_seed(record)]
    ]
    return sorted(shown, key=lambda record: ROLES.index(record.cell.role))


def _without_seed(record: RunRecord) -> tuple[Any, ...]:
    cell = record.cell
    return cell.model, cell.data, cell.ids, cell.attack, cell.against, cell.budget, cell.made_on


def _by_image(cards: Sequence[Card]) -> list[tuple[str, list[Card]]]:
    groups: dict[str, list[Card]] = {}
    for card in cards:
        groups.setdefault(card.image_id, []).append(card)
    return list(groups.items())
