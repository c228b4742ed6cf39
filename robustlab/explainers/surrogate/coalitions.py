"""What the model says of an image of which only some superpixels are shown."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.score import Score, score_of
from robustlab.core.streaming import micro_batch, run_model
from robustlab.explainers.surrogate.superpixels import counts

Baseline = Literal["mean"] | float


def coalition_scores(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    regions: Tensor,
    coalitions: Sequence[Tensor],
    baseline: Baseline,
    score: Score,
) -> list[Tensor]:
    """Scores ``[nᵢ]``, float64, of image i under each of its coalitions ``[nᵢ,Mᵢ]``, boolean.

    A superpixel that is not in the coalition shows ``baseline`` instead. Micro-batches hold
    copies of one image only, so that not even rounding depends on the batch it came with.
    """
    if targets.shape != images.shape[:1]:
        raise InvalidInput("targets", f"expected shape ({len(images)},), got {(*targets.shape,)}")
    shown, empty = images.detach(), hidden(images.detach(), regions, baseline)
    scores = []
    with torch.no_grad():
        for i, rows in enumerate(coalitions):
            parts = []
            for part in rows.to(images.device).split(micro_batch(images)):
                present = part[:, regions[i]].unsqueeze(1)
                logits = run_model(model, torch.where(present, shown[i], empty[i]))
                parts.append(score_of(logits, targets[i].expand(len(part)), score))
            scores.append(torch.cat(parts).double())
    return scores


def hidden(images: Tensor, regions: Tensor, baseline: Baseline) -> Tensor:
    """The images with every superpixel gone: a constant, or the mean colour of each."""
    if baseline != "mean":
        return torch.full_like(images, baseline)
    flat, out = images.flatten(2), torch.empty_like(images)
    for i, count in enumerate(counts(regions)):
        region = regions[i].flatten()
        # a matrix product, and no scatter: that would add in any order on a GPU
        inside = (region[:, None] == torch.arange(count, device=region.device)).to(images.dtype)
        out[i] = ((flat[i] @ inside) / inside.sum(0))[:, region].view_as(out[i])
    return out


def painted(regions: Tensor, effects: Sequence[Tensor], like: Tensor) -> Tensor:
    """Raw attribution ``[B,1,H,W]``: to every pixel the effect of its superpixel."""
    maps = [effect.to(like)[region] for effect, region in zip(effects, regions, strict=True)]
    return torch.stack(maps).unsqueeze(1)
