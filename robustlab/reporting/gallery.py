"""The gallery: what every attack did to every picture and to every explanation of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robustlab.records import ImageRow, Problem, RunRecord, Store, atomic_write
from robustlab.reporting import pictures, wording
from robustlab.reporting.artefacts import Artefact, read_artefact
from robustlab.reporting.loading import Run, load
from robustlab.reporting.pages import render
from robustlab.reporting.wording import attack_name, budget, number, percent

LIMIT: Final = 13_000_000  # characters of pictures on one page
ROLES: Final = ("attack", "none", "control")  # who comes first when there is not room for all


@dataclass(frozen=True)
class Figure:
    """One value of a card, beside what noise and chance would give."""

    metric: str
    value: str
    control: str
    chance: str


@dataclass(frozen=True)
class View:
    """One picture of a card: keys into the page's pictures, from the bottom layer up."""

    caption: str
    alt: str
    layers: tuple[str, ...]
    kind: str = "photo"


@dataclass(frozen=True)
class Card:
    """One image under one attack, as one explainer sees it."""

    image_id: str
    explainer: str
    attack: str
    epsilon: str
    model: str
    title: str
    prediction: str
    prediction_after: str
    kept: bool | None
    outcome: str
    views: tuple[View, ...]
    figures: tuple[Figure, ...]
    crisp: bool


class Album:
    """Each distinct picture once, under the hash of what it shows; drawn once, too."""

    def __init__(self) -> None:
        self.uris: dict[str, str] = {}
        self.size = 0
        self._drawn: dict[str, str] = {}

    def add(self, draw: Callable[..., str], array: NDArray[Any], **options: Any) -> str:
        """The key of ``draw(array, **options)``."""
        source = f"{draw.__name__} {options} {array.shape} {array.dtype}".encode()
        content = sha256(source + np.ascontiguousarray(array).tobytes()).hexdigest()
        if content not in self._drawn:
            self._drawn[content] = self._keep(draw(array, **options))
        return self._drawn[content]

    def _keep(self, uri: str) -> str:
        key = sha256(uri.encode()).hexdigest()[:12]
        if key not in self.uris:
            self.uris[key] = uri
            self.size += len(uri)
        return key


@dataclass(frozen=True)
class Contents:
    """What made it onto the page, and what did not."""

    cards: tuple[Card, ...]
    album: Album
    left_out: int
    problems: tuple[Problem, ...]


def write_gallery(folder: Path | str, *, limit: int = LIMIT) -> Path:
    """Write ``gallery.html``, a self-contained page, and return its path.

    Args:
        folder: what a run left.
        limit: characters of pictures after which further images are left out; the page
            says how many.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(folder)
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
    controls = _control_values(run)
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
            cards += [(place, card) for card in _cards(record, artefact, i, album, controls)]
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
    return cell.model, cell.data, cell.ids, cell.attack, cell.against, cell.budget


def _cards(
    record: RunRecord,
    artefact: Artefact,
    index: int,
    album: Album,
    controls: Mapping[tuple[Any, ...], float],
) -> Iterator[Card]:
    cell, image = record.cell, record.images[index]
    factor = pictures.amplification(artefact.difference)
    clean = album.add(pictures.photograph, artefact.clean[index])
    moved = album.add(pictures.photograph, artefact.attacked[index])
    epsilon = budget(cell.budget.norm, cell.budget.epsilon)
    picture = View("picture", f"{image.id}, the picture", (clean,))
    changed: tuple[View, ...] = ()
    if artefact.difference[index].any():  # an attack on the model leaves the picture alone
        change = album.add(pictures.amplified, artefact.difference[index], factor=factor)
        words = (
            f"what {cell.attack} changed in {image.id}, amplified {factor:.0f} times, "
            "mid-grey is no change"
        )
        changed = (
            View("attacked", f"{image.id} after {cell.attack}, ε = {epsilon}", (moved,)),
            View(f"difference ×{factor:.0f}", words, (change,)),
        )
    crisp = max(artefact.clean.shape[1:3]) <= pictures.SMALL
    for e, explainer in enumerate(cell.explainers):
        before, after = artefact.maps_before[index, e], artefact.maps_after[index, e]
        signed = bool(min(before.min(), after.min()) < 0)
        maps = [album.add(pictures.heat, values, signed=signed) for values in (before, after)]
        kind = "signed" if signed else "positive"
        aimed = _Aimed(cell.attack, cell.against or "", explainer)
        name = image.id
        yield Card(
            image_id=name,
            explainer=explainer,
            attack=cell.attack,
            epsilon=epsilon,
            model=cell.model,
            title=f"{explainer}, {attack_name(aimed)}, ε = {epsilon}",
            prediction=_prediction(image.prediction_name, image.prediction, image.confidence),
            prediction_after=_prediction(
                image.prediction_after_name, image.prediction_after, image.confidence_after
            ),
            kept=image.kept,
            outcome=image.outcome.replace("_", " "),
            views=(
                picture,
                *changed,
                View("map before", f"{explainer} of {name} before", (clean, maps[0]), kind),
                View(
                    "map after",
                    f"{explainer} of {name} after {cell.attack}",
                    (moved, maps[1]),
                    kind,
                ),
            ),
            figures=tuple(_figures(record, image, explainer, controls)),
            crisp=crisp,
        )


@dataclass(frozen=True)
class _Aimed:
    attack: str
    against: str
    explainer: str


def _prediction(name: str, index: int | None, confidence: float | None) -> str:
    label = name or ("unknown" if index is None else f"class {index}")
    return label if confidence is None else f"{label}, {percent(confidence)}"


def _figures(
    record: RunRecord,
    image: ImageRow,
    explainer: str,
    controls: Mapping[tuple[Any, ...], float],
) -> Iterator[Figure]:
    cell = record.cell
    for metric in cell.metrics:
        place = _place(record, image, explainer, metric)
        servants = ((cell.attack, cell.against), (cell.attack, None), (None, None))
        known = [controls[(*place, *who)] for who in servants if (*place, *who) in controls]
        control = known[0] if known and cell.role == "attack" else None
        yield Figure(
            metric=metric,
            value=number(image.values.get(explainer, {}).get(metric)),
            control=number(control),
            chance=number(image.chance.get(explainer, {}).get(metric)),
        )


def _control_values(run: Run) -> dict[tuple[Any, ...], float]:
    """What random sign did to the same image, explainer and metric, by the attack it serves."""
    found: dict[tuple[Any, ...], float] = {}
    for record in run.records:
        cell = record.cell
        if cell.role != "control":
            continue
        for image in record.images:
            for explainer, values in image.values.items():
                for metric, value in values.items():
                    if value is not None:
                        place = _place(record, image, explainer, metric)
                        found.setdefault((*place, cell.control_of, cell.against), value)
    return found


def _place(record: RunRecord, image: ImageRow, explainer: str, metric: str) -> tuple[Any, ...]:
    cell = record.cell
    return cell.model, cell.data, image.id, cell.budget, cell.seed, explainer, metric


def _by_image(cards: Sequence[Card]) -> list[tuple[str, list[Card]]]:
    groups: dict[str, list[Card]] = {}
    for card in cards:
        groups.setdefault(card.image_id, []).append(card)
    return list(groups.items())
