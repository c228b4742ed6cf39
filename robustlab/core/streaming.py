"""The second engine: many passes through one model, in micro-batches.

Integrated gradients, SmoothGrad, RISE, occlusion, Score-CAM, LIME, SHAP and the sampling
metrics are all "evaluate many altered copies of each image, then reduce". This engine runs
the copies in micro-batches that stay in cache, so memory does not grow with their number.
It owns what makes passes fast: channels-last memory, the size of a micro-batch, no graph
where no gradient is wanted. Measure it with ``make bench``.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from typing import Final, ParamSpec, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import Interposition, Phase
from robustlab.core.linear import cheap_first_order, cheap_second_order
from robustlab.core.pointwise import quick_pointwise
from robustlab.core.score import Score, check_targets, score_of
from robustlab.core.wrapping import Wrapper

P = ParamSpec("P")
T = TypeVar("T")
# (logits, targets) -> what the backward pass starts with, [B, classes]
Start = Callable[[Tensor, Tensor], Tensor]

# 8 images of 224², 512 digits of 28²: beyond this, activations leave the cache of a core.
PIXELS_PER_MICRO_BATCH: Final = 8 * 224 * 224


def micro_batch(images: Tensor) -> int:
    """How many images of this size run together."""
    return max(1, min(512, PIXELS_PER_MICRO_BATCH // (images.shape[-1] * images.shape[-2])))


def fast_layout(images: Tensor) -> Tensor:
    """A copy in channels-last memory (2-4 times faster through a CNN on a CPU).

    Always a copy: a model that edits its input in place must not edit the caller's images.
    """
    return images.clone(memory_format=torch.channels_last) if images.ndim == 4 else images.clone()


class NeedsPlainMemory(Exception):
    """The model has just shown that it cannot take channels-last memory: call it again."""


_PLAIN_MEMORY: WeakSet[nn.Module] = WeakSet()


def _run_once(model: nn.Module, images: Tensor) -> Tensor:
    """`run_model`, but for the first time with a model that flattens features by ``view``.

    Raises:
        NeedsPlainMemory: once per such model; the second call goes through.
    """
    core = model
    while isinstance(core, Wrapper):
        core = core.inner
    with quick_pointwise(images):
        if core in _PLAIN_MEMORY:
            return model(images.clone(memory_format=torch.contiguous_format))
        try:
            return model(fast_layout(images))
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            _PLAIN_MEMORY.add(core)
            raise NeedsPlainMemory from error


def again(run: Callable[P, T]) -> Callable[P, T]:
    """``run``, and once more if the model turned out to need plain memory."""

    @wraps(run)
    def twice(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return run(*args, **kwargs)
        except NeedsPlainMemory:
            return run(*args, **kwargs)

    return twice


@again
def run_model(model: nn.Module, images: Tensor) -> Tensor:
    """The model's output, its images (a copy) in the fastest memory layout that it accepts."""
    return _run_once(model, images)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Logits ``[B, classes]`` in micro-batches, without a graph."""
    size = micro_batch(images)
    with torch.no_grad():
        parts = [run_model(model, part) for part in images.detach().split(size)]
    logits = torch.cat(parts)
    if logits.ndim != 2:
        raise InvalidInput("model", f"expected logits [B, classes], got {tuple(logits.shape)}")
    return logits


def input_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    score: Score = "logit",
    create_graph: bool = False,
    mode: Interposition | None = None,
    phase: Phase | None = None,
    start: Start | None = None,
) -> Tensor:
    """∂score/∂images ``[B,C,H,W]`` for one micro-batch: the pass everything is made of.

    ``mode`` is active during the forward, ``phase`` during the backward pass, which turns
    the gradient into a guided gradient or a relevance. The backward pass starts with the
    score's own gradient, or with what ``start(logits, targets)`` puts on the logits. With
    ``create_graph`` the result is differentiable in ``images`` and the model's parameters.
    """

    def run() -> Tensor:
        return _gradient(model, images, targets, score, create_graph, mode, phase, start)

    # a mode has seen half a pass by then: whoever made it has to make another
    return again(run)() if mode is None else run()


def _gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    score: Score,
    create_graph: bool,
    mode: Interposition | None,
    phase: Phase | None,
    start: Start | None,
) -> Tensor:
    with torch.enable_grad():
        if not (create_graph and images.requires_grad):
            images = images.detach().requires_grad_()
        logits = _forward(model, images, create_graph, mode)
        if start is None:
            output = score_of(logits, targets, score)
            first = torch.ones_like(output)
        else:
            check_targets(targets, logits)
            output, first = logits, start(logits, targets)
        if not output.requires_grad:
            raise InvalidInput("model", "its output does not depend on the image differentiably")
        with phase or Phase():
            (gradient,) = torch.autograd.grad(output, images, first, create_graph=create_graph)
    return gradient


def explained_logit(logits: Tensor, targets: Tensor) -> Tensor:
    """A start ``[B, classes]``: the target's own logit, nothing elsewhere."""
    index = targets.unsqueeze(1)
    return torch.zeros_like(logits).scatter(1, index, logits.gather(1, index))


def _forward(
    model: nn.Module, images: Tensor, create_graph: bool, mode: Interposition | None
) -> Tensor:
    """The model under cheap derivatives (outside) and the explainer's rules (inside)."""
    modes = [cheap_second_order() if create_graph else cheap_first_order()]
    modes += [] if mode is None else [mode]
    with ExitStack() as stack:
        for active in modes:
            stack.enter_context(active)
        logits = _run_once(model, images)
        for active in modes:
            logits = active.current(logits)
    return logits


def each_micro_batch(
    images: Tensor, targets: Tensor, run: Callable[[Tensor, Tensor, slice], Tensor]
) -> Tensor:
    """``run`` on consecutive slices of the batch, results joined again."""
    run = again(run)
    size = micro_batch(images)
    if len(images) <= size:
        return run(images, targets, slice(0, len(images)))
    slices = [slice(i, min(i + size, len(images))) for i in range(0, len(images), size)]
    return torch.cat([run(images[s], targets[s], s) for s in slices])


def copies(
    images: Tensor, count: int, alter: Callable[[Tensor, int, slice], Tensor]
) -> Iterator[tuple[range, slice, Tensor]]:
    """Altered copies of a batch, in micro-batches of at most `micro_batch` images.

    ``alter(part, j, where)`` makes copy ``j`` of the images ``part = images[where]``. Yields
    ``(js, where, stack)`` with ``stack`` of shape ``[len(js) · len(part), C, H, W]``,
    copy-major. Copies of one image come in ascending order, so that sums over them do not
    depend on the batch they are computed in, beyond the rounding inside a pass.
    """
    size = micro_batch(images)
    width = min(size, len(images))
    for start in range(0, len(images), width):
        where = slice(start, min(start + width, len(images)))
        part = images[where]
        together = max(1, size // len(part))
        for first in range(0, count, together):
            js = range(first, min(first + together, count))
            yield js, where, torch.cat([alter(part, j, where) for j in js])


def sum_of_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    count: int,
    alter: Callable[[Tensor, int, slice], Tensor],
    weight: Callable[[int], float],
    *,
    score: Score = "logit",
    create_graph: bool = False,
) -> Tensor:
    """Σ_j weight(j) · ∇score(alter(images, j)) ``[B,C,H,W]``, gradients taken at the copies.

    Cost: ``count`` gradient passes per image. Memory: one micro-batch, unless
    ``create_graph`` keeps all graphs (then as much as all copies at once).
    """
    sums: dict[int, Tensor] = {}
    for js, where, stack in copies(images, count, alter):
        repeated = targets[where].repeat(len(js))
        gradients = input_gradient(model, stack, repeated, score=score, create_graph=create_graph)
        gradients = gradients.view(len(js), -1, *images.shape[1:])
        for j, gradient in zip(js, gradients, strict=True):
            weighted = gradient * weight(j)
            sums[where.start] = sums[where.start] + weighted if where.start in sums else weighted
    return torch.cat([sums[start] for start in sorted(sums)])


def hessian_vector(
    model: nn.Module,
    points: Tensor,
    targets: Tensor,
    vectors: Tensor,
    *,
    step: float,
    score: Score = "logit",
) -> tuple[Tensor, Tensor]:
    """(H(points) · vectors, gradient) by central differences: two gradient passes per point.

    With H = ∇² score and g = ∇ score, H·v ≈ (g(z + hv) − g(z − hv)) / 2h, with h chosen per
    image so that the probe's largest pixel change is ``step``. On ReLU nets, where the exact
    H is zero almost everywhere, this is the curvature felt over that distance: no smooth
    surrogate is needed. The mean of the two probes, g(z) up to O(h²), comes for free.

    The product with zero is exactly zero, whatever the two probes were rounded to: on some
    processors that depends on the place in the batch.
    """
    largest = vectors.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    h = step / largest.clamp(min=1e-30)
    probes = torch.cat([points + h * vectors, points - h * vectors])

    def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
        return input_gradient(model, part, labels, score=score)

    plus, minus = each_micro_batch(probes, targets.repeat(2), run).chunk(2)
    product = torch.where(largest > 0, (plus - minus) / (2 * h), 0.0)
    return product, (plus + minus) / 2
