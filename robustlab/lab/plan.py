"""From a spec to cells: pure, duplicate-free and in a fixed order.

A cell is one (model, chunk of images, attack made against one explainer, budget, seed) and
the explainers that are measured under it. Its key is a hash of everything that its numbers
depend on, so the same key always means the same numbers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import attacks
from robustlab import explainers, metrics
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.tables import options_of
from robustlab.core.types import Attack, Explainer, Metric, RegionMetric
from robustlab.data import Dataset
from robustlab.lab.spec import AttackChoice, ExperimentSpec

CELL_SCHEMA = 1
Role = Literal["attack", "control", "none"]
Target = Literal["prediction", "label", "current"] | int


@dataclass(frozen=True)
class Measured:
    """An explainer under its label, with the target policy it is explained by."""

    label: str
    name: str
    explainer: Explainer
    target: Target

    def card(self) -> dict[str, Any]:
        return {"name": self.name, **options_of(self.explainer), "target": self.target}


@dataclass(frozen=True)
class Waged:
    """An attack under its label: what it is, whom it aims at, whose control it is."""

    label: str
    name: str
    attack: Attack
    role: Role
    control_of: str | None
    against: str  # an explainer's label, "each", or "" where the attack needs none

    def card(self) -> dict[str, Any]:
        return {"name": self.name, **options_of(self.attack)}


@dataclass(frozen=True)
class Cell:
    """One unit of work; everything it needs to run in another process."""

    key: str
    model: str
    model_options: Mapping[str, Any]
    model_label: str
    data: str
    data_options: Mapping[str, Any]
    data_label: str
    ids: tuple[str, ...]
    waged: Waged
    against: Measured | None
    measured: tuple[Measured, ...]
    budget: Budget
    seed: int
    metrics: Mapping[str, Metric | RegionMetric]
    device: str
    keep: int  # how many of its first images leave pictures for the gallery
    cost: float  # estimated gradient passes, for the progress bar


@dataclass(frozen=True)
class Plan:
    """All cells of an experiment, with the parts that its manifest describes."""

    spec: ExperimentSpec
    cells: tuple[Cell, ...]
    measured: tuple[Measured, ...]
    waged: tuple[Waged, ...]
    metrics: Mapping[str, Metric | RegionMetric]
    fingerprint: str


def make_plan(spec: ExperimentSpec, dataset: Dataset, *, device: str = "cpu") -> Plan:
    """Cross models, seeds, attacks, budgets and chunks.

    Raises:
        InvalidInput: an unknown or ill-configured component, named by its place in the spec.
    """
    measured = tuple(
        _located(f"explainers.{i}", lambda c=choice: Measured(
            c.shown, c.name, explainers.build(c.name, **c.options),
            spec.target if c.target is None else c.target))
        for i, choice in enumerate(spec.explainers)
    )  # fmt: skip
    chosen = {
        choice.shown: _located(
            f"metrics.{i}",
            lambda c=choice: metrics.build(c.name, **c.options),
        )
        for i, choice in enumerate(spec.metrics)
    }
    waged = _with_controls(spec.attacks, [m.label for m in measured])
    ids = dataset.ids[: spec.images]
    chunks = [ids[i : i + spec.chunk] for i in range(0, len(ids), spec.chunk)]
    pictured = frozenset(ids[: spec.gallery.images])
    cells = [
        _cell(spec, chunk, w, against, measured, budget, seed, model, chosen, device, pictured)
        for model in spec.models
        for seed in spec.seeds
        for w in waged
        for against in _aims(w, measured)
        for budget in _budgets(spec, w)
        for chunk in chunks
    ]
    unique = {cell.key: cell for cell in cells}
    return Plan(
        spec=spec,
        cells=tuple(unique.values()),
        measured=measured,
        waged=waged,
        metrics=chosen,
        fingerprint=_digest([*unique, [m.label for m in measured]]),
    )


def _with_controls(choices: Sequence[AttackChoice], labels: Sequence[str]) -> tuple[Waged, ...]:
    """The spec's attacks, each followed by the random-sign control it asks for.

    A control is not optional: an attack that does not beat random signs at equal budget,
    tries and selection has shown nothing.
    """
    waged: list[Waged] = []
    for i, choice in enumerate(choices):
        attack = _located(f"attacks.{i}", lambda c=choice: _attack(c))
        if attack.needs_explainer and choice.against not in (*labels, "each"):
            raise InvalidInput(
                f"attacks.{i}.against",
                f"no explainer is labelled {choice.against!r}",
                nearest(choice.against, [*labels, "each"]),
            )
        roles: dict[str, Role] = {"none": "none", "random_sign": "control"}
        role = roles.get(choice.name, "attack")
        against = choice.against if attack.needs_explainer else ""
        waged.append(Waged(choice.shown, choice.name, attack, role, None, against))
        control = attack.control() if role == "attack" else None
        if control is not None and control.needs_explainer:
            label = f"random_sign ({choice.shown})"
            waged.append(Waged(label, "random_sign", control, "control", choice.shown, against))
        elif control is not None and not _has_shared_control(choices, waged):
            waged.append(Waged("random_sign", "random_sign", control, "control", None, ""))
    return tuple(waged)


def _attack(choice: AttackChoice) -> Attack:
    """Of an attack on the prediction, ``against`` is an option of its own, if it has one."""
    attack = attacks.build(choice.name, **choice.options)
    if attack.needs_explainer or choice.against == "each":
        return attack
    return attacks.build(choice.name, **choice.options, against=choice.against)


def _has_shared_control(choices: Sequence[AttackChoice], waged: Sequence[Waged]) -> bool:
    named = any(choice.name == "random_sign" for choice in choices)
    return named or any(w.role == "control" and w.control_of is None for w in waged)


def _aims(waged: Waged, measured: Sequence[Measured]) -> list[Measured | None]:
    if not waged.attack.needs_explainer:
        return [None]
    if waged.against == "each":
        return list(measured)
    return [m for m in measured if m.label == waged.against]


def _budgets(spec: ExperimentSpec, waged: Waged) -> list[Budget]:
    budgets = [budget for choice in spec.budgets for budget in choice.budgets()]
    return [Budget(budgets[0].norm, 0.0)] if waged.role == "none" else budgets


def _cell(
    spec: ExperimentSpec,
    ids: tuple[str, ...],
    waged: Waged,
    against: Measured | None,
    everyone: tuple[Measured, ...],
    budget: Budget,
    seed: int,
    model: Any,
    chosen: Mapping[str, Metric | RegionMetric],
    device: str,
    pictured: frozenset[str],
) -> Cell:
    measured = everyone if against is None or waged.against != "each" else (against,)
    numbers = {
        "schema": CELL_SCHEMA,
        "model": [model.shown, model.name, model.options],
        "data": [spec.data.shown, spec.data.name, spec.data.options],
        "ids": ids,
        "attack": waged.card(),
        "role": [waged.role, waged.label, waged.control_of],
        "against": against and [against.label, against.card()],
        "measured": [[m.label, m.card()] for m in measured],
        "budget": [budget.norm, budget.epsilon, budget.lower, budget.upper],
        "seed": seed,
        "metrics": [[label, metric.name, options_of(metric)] for label, metric in chosen.items()],
        "device": device.split(":")[0],
    }
    shown = spec.gallery.epsilon is None or budget.epsilon in spec.gallery.epsilon
    shown = (shown or waged.role == "none") and seed == spec.seeds[0]
    return Cell(
        key=_digest(numbers),
        model=model.name,
        model_options=model.options,
        model_label=model.shown,
        data=spec.data.name,
        data_options=spec.data.options,
        data_label=spec.data.shown,
        ids=ids,
        waged=waged,
        against=against,
        measured=measured,
        budget=budget,
        seed=seed,
        metrics=chosen,
        device=device,
        keep=sum(i in pictured for i in ids) if shown else 0,
        cost=len(ids)
        * (sum(m.explainer.cost().gradient for m in measured) + _effort(waged, against)),
    )


def _effort(waged: Waged, against: Measured | None) -> float:
    """Gradient passes per image that the attack itself takes, roughly: for the progress bar."""
    steps = getattr(waged.attack, "steps", getattr(waged.attack, "tries", 1))
    if against is None:
        return float(steps if waged.role == "attack" else 0)
    one = against.explainer.cost().gradient
    if waged.role == "control":
        return float(steps * (one + 0.5))
    factor = 3.0 if waged.attack.gradient_path(against.explainer) == "hessian_vector" else 5.0
    return float(steps * (factor * one + 0.5))


def _located(where: str, make: Any) -> Any:
    """Run a constructor; a refusal names the place in the spec first."""
    try:
        return make()
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.field}", error.problem, error.remedy) from None


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]
