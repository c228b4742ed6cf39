"""What a model of the leaderboard is, as far as anyone has written it down."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from robustlab.records import Manifest, TrainingRecord
from robustlab.records.scorecard import ModelCard
from robustlab.reporting.loading import Run

ZOO: Final = "zoo:"
SCHEDULE: Final = ("epochs", "batch_size", "learning_rate", "decay", "seed", "start", "weights")
NAMES: Final = ("name", "label")


def model_card(run: Run, label: str) -> ModelCard:
    """From the record of its training, or from the card that it came with; else its name alone."""
    arch = _arch(run.manifest, label)
    trained = [one for one in run.trainings if one.model == label and not one.against]
    done = [one for one in trained if one.outcome != "crashed"]
    if done:
        return _from_training(run.manifest, arch, done[0])
    if arch.startswith(ZOO):
        shipped = zoo_card(arch.removeprefix(ZOO))
        if shipped is not None:
            return _from_card(label, shipped)
    return ModelCard(label=label, arch=arch)


def zoo_card(name: str) -> Mapping[str, Any] | None:
    """The card of a network that ships; None where there is none that can be read.

    Read as a file: the room that loads such networks needs torch.
    """
    if not name.replace("_", "").replace("-", "").isalnum():  # it becomes part of a path
        return None
    place = files("robustlab") / "models" / "weights" / "zoo" / f"{name}.json"
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _arch(manifest: Manifest, label: str) -> str:
    """The model's name in the lab; its label where the spec does not say."""
    choices = manifest.spec.get("models")
    for choice in choices if isinstance(choices, list | tuple) else ():
        if isinstance(choice, Mapping) and label in (choice.get("label"), choice.get("name")):
            return str(choice.get("name"))
    return label


def _from_training(manifest: Manifest, arch: str, one: TrainingRecord) -> ModelCard:
    objective = _mapping(one.options.get("objective"))
    return ModelCard(
        label=one.model,
        arch=arch,
        objective=str(objective.get("name") or one.attack),
        settings=_settings(objective, one.options),
        trained_on=one.data,
        train_images=one.train_images,
        minutes=one.seconds / 60,
        command=f"robustlab train {manifest.name}",
        sha256=one.sha256,
    )


def _from_card(label: str, card: Mapping[str, Any]) -> ModelCard:
    objective = _mapping(card.get("objective"))
    images, seconds = card.get("train_images"), card.get("seconds")
    return ModelCard(
        label=label,
        arch=str(card.get("model", "")),
        objective=str(objective.get("name", "")),
        settings=_settings(objective, card),
        trained_on=str(card.get("data", "")),
        train_images=images if isinstance(images, int) else None,
        minutes=seconds / 60 if isinstance(seconds, int | float) else None,
        command=str(card.get("command", "")),
        sha256=str(card.get("sha256", "")),
    )


def _settings(objective: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the objective under its own key, for both may have a ``seed``."""
    own = {k: v for k, v in objective.items() if k not in NAMES and v is not None}
    schedule = {k: options[k] for k in SCHEDULE if options.get(k) is not None}
    return {"objective": own, **schedule}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
