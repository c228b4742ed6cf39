"""A model with the rules of a walk, for relevance that is read at a layer inside."""

from torch import Tensor, nn

from robustlab.core.interposition import Interposition, route
from robustlab.core.wrapping import Wrapper
from robustlab.explainers.relevance.walk import RelevanceWalk


class Walked(Wrapper):
    """The model, leaving the rules of a walk behind for the backward pass."""

    def __init__(self, inner: nn.Module, walk: RelevanceWalk) -> None:
        super().__init__(inner)
        self.walk = walk

    def forward(self, images: Tensor) -> Tensor:
        if not images.requires_grad:
            images = images.detach().requires_grad_()
        images = route(self.walk.phase, images, lambda r: (r,))  # an image, whatever made it
        with Interposition(self.walk.handlers()) as mode:
            return mode.current(self.inner(images))
