"""The cards of the gallery: one image under one attack, as one explainer sees it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustlab.records import ImageRow, RunRecord
from robustlab.reporting import pictures
from robustlab.reporting.artefacts import Artefact
from robustlab.reporting.loading import Run
from robustlab.reporting.wording import attack_name, budget, number, percent


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
    cautions: tuple[str, ...]
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


def cards_of(
    record: RunRecord,
    artefact: Artefact,
    index: int,
    album: Album,
    controls: Mapping[tuple[Any, ...], float],
) -> Iterator[Card]:
    """One card per explainer for the image at ``index`` of an artefact."""
    cell, image = record.cell, record.images[index]
    factor = pictures.amplification(artefact.difference)
    clean = album.add(pictures.photograph, artefact.clean[index])
    moved = album.add(pictures.photograph, artefact.attacked[index])
    epsilon = budget(cell.budget.ball, cell.budget.epsilon)
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
        wanted = None if artefact.maps_target is None else artefact.maps_target[index, e]
        signed = bool(min(m.min() for m in (before, after, wanted) if m is not None) < 0)
        maps = [album.add(pictures.heat, values, signed=signed) for values in (before, after)]
        kind = "signed" if signed else "positive"
        aimed = _Aimed(cell.attack, cell.against or "", explainer, cell.made_on or "")
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
            cautions=image.cautions,
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
                *_target(album, artefact, wanted, signed, f"the map wanted of {name}"),
            ),
            figures=tuple(_figures(record, image, explainer, controls)),
            crisp=crisp,
        )


def _target(
    album: Album, artefact: Artefact, wanted: NDArray[Any] | None, signed: bool, words: str
) -> tuple[View, ...]:
    """The map that an imitation was after; on no picture, since it belongs to another one."""
    if wanted is None:
        return ()
    key = album.add(pictures.heat, wanted, signed=signed)
    ground = np.full_like(artefact.clean[0], 255 if signed else 0)
    blank = album.add(pictures.photograph, ground)
    return (View("target map", words, (blank, key), "signed" if signed else "positive"),)


@dataclass(frozen=True)
class _Aimed:
    attack: str
    against: str
    explainer: str
    made_on: str


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
        own = ((cell.attack, cell.against, cell.made_on), (cell.attack, None, cell.made_on))
        servants = (*own, (None, None, cell.made_on), (None, None, None))
        known = [controls[(*place, *who)] for who in servants if (*place, *who) in controls]
        control = known[0] if known and cell.role == "attack" else None
        yield Figure(
            metric=metric,
            value=number(image.values.get(explainer, {}).get(metric)),
            control=number(control),
            chance=number(image.chance.get(explainer, {}).get(metric)),
        )


def control_values(run: Run) -> dict[tuple[Any, ...], float]:
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
                        who = cell.control_of, cell.against, cell.made_on
                        found.setdefault((*place, *who), value)
    return found


def _place(record: RunRecord, image: ImageRow, explainer: str, metric: str) -> tuple[Any, ...]:
    cell = record.cell
    return cell.model, cell.data, image.id, cell.budget, cell.seed, explainer, metric
