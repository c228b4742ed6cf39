"""DGN-AM: the image that a unit likes best among those that a generator can make."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post
from robustlab.core.score import Score
from robustlab.core.streaming import each_micro_batch
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.activation.ascent import Rule, ascend, check_ascent
from robustlab.explainers.activation.maximization import start_of
from robustlab.explainers.activation.units import Position, check_unit, posed
from robustlab.models.generator import GeneratorNet, load_generator


@dataclass(frozen=True, kw_only=True)
class DGNAM:
    """Activation maximisation through a deep generator network: x = G(z), z climbs
    s(G(z)) − λ₂ Σ z².

    s is as for activation maximisation: the score of the target class, or with ``layer`` a
    ``channel`` of it (the targets, where none is named), averaged or at ``position``. The
    start is Gaussian noise of standard deviation ``noise``, by ``seed`` and the image's id.
    ``steps``, ``rate`` and ``rule`` as there, in units of the code. Nothing clips the code:
    for a Gaussian prior the L2 term is its log density up to a factor.

    ``generator`` is *mnist*, which ships, or a .safetensors file of the same architecture
    (``python -m robustlab.training.generator --data NAME --out FOLDER``). The paper's G
    inverts the features of layer fc6 of a CaffeNet on ImageNet, trained with an image, a
    feature and an adversarial loss; ours is the decoder of a variational autoencoder on
    4,000 digits with 16 numbers for a code, so its images are smoother than real ones and no
    feature of a classifier has shaped them. The paper divides the pixels' and the code's
    gradient by their mean size one after the other; we follow the code's own gradient.

    Global: of the given images only shape, number, dtype and device count. What is returned
    is the images that were made, in (0, 1). Raw shape ``[B,C,H,W]``. Not differentiable: the
    pixels of the given images play no role, and the result is where an ascent stands.
    Cost: ``steps`` forward and backward passes of the model, and as many of the generator.
    Source: Nguyen et al. 2016.

    Raises:
        InvalidInput: no such generator, or it makes images of another shape; no such layer,
            channel or position.
    """

    about: ClassVar[About] = About(
        family="activation",
        year=2016,
        source="Nguyen et al. 2016, Synthesizing the preferred inputs for neurons in neural"
        " networks via deep generator networks",
        scope="global",
        needs="a generator of such images",
    )
    differentiable: ClassVar[Differentiable] = "none"
    generator: str = "mnist"
    steps: int = 128
    rate: float = 0.05
    rule: Rule = "normalised"
    l2: float = 1.0
    noise: float = 1.0
    layer: str | None = None
    channel: int | None = None
    position: Position | None = None
    seed: int = 0
    score: Score = "logit"
    post: Post = "signed"

    def __post_init__(self) -> None:
        check_ascent(self.steps, self.rate, l2=self.l2, noise=self.noise)
        check_unit(self.layer, self.channel, self.position)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        make = self._fitting(images)
        seen, units = posed(model, targets, self.layer, self.channel, self.position)

        def run(part: Tensor, labels: Tensor, where: slice) -> Tensor:
            names = None if ids is None else ids[where]
            code = part.new_empty((len(part), *make.code_shape))
            with torch.no_grad():
                found = ascend(
                    seen,
                    start_of(code, 0.0, self.noise, names, self.seed),
                    labels,
                    lambda _: partial(self._play, make),
                    steps=self.steps,
                    rate=self.rate,
                    rule=self.rule,
                    score=self.score,
                    box=False,
                )
                return make(found)

        return each_micro_batch(images.detach(), units, run)

    def _play(self, make: GeneratorNet, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the model sees, the weight of its score, and minus the price of the code."""
        return make(codes), codes.new_ones(len(codes)), -self.l2 * codes.square().sum()

    def _fitting(self, images: Tensor) -> GeneratorNet:
        """The generator, where the images are."""
        make = load_generator(self.generator)
        if make.image_shape != images.shape[1:]:
            has, needed = ("×".join(map(str, i)) for i in (make.image_shape, images.shape[1:]))
            raise InvalidInput(
                "generator",
                f"{self.generator!r} makes images of {has}, the model is given {needed}",
                "activation_maximization needs no generator and works with any model",
            )
        return make.to(images).requires_grad_(False)

    def cost(self) -> Passes:
        return Passes(self.steps, self.steps)
