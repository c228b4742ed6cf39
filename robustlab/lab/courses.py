"""Which networks an experiment trains: its own models, and those that attacks fine-tune."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from robustlab import explainers, training
from robustlab.core.errors import InvalidInput
from robustlab.core.types import Training
from robustlab.data.parts import revision_of
from robustlab.lab.keys import key_and_place, weights_in
from robustlab.lab.spec import Course, ExperimentSpec, ModelChoice, Roar
from robustlab.lab.units import FineTuned, ModelSource, Trained
from robustlab.lab.waging import Measured, Waged, located
from robustlab.models.weight_files import weights_revision
from robustlab.training.objective import Shaping, TrainingObjective

SHIPPED = 4000  # images of a data set that is not read before it is needed, for the progress bar


def trained_models(spec: ExperimentSpec, device: str) -> tuple[Trained, ...]:
    """The trainings of the experiment's own models, in the order of the spec.

    Raises:
        InvalidInput: an unknown or ill-configured objective, or data that cannot be opened.
    """
    found: dict[str, Trained] = {}
    for i, choice in enumerate(spec.models):
        if choice.train is not None:
            found[choice.shown] = _trained(f"models.{i}", choice, choice.train, found, device)
    return (*found.values(), *(_retrained(spec.roar, device) if spec.roar else ()))


def _retrained(roar: Roar, device: str) -> list[Trained]:
    """The trainings that nothing but their accuracy is asked of."""
    for i, order in enumerate(roar.explainers):
        located(f"roar.explainers.{i}", lambda o=order: explainers.build(o.name, **o.options))
    return [
        replace(_trained("roar.network", one, one.train, {}, device), for_itself=True)
        for one in roar.models()
        if one.train is not None
    ]


def _trained(
    named: str, choice: ModelChoice, course: Course, before: Mapping[str, Trained], device: str
) -> Trained:
    where = f"{named}.train"
    if choice.name.startswith("zoo:"):
        remedy = "name its architecture, with its file as weights"
        raise InvalidInput(where, f"{choice.name} is trained already", remedy)
    chosen = course.objective
    objective = located(f"{where}.objective", lambda: training.build(chosen.name, **chosen.options))
    data = course.data
    pictures = located(f"{where}.data", lambda: revision_of(data.name, data.options))
    model = ModelSource(choice.shown, choice.name, options_for(choice, objective))
    start = before[course.start] if course.start else None
    numbers = {
        "model": [model.name, model.options],
        "course": course.model_dump(mode="json", exclude=_new(course)),
        "start": start and start.place,
        "device": device.split(":")[0],
    }
    contents = {
        "weights": weights_revision(model.options.get("weights")),
        "data": pictures,
        "start": start.key if start and start.key != start.place else "",
        "explained": weights_revision(
            course.remove.model.options.get("weights") if course.remove else None
        ),
    }
    key, place = key_and_place(numbers, contents)
    passes = (course.images or SHIPPED) * course.epochs * objective.cost().gradient
    return Trained(
        key=key,
        place=place,
        model=model,
        course=course,
        objective=objective,
        start=start.key if start else "",
        device=device,
        cost=float(passes),
    )


def _new(course: Course) -> dict[str, Any]:
    """What a key leaves out: keys from before anything, or all but it, could be removed hold."""
    if course.remove is None:
        return {"start": True, "remove": True}
    return {"start": True} if course.remove.alone else {"start": True, "remove": {"alone": True}}


def options_for(choice: ModelChoice, objective: TrainingObjective) -> dict[str, Any]:
    """The model's options for a training: random weights unless told, what the objective asks."""
    asked = objective.model_options() if isinstance(objective, Shaping) else {}
    return {"weights": "none", **asked, **choice.options}


def fine_tuned(
    waged: Waged, against: Measured | None, model: ModelSource, seed: int, device: str
) -> FineTuned | None:
    """The network that an attack trains; None for any other attack."""
    if not isinstance(waged.attack, Training) or against is None:
        return None
    numbers = {
        "model": model.card(),
        "attack": {k: v for k, v in waged.card().items() if k not in waged.attack.apart},
        "against": [against.label, against.card()],
        "seed": seed,
        "device": device.split(":")[0],
    }
    contents = {
        **model.contents(),
        "pictures": located("attacks", waged.attack.revision),
        "components": weights_in(waged.card(), against.card()),
    }
    key, place = key_and_place(numbers, contents)
    return FineTuned(
        key=key,
        place=place,
        model=model,
        waged=waged,
        against=against,
        seed=seed,
        device=device,
        cost=_cost(waged.attack, against),
    )


def _cost(attack: Training, against: Measured) -> float:
    """Gradient passes, roughly; how many images there are is not known before they are read."""
    images = (getattr(attack, "images", None) or SHIPPED) * (1 + getattr(attack, "copies", 0))
    return float(images * getattr(attack, "epochs", 1) * 3 * against.explainer.cost().gradient)
