"""What is worth knowing of some attacks beside the drift: imitation, patches, certificates."""

from typing import Final

import torch
from torch import Tensor, nn

from attacks.toward import classes_toward
from robustlab.core.judge import Trial, explain_maps
from robustlab.core.streaming import logits_of
from robustlab.core.types import Concealing, Imitating, ModelAttack, OneMapMetric, Problem
from robustlab.explainers.defended.certificate import certified_overlap
from robustlab.explainers.defended.sparsified import SparsifiedSmoothGrad
from robustlab.explainers.draws import other_draws
from robustlab.lab.units import Cell
from robustlab.metrics.agreement import SSIM, Pearson
from robustlab.metrics.ranks import TopKIntersection
from robustlab.records import REACHED, RERUN

SSIM_WINDOW: Final = 11  # pixels


def facts_of(cell: Cell, clean: Problem, trial: Trial, maps: Tensor) -> dict[str, list[float]]:
    """Name → one number per image, of one explainer's maps after the attack."""
    return {
        **_concealed(cell, clean, maps),
        **_likeness(cell, clean, maps),
        **_in_patch(cell, clean, trial, maps),
        **_certificate(cell, clean),
        **_rerun(cell, clean),
    }


def shared_facts(
    cell: Cell, clean: Problem, trial: Trial, judged: nn.Module
) -> dict[str, list[float]]:
    """What is the same for every explainer, because it is about the model or the pictures."""
    return {
        **_reliance(cell, clean, judged),
        **_took(cell, clean, trial, judged),
        **_reached(cell, clean, trial),
    }


def target_of(cell: Cell, clean: Problem) -> Tensor | None:
    """The map that the cell's attack, or the one it is the control of, wants to see."""
    leader = cell.waged.leader
    return leader.target(clean) if isinstance(leader, Imitating) else None


def _likeness(cell: Cell, clean: Problem, maps: Tensor) -> dict[str, list[float]]:
    """Of an imitation: how like its target and its original a map is."""
    target = target_of(cell, clean)
    if target is None:
        return {}
    pearson = Pearson()
    return {
        "pearson_to_target_before": pearson(target, clean.maps).tolist(),
        "pearson_to_target": pearson(target, maps).tolist(),
        "pearson_to_original": pearson(clean.maps, maps).tolist(),
    }


def _took(cell: Cell, clean: Problem, trial: Trial, judged: nn.Module) -> dict[str, list[float]]:
    """Of an imitation: what it took, in the output and in the picture."""
    if not isinstance(cell.waged.leader, Imitating):
        return {}
    before = torch.softmax(logits_of(clean.model, clean.images), 1)
    after = torch.softmax(logits_of(judged, trial.images), 1)
    found = {"output_change": (after - before).abs().amax(1).tolist()}
    if min(clean.images.shape[-2:]) >= SSIM_WINDOW:
        grey = [images.mean(1) for images in (clean.images, trial.images)]
        found["image_ssim"] = SSIM(data_range=1.0, scale="none")(*grey).tolist()
    return found


def _reached(cell: Cell, clean: Problem, trial: Trial) -> dict[str, list[float]]:
    """Of an attack that leads to a class: is it predicted now? Nothing where it was before.

    Nothing of another model's images either: that model may have led to another class.
    """
    leader = cell.waged.leader
    toward = getattr(leader, "toward", None)
    if toward is None or isinstance(leader, ModelAttack) or cell.made_on is not None:
        return {}
    wanted = classes_toward(clean, toward)
    hits = (trial.predictions == wanted).double()
    return {REACHED: torch.where(clean.predictions == wanted, torch.nan, hits).tolist()}


def _in_patch(cell: Cell, clean: Problem, trial: Trial, maps: Tensor) -> dict[str, list[float]]:
    """Of a patch: which share of a map's positive part lies on the pixels that it covers.

    Told of the clean map too, for the same pixels. Nothing is told where nothing changed.
    """
    changed = (trial.images != clean.images).any(1)
    if cell.budget.norm != "patch" or not changed.any():
        return {}
    return {
        "energy_in_patch_before": _energy(clean.maps, changed),
        "energy_in_patch": _energy(maps, changed),
    }


def _concealed(cell: Cell, clean: Problem, maps: Tensor) -> dict[str, list[float]]:
    """Of a concealment: the share of the map in the region."""
    attack = cell.waged.attack
    if not isinstance(attack, Concealing):
        return {}
    inside = attack.inside(clean.images)
    return {
        "energy_hidden_before": _energy(clean.maps, inside),
        "energy_hidden": _energy(maps, inside),
    }


def _reliance(cell: Cell, clean: Problem, judged: nn.Module) -> dict[str, list[float]]:
    """Of a concealment: what hiding the region does.

    ``changed`` is 1 where it changes the prediction of that same model, ``right`` where the
    prediction without it is the label.
    """
    attack = cell.waged.attack
    if not isinstance(attack, Concealing):
        return {}
    hidden, found = attack.hidden(clean), {}
    for name, model in (("_before", clean.model), ("", judged)):
        seen, unseen = (logits_of(model, x).argmax(1) for x in (clean.images, hidden))
        found[f"changed_when_hidden{name}"] = (seen != unseen).double().tolist()
        found[f"right_when_hidden{name}"] = (unseen == clean.labels).double().tolist()
    return found


def _energy(maps: Tensor, inside: Tensor) -> list[float]:
    """Share of the positive part; that of the area where a map has none: it points nowhere."""
    positive = maps.clamp(min=0).double()
    total = positive.sum((1, 2))
    flat = inside.double().expand_as(positive).mean((1, 2))
    return torch.where(total > 0, (positive * inside).sum((1, 2)) / total, flat).tolist()


def _rerun(cell: Cell, clean: Problem) -> dict[str, list[float]]:
    """Without an attack: how far other draws of an explainer's random numbers move its map."""
    again = other_draws(clean.explainer) if cell.waged.role == "none" else None
    if again is None:
        return {}
    maps = explain_maps(clean.model, again, clean.images, clean.targets, clean.ids)
    return {
        f"{RERUN}{label}": metric(clean.maps, maps).tolist()
        for label, metric in cell.metrics.items()
        if not isinstance(metric, OneMapMetric)
    }


def _certificate(cell: Cell, clean: Problem) -> dict[str, list[float]]:
    """What a certified explainer promises at an l2 radius, for the k of the first top-k metric."""
    explainer, raw = clean.explainer, clean.raw
    ks = [m.k for m in cell.metrics.values() if isinstance(m, TopKIntersection)]
    if not isinstance(explainer, SparsifiedSmoothGrad) or raw is None or not ks:
        return {}
    if cell.budget.norm != "l2" or cell.budget.epsilon == 0 or 2 * ks[0] > raw[0].numel():
        return {}
    found = certified_overlap(
        raw, ks[0], cell.budget.epsilon, sigma=explainer.sigma, samples=explainer.samples
    )
    return {
        "certified_overlap": (found.double() / ks[0]).tolist(),
        "certified_k": [float(ks[0])] * len(found),
        "certified_radius": [cell.budget.epsilon] * len(found),
    }
