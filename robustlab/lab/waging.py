"""Which explainers are measured, which attacks are waged against them, with which controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import attacks
from robustlab import explainers
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.judge import Target
from robustlab.core.tables import options_of
from robustlab.core.types import Attack, Explainer, Imitating, ModelAttack, Moving, Training
from robustlab.lab.spec import AttackChoice, ExperimentSpec, ExplainerChoice

Role = Literal["attack", "control", "none"]


@dataclass(frozen=True)
class Measured:
    """An explainer under its label, the target policy it is explained by, and its models."""

    label: str
    name: str
    explainer: Explainer
    target: Target
    models: tuple[str, ...] | None = None  # labels of models; None: all

    def card(self) -> dict[str, Any]:
        return {"name": self.name, **options_of(self.explainer), "target": self.target}


@dataclass(frozen=True)
class Waged:
    """An attack under its label: what it is, whom it aims at, whose control it is."""

    label: str
    name: str
    attack: Attack | ModelAttack
    role: Role
    control_of: str | None
    against: str | tuple[str, ...]  # label, labels, "each", or "" where it needs no explainer
    models: tuple[str, ...] | None = None  # labels of models; None: all
    made_on: str | None = None  # label of the model that it looks at; None: the one it disturbs
    seeds: tuple[int, ...] = (0,)

    def card(self) -> dict[str, Any]:
        return {"name": self.name, **options_of(self.attack)}

    @property
    def disturbs(self) -> Literal["image", "model", "both", "trained"]:
        if isinstance(self.attack, Training):
            return "trained"
        if isinstance(self.attack, Moving):
            return "both"
        return "model" if isinstance(self.attack, ModelAttack) else "image"

    @property
    def alone(self) -> bool:
        """Is it made against one explainer at a time, which alone is measured then?"""
        return self.against == "each" or isinstance(self.against, tuple)

    @property
    def leader(self) -> Attack | ModelAttack:
        """The attack itself, or the one that it is the control of."""
        found: Attack | ModelAttack = getattr(self.attack, "like", None) or self.attack
        return found

    @property
    def imitates(self) -> bool:
        """Is each image's map to look like that of the next image?

        Manipulated models have targets of their own.
        """
        return isinstance(self.leader, Imitating) and not isinstance(self.leader, ModelAttack)

    def possible(self, explainer: Explainer) -> bool:
        """Has it, or the attack that it is the control of, a gradient to follow?"""
        return self.leader.gradient_path(explainer) != "impossible"


def all_measured(spec: ExperimentSpec) -> tuple[Measured, ...]:
    """Every explainer of the spec, those that explain the model among them.

    Raises:
        InvalidInput: an unknown or ill-configured explainer, or one for an unknown model.
    """
    _check_models("explainers", spec.explainers, spec)
    return tuple(
        located(f"explainers.{i}", lambda c=choice: Measured(
            c.shown, c.name, explainers.build(c.name, **c.options),
            spec.target if c.target is None else c.target, c.models))
        for i, choice in enumerate(spec.explainers)
    )  # fmt: skip


def all_waged(spec: ExperimentSpec, measured: Sequence[Measured]) -> tuple[Waged, ...]:
    """The spec's attacks, each followed by the random-sign control it asks for.

    A control is not optional: an attack that does not beat random signs at equal budget,
    tries and selection has shown nothing.
    """
    choices = spec.attacks
    _check_models("attacks", choices, spec)
    waged: list[Waged] = []
    for i, choice in enumerate(choices):
        attack = located(f"attacks.{i}", lambda c=choice: _attack(c))
        if attack.needs_explainer:
            _check_aim(i, choice, attack, measured)
        roles: dict[str, Role] = {"none": "none", "random_sign": "control"}
        role = roles.get(choice.name, "attack")
        against = choice.against if attack.needs_explainer else ""
        place = (against, choice.models, choice.made_on, choice.seeds or spec.seeds)
        waged.append(Waged(choice.shown, choice.name, attack, role, None, *place))
        control = attack.control() if role == "attack" else None
        if control is not None and getattr(control, "like", None) is not None:
            label = f"random_sign ({choice.shown})"
            waged.append(Waged(label, "random_sign", control, "control", choice.shown, *place))
        elif control is not None and not _has_shared_control(choices, waged):
            shared = ("", None, None, spec.seeds)
            waged.append(Waged("random_sign", "random_sign", control, "control", None, *shared))
    return tuple(waged)


def aims(waged: Waged, measured: Sequence[Measured]) -> list[Measured | None]:
    """The explainers that the attack is made against, one cell each; [None] if it needs none.

    Of "each", those that the attack has no gradient of are left out: see `left_out`.
    """
    if not waged.attack.needs_explainer:
        return [None]
    if waged.against == "each":
        return [m for m in measured if waged.possible(m.explainer)]
    labels = (waged.against,) if isinstance(waged.against, str) else waged.against
    return [m for m in measured if m.label in labels]


def left_out(waged: Sequence[Waged], measured: Sequence[Measured]) -> tuple[tuple[str, str], ...]:
    """(attack, explainer) for every pair that "each" would hold if there were a gradient."""
    return tuple(
        (w.label, m.label)
        for w in waged
        if w.against == "each" and w.role == "attack"
        for m in measured
        if not w.possible(m.explainer)
    )


def budgets_of(spec: ExperimentSpec, waged: Waged) -> list[Budget]:
    """The spec's budgets; one of radius 0 for what leaves the images alone."""
    budgets = [budget for choice in spec.budgets for budget in choice.budgets()]
    if waged.role == "none" or waged.disturbs != "image":
        return [Budget(budgets[0].norm if budgets else "linf", 0.0)]
    if not budgets:
        raise InvalidInput("budgets", f"{waged.label!r} disturbs images and needs at least one")
    return budgets


def located(where: str, make: Any) -> Any:
    """Run a constructor; a refusal names the place in the spec first."""
    try:
        return make()
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.field}", error.problem, error.remedy) from None


def _check_models(
    field: str, choices: Sequence[ExplainerChoice | AttackChoice], spec: ExperimentSpec
) -> None:
    models = [model.shown for model in spec.models]
    for i, choice in enumerate(choices):
        named = [("models", label) for label in choice.models or ()]
        if isinstance(choice, AttackChoice) and choice.made_on is not None:
            named.append(("made_on", choice.made_on))
        for key, label in named:
            if label not in models:
                raise InvalidInput(
                    f"{field}.{i}.{key}", f"no model is labelled {label!r}", nearest(label, models)
                )


def _attack(choice: AttackChoice) -> Attack | ModelAttack:
    """Of an attack on the prediction, ``against`` is an option of its own, if it has one."""
    attack = attacks.build(choice.name, **choice.options)
    if attack.needs_explainer or choice.against == "each":
        return attack
    return attacks.build(choice.name, **choice.options, against=choice.against)


def _check_aim(
    place: int,
    choice: AttackChoice,
    attack: Attack | ModelAttack,
    measured: Sequence[Measured],
) -> None:
    known = {m.label: m.explainer for m in measured}
    if choice.against == "each":
        return
    labels = (choice.against,) if isinstance(choice.against, str) else choice.against
    for label in labels:
        if label not in known:
            raise InvalidInput(
                f"attacks.{place}.against",
                f"no explainer is labelled {label!r}",
                nearest(label, [*known, "each"]),
            )
        if attack.gradient_path(known[label]) == "impossible":
            raise InvalidInput(
                f"attacks.{place}.against",
                f"{choice.shown!r} needs gradients and {label!r} has none",
                "black_box attacks any explainer",
            )


def _has_shared_control(choices: Sequence[AttackChoice], waged: Sequence[Waged]) -> bool:
    named = any(choice.name == "random_sign" for choice in choices)
    return named or any(w.role == "control" and w.control_of is None for w in waged)
