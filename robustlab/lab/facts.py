"""What is worth knowing of some attacks beside the drift: imitation, patches, certificates."""

from typing import Final

import torch
from torch import Tensor

from robustlab.core.judge import Trial
from robustlab.core.streaming import logits_of
from robustlab.core.types import Imitating, Problem
from robustlab.explainers.defended.certificate import certified_overlap
from robustlab.explainers.defended.sparsified import SparsifiedSmoothGrad
from robustlab.lab.plan import Cell
from robustlab.metrics.agreement import SSIM, Pearson
from robustlab.metrics.ranks import TopKIntersection

SSIM_WINDOW: Final = 11  # pixels


def facts_of(cell: Cell, clean: Problem, trial: Trial, maps: Tensor) -> dict[str, list[float]]:
    """Name → one number per image, of one explainer's maps after the attack."""
    return {
        **_likeness(cell, clean, trial, maps),
        **_in_patch(cell, clean, trial, maps),
        **_certificate(cell, clean),
    }


def target_of(cell: Cell, clean: Problem) -> Tensor | None:
    """The map that the cell's attack, or the one it is the control of, wants to see."""
    leader = cell.waged.leader
    return leader.target(clean) if isinstance(leader, Imitating) else None


def _likeness(cell: Cell, clean: Problem, trial: Trial, maps: Tensor) -> dict[str, list[float]]:
    """Of an imitation: how like its target and its original a map is, and what it took."""
    target = target_of(cell, clean)
    if target is None:
        return {}
    pearson = Pearson()
    before, after = (
        torch.softmax(logits_of(clean.model, images), 1) for images in (clean.images, trial.images)
    )
    found = {
        "pearson_to_target_before": pearson(target, clean.maps).tolist(),
        "pearson_to_target": pearson(target, maps).tolist(),
        "pearson_to_original": pearson(clean.maps, maps).tolist(),
        "output_change": (after - before).abs().amax(1).tolist(),
    }
    if min(clean.images.shape[-2:]) >= SSIM_WINDOW:
        grey = [images.mean(1) for images in (clean.images, trial.images)]
        found["image_ssim"] = SSIM(data_range=1.0, scale="none")(*grey).tolist()
    return found


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


def _energy(maps: Tensor, inside: Tensor) -> list[float]:
    positive = maps.clamp(min=0).double()
    share = (positive * inside).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1e-300)
    return share.tolist()


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
