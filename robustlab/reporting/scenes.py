"""One image before and after an attack, with its maps, for every model of the leaderboard."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robustlab.records import ImageRow, Problem, RunRecord, Store
from robustlab.records.scorecard import Scene
from robustlab.records.scores import Robustness
from robustlab.reporting import pictures
from robustlab.reporting.artefacts import Artefact, read_artefact
from robustlab.reporting.estimates import right
from robustlab.reporting.scoring import Scoring
from robustlab.reporting.wording import percent

SIDE: Final = 112  # pixels; larger pictures are thinned, a card is to stay small


@dataclass(frozen=True)
class Shot:
    """An image of a cell that left pictures."""

    record: RunRecord
    artefact: Artefact
    index: int

    @property
    def image(self) -> ImageRow:
        return self.record.images[self.index]


Shots = Mapping[str, Shot]
"""By image id, in the order of the plan."""


def shots(scoring: Scoring, measured: Robustness) -> Shots:
    """Every image of this attack, explainer and budget of which there are pictures."""
    store, threat = Store(scoring.run.folder), measured.attack
    found: dict[str, Shot] = {}
    for record in scoring.records:
        cell = record.cell
        here = (cell.attack, cell.against or "", cell.budget.ball, cell.budget.epsilon)
        fits = here == (threat.label, threat.against, threat.norm, threat.epsilon)
        if fits and measured.explainer in cell.explainers:
            for image_id, shot in _shots_of(store, record):
                found.setdefault(image_id, shot)
    return found


def shared(several: Sequence[Shots]) -> str | None:
    """The first image that all have, if possible one that all predict right."""
    if not several:
        return None
    common = [name for name in several[0] if all(name in other for other in several)]
    best = [name for name in common if all(right(other[name].image) for other in several)]
    return (*best, *common, None)[0]


def scene(protocol: str, measured: Robustness, shot: Shot) -> Scene:
    """The pictures and what is to be said beside them."""
    image, artefact, i = shot.image, shot.artefact, shot.index
    e = shot.record.cell.explainers.index(measured.explainer)
    values = image.values.get(measured.explainer, {})
    before, after = artefact.maps_before[i, e], artefact.maps_after[i, e]
    signed = bool(min(before.min(), after.min()) < 0)
    clean, attacked = (_thin(picture[i]) for picture in (artefact.clean, artefact.attacked))
    return Scene(
        protocol=protocol,
        image_id=image.id,
        label_name=image.label_name,
        explainer=measured.explainer,
        attack=measured.attack.label,
        outcome=image.outcome,
        before=_said(image.prediction_name, image.confidence),
        after=_said(image.prediction_after_name, image.confidence_after),
        intersection=values.get(measured.intersection.label) if measured.intersection else None,
        kendall=values.get(measured.kendall.label) if measured.kendall else None,
        signed=signed,
        size=max(clean.shape[:2]),
        clean=pictures.photograph(clean),
        map_before=pictures.heat(_thin(before), signed=signed),
        attacked=pictures.photograph(attacked),
        map_after=pictures.heat(_thin(after), signed=signed),
    )


def _shots_of(store: Store, record: RunRecord) -> Iterator[tuple[str, Shot]]:
    if not store.artefact_path(record.key).is_file():
        return
    artefact = read_artefact(store, record)
    if isinstance(artefact, Problem):  # the gallery tells of it
        return
    for i in range(len(artefact.clean)):
        yield record.cell.ids[i], Shot(record, artefact, i)


def _thin(array: NDArray[Any]) -> NDArray[Any]:
    """Every so-manieth pixel, so that no side is longer than ``SIDE``."""
    step = max(1, -(-max(array.shape[:2]) // SIDE))
    return np.ascontiguousarray(array[::step, ::step])


def _said(name: str, confidence: float | None) -> str:
    return name if confidence is None else f"{name}, {percent(confidence)}"
