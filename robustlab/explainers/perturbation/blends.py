"""Scores of images seen through many masks: streamed, and differentiable without a big graph."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.score import Score, score_of
from robustlab.core.streaming import micro_batch, run_model

PER_IMAGE: Final = 2  # of the inputs below, the images and their infill; then come the weights

# (copies, images) -> how much of each pixel these copies of these images keep, [n,b or 1,1,H,W]
Keep = Callable[[range, slice], Tensor]


def chunks(images: Tensor, count: int) -> Iterator[tuple[range, slice]]:
    """Which copies of which images run together, at most a micro-batch at a time."""
    size = micro_batch(images)
    width = min(size, len(images))
    for start in range(0, len(images), width):
        where = slice(start, min(start + width, len(images)))
        together = max(1, size // (where.stop - where.start))
        for first in range(0, count, together):
            yield range(first, min(first + together, count)), where


def blended_scores(
    model: nn.Module,
    images: Tensor,
    infill: Tensor,
    targets: Tensor,
    count: int,
    keep: Keep,
    *,
    score: Score,
    create_graph: bool,
) -> Tensor:
    """s(infill + keep_j ⊙ (images − infill)) for j = 0..count−1, ``[count,B]``.

    Cost: ``count`` forward passes per image. With ``create_graph`` the result is
    differentiable in the images, the infill and the model's parameters; its backward pass
    runs every copy again, forward and backward, so that memory never holds more than one
    micro-batch of graph, whatever the number of masks (for a second derivative it does).
    """
    stream = _Stream(model, targets, count, keep, score)
    if not create_graph:
        with torch.no_grad():
            return stream.all_scores(images, infill)
    weights = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        return _Recomputed.apply(stream, images, infill, *weights)


@dataclass(frozen=True, eq=False)
class _Stream:
    model: nn.Module
    targets: Tensor
    count: int
    keep: Keep
    score: Score

    def scores(self, images: Tensor, infill: Tensor, js: range, where: slice) -> Tensor:
        """``[n,b]`` for the copies ``js`` of the images that stand at ``where`` in the batch."""
        seen = torch.lerp(infill, images, self.keep(js, where))
        logits = run_model(self.model, seen.flatten(0, 1))
        return score_of(logits, self.targets[where].repeat(len(js)), self.score).view(len(js), -1)

    def gradients(
        self,
        inputs: Sequence[Tensor],
        wanted: Sequence[int],
        cotangent: Tensor,
        js: range,
        where: slice,
        *,
        create_graph: bool,
    ) -> tuple[Tensor | None, ...]:
        """Of these copies' scores, weighted by ``cotangent``, in the ``wanted`` inputs."""
        with torch.enable_grad():
            sources = list(inputs)
            for i in range(PER_IMAGE):
                here = inputs[i][where]
                sources[i] = here if create_graph else here.detach().requires_grad_()
            scores = self.scores(sources[0], sources[1], js, where)
            if not scores.requires_grad:
                raise InvalidInput(
                    "model", "its output does not depend on the image differentiably"
                )
            return torch.autograd.grad(
                scores,
                [sources[i] for i in wanted],
                cotangent,
                create_graph=create_graph,
                allow_unused=True,
            )

    def all_scores(self, images: Tensor, infill: Tensor) -> Tensor:
        found = images.new_empty(self.count, len(images))
        for js, where in chunks(images, self.count):
            found[js.start : js.stop, where] = self.scores(images[where], infill[where], js, where)
        return found


class _Recomputed(torch.autograd.Function):
    """All scores; a backward pass runs the copies again instead of having kept their graphs."""

    @staticmethod
    def forward(
        ctx: Any, stream: _Stream, images: Tensor, infill: Tensor, *weights: Tensor
    ) -> Tensor:
        ctx.stream = stream
        ctx.save_for_backward(images, infill, *weights)
        return stream.all_scores(images, infill)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        again = torch.is_grad_enabled()  # this derivative will be differentiated, too
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        totals = [torch.zeros_like(inputs[i]) for i in wanted]
        for js, where in chunks(inputs[0], ctx.stream.count):
            part = cotangent[js.start : js.stop, where]
            found = ctx.stream.gradients(inputs, wanted, part, js, where, create_graph=again)
            for i, total, gradient in zip(wanted, totals, found, strict=True):
                if gradient is not None:
                    (total[where] if i < PER_IMAGE else total).add_(gradient)
        gradients = dict(zip(wanted, totals, strict=True))
        return None, *(gradients.get(i) for i in range(len(inputs)))
