"""The judge: the only place that says what an attack has achieved.

An attack proposes images. The judge projects them into the budget, re-predicts and
re-explains them on the *true* model, and keeps "prediction changed" apart from "explanation
drifted". It trusts nothing that the attack says about itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from robustlab.core.batch import Batch, check_images
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.maps import to_maps
from robustlab.core.saving import FileFormat, read_back
from robustlab.core.streaming import logits_of
from robustlab.core.types import (
    Attack,
    Cautious,
    Explainer,
    ModelAttack,
    Moving,
    Problem,
    Resolvable,
)
from robustlab.core.wrapping import Counted

# Whose class is explained: the clean prediction, the label, the prediction at hand, or a fixed one.
Named = Literal["prediction", "runner_up", "label", "current"]
Target = Named | int
# infeasible: the proposal is the clean image, so nothing within reach kept the prediction and
# moved the map. diverged: not finite, replaced by the clean image. budget_violated: left the
# ball or box by more than rounding; it was projected back before anything was measured.
Outcome = Literal["ok", "infeasible", "diverged", "budget_violated"]

RADIUS_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Proposal:
    """What an attack came up with, and what it cost: passes, in images.

    ``cautions`` are the attack's own doubts, per image: facts about its search that the
    judge cannot see.
    """

    images: Tensor
    forwards: int
    backwards: int
    cautions: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Trial:
    """Proposed images after projection, with what the true model says of them. All ``[B]``."""

    images: Tensor
    radius: Tensor
    predictions: Tensor
    confidences: Tensor
    prediction_kept: Tensor
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, eq=False)
class Judged(Trial):
    """A trial with its maps before and after, and what the attack cost per batch."""

    clean_maps: Tensor
    maps: Tensor
    forwards: int
    backwards: int
    cautions: tuple[tuple[str, ...], ...]


def pose(
    model: nn.Module,
    explainer: Explainer,
    batch: Batch,
    *,
    target: Target = "prediction",
    seed: int = 0,
    target_maps: Tensor | None = None,
) -> Problem:
    """State the problem: explain the clean batch on the true model.

    Raises:
        InvalidInput: images outside [0,1] or not finite, a label or target class that the
            model does not have, a model in training mode, target maps of another
            shape, not finite or without a pattern.
    """
    check_images(batch.images)
    check_eval_mode(model)
    check_local(explainer)
    if isinstance(explainer, Resolvable):
        explainer = explainer.resolved(model, batch.images)
    logits = logits_of(model, batch.images)
    check_labels(batch.labels, logits.shape[1])
    predictions = logits.argmax(1)
    targets = choose_targets(target, batch.labels, logits)
    raw = explainer.explain(model, batch.images, targets, ids=batch.ids).detach()
    height, width = batch.images.shape[-2:]
    maps = to_maps(raw, explainer.post, (height, width))
    if target_maps is not None:
        _check_target_maps(target_maps, maps, batch.ids)
    return Problem(
        model=model,
        explainer=explainer,
        images=batch.images.detach(),
        targets=targets,
        labels=batch.labels,
        predictions=predictions,
        maps=maps,
        ids=batch.ids,
        seed=seed,
        target_maps=target_maps,
        raw=raw,
    )


def _check_target_maps(wanted: Tensor, maps: Tensor, ids: tuple[str, ...]) -> None:
    if wanted.shape != maps.shape:
        raise InvalidInput(
            "target_maps", f"expected shape {tuple(maps.shape)}, got {tuple(wanted.shape)}"
        )
    flat = wanted.flatten(1)
    for i, image_id in enumerate(ids):
        if not torch.isfinite(flat[i]).all():
            raise InvalidInput("target_maps", f"the map for {image_id!r} is not finite")
        if flat[i].min() == flat[i].max():
            raise InvalidInput(
                "target_maps",
                f"the map for {image_id!r} is {float(flat[i, 0]):g} at every pixel",
                "a map to imitate needs a pattern: give one that varies",
            )


def propose(attack: Attack, problem: Problem, budget: Budget) -> Proposal:
    """Let the attack propose.

    Raises:
        NotDifferentiable: it needs gradients and the explainer has none.
    """
    if attack.needs_explainer and attack.gradient_path(problem.explainer) == "impossible":
        name = type(problem.explainer).__name__
        raise NotDifferentiable(
            f"{type(attack).__name__} needs gradients and {name} has none; "
            "black_box attacks any explainer"
        )
    counted = Counted(problem.model)
    # its own tensors: what it writes into them must not reach the judge
    own: dict[str, Any] = {k: v.clone() for k, v in vars(problem).items() if isinstance(v, Tensor)}
    asked = replace(problem, model=counted, **own)
    doubts: tuple[tuple[str, ...], ...] = ((),) * len(problem.images)
    if isinstance(attack, Cautious):
        images, doubts = attack.propose_with_cautions(asked, budget)
    else:
        images = attack.propose(asked, budget)
    return Proposal(images.detach(), counted.forwards, counted.backwards, doubts)


def manipulate(attack: ModelAttack, problem: Problem) -> Problem:
    """The same question about another model; what was known of the clean one stays.

    Raises:
        InvalidInput: the new model is in training mode, or does not fit the images.
    """
    return manipulated(attack, problem, attack.manipulate(problem))


def manipulated(attack: ModelAttack, problem: Problem, model: nn.Module) -> Problem:
    """The same with the model that the attack has made before."""
    check_eval_mode(model)
    images = attack.moved(problem) if isinstance(attack, Moving) else problem.images
    return replace(problem, model=model, images=images)


def undisturbed(problem: Problem) -> Trial:
    """The trial of a manipulated problem: its images as they are, in the box or not."""
    low, high = float(problem.images.min()), float(problem.images.max())
    still = Budget("linf", 0.0, lower=min(0.0, low), upper=max(1.0, high))
    return verify(problem, still, problem.images, idle=True)


def verify(problem: Problem, budget: Budget, proposal: Tensor, *, idle: bool = False) -> Trial:
    """Project, measure and re-predict. ``idle`` attacks are meant to return the clean image."""
    images = problem.images
    if proposal.shape != images.shape:
        raise InvalidInput(
            "proposal", f"expected shape {tuple(images.shape)}, got {tuple(proposal.shape)}"
        )
    proposal = proposal.to(images)  # attacks by way of numpy come back as float64
    finite = torch.isfinite(proposal).flatten(1).all(1)
    proposal = torch.where(finite.view(-1, 1, 1, 1), proposal, images)
    slack = RADIUS_TOLERANCE + 1e-4 * budget.epsilon
    strayed = budget.radius(proposal, images) > budget.epsilon + slack
    low, high = proposal.flatten(1).amin(1), proposal.flatten(1).amax(1)
    strayed |= (low < budget.lower - slack) | (high > budget.upper + slack)
    projected = budget.project(proposal, images)
    radius = budget.radius(projected, images)
    probabilities = torch.softmax(logits_of(problem.model, projected), 1)
    confidences, predictions = probabilities.max(1)
    unmoved = (radius == 0) & (budget.epsilon > 0)
    outcomes: list[Outcome] = []
    for i in range(len(images)):
        if not bool(finite[i]):
            outcomes.append("diverged")
        elif bool(strayed[i]):
            outcomes.append("budget_violated")
        else:
            outcomes.append("infeasible" if bool(unmoved[i]) and not idle else "ok")
    return Trial(
        images=projected,
        radius=radius,
        predictions=predictions,
        confidences=confidences,
        prediction_kept=predictions == problem.predictions,
        outcomes=tuple(outcomes),
    )


def saved(problem: Problem, trial: Trial, file_format: FileFormat) -> Trial:
    """The trial as its images are after saving and opening them again.

    The files may lie outside the budget, and their radius in it is not known: NaN.
    """
    images = read_back(trial.images, file_format)
    confidences, predictions = torch.softmax(logits_of(problem.model, images), 1).max(1)
    return replace(
        trial,
        images=images,
        radius=torch.full_like(trial.radius, torch.nan),
        predictions=predictions,
        confidences=confidences,
        prediction_kept=predictions == problem.predictions,
    )


def reexplain(problem: Problem, trial: Trial, target: Target = "prediction") -> Tensor:
    """Maps ``[B,H,W]`` of the attacked images on the true model.

    The class stays the one explained before, except for ``target="current"``.
    """
    targets = trial.predictions if target == "current" else problem.targets
    return explain_maps(problem.model, problem.explainer, trial.images, targets, problem.ids)


def judge(
    attack: Attack | ModelAttack,
    problem: Problem,
    budget: Budget | None = None,
    *,
    target: Target = "prediction",
) -> Judged:
    """Propose, verify and re-explain in one go; a model attack needs no budget.

    An attack with ``idle = True`` is meant to stay at the clean image: that is no failure.
    """
    if isinstance(attack, ModelAttack):
        problem = manipulate(attack, problem)
        proposal = Proposal(problem.images, 0, 0, ((),) * len(problem.images))
        trial = undisturbed(problem)
    elif budget is None:
        raise InvalidInput("budget", "an attack on images needs one", 'Budget("linf", 2/255)')
    else:
        proposal = propose(attack, problem, budget)
        trial = verify(problem, budget, proposal.images, idle=getattr(attack, "idle", False))
    return Judged(
        **vars(trial),
        clean_maps=problem.maps,
        maps=reexplain(problem, trial, target),
        forwards=proposal.forwards,
        backwards=proposal.backwards,
        cautions=proposal.cautions,
    )


def explain_maps(
    model: nn.Module,
    explainer: Explainer,
    images: Tensor,
    targets: Tensor,
    ids: Sequence[str] | None,
) -> Tensor:
    """The explainer's map ``[B,H,W]``: raw attribution, then its own post-processing."""
    raw = explainer.explain(model, images, targets, ids=ids)
    height, width = images.shape[-2:]
    return to_maps(raw, explainer.post, (height, width)).detach()


def choose_targets(target: Target, labels: Tensor, logits: Tensor) -> Tensor:
    """The explained class of each clean image.

    prediction: of the largest logit; so is *current*, which looks again after an attack.
    runner_up: of the second largest, what the model nearly said.
    """
    classes = logits.shape[1]
    if target == "label":
        if bool((labels < 0).any()):
            raise InvalidInput("target", "'label' was asked for but some images have none",
                               "use target: prediction")  # fmt: skip
        return labels
    if target in ("prediction", "current"):
        return logits.argmax(1)
    if target == "runner_up":
        if classes < 2:
            raise InvalidInput("target", "'runner_up' of a model with one class", "prediction")
        return logits.topk(2).indices[:, 1]
    if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < classes:
        raise InvalidInput(
            "target",
            f"{target!r} is not known",
            f"{', '.join(get_args(Named))} or 0..{classes - 1}",
        )
    return torch.full((len(logits),), target, device=logits.device)


def check_local(explainer: Explainer) -> None:
    """Refuse an explainer that makes images: there is no map of an image that could drift."""
    if explainer.about.scope == "global":
        raise InvalidInput(
            "explainer",
            f"{type(explainer).__name__} explains the model by an image it makes",
            "call its explain(model, images, targets); images give the shape",
        )


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuse labels that the model has no class for."""
    worst = int(labels.max())
    if worst >= classes:
        raise InvalidInput(
            "labels", f"label {worst} is out of range", f"the model has classes 0..{classes - 1}"
        )


def check_eval_mode(model: nn.Module) -> None:
    """Refuse a model whose answer depends on the batch or on chance."""
    unsteady = nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd | nn.RReLU
    for name, module in model.named_modules():
        if module.training and isinstance(module, unsteady):
            raise InvalidInput(
                "model", f"module {name!r} is in training mode", "call model.eval() first"
            )
