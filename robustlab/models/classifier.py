"""A network with its normalisation inside, so that attacks and budgets speak in pixels."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput


class Recipe(Protocol):
    """The options of one model, a frozen dataclass; ``load`` builds what they describe."""

    def load(self, name: str) -> "Classifier": ...


class Classifier(nn.Module):
    """Images ``[B, C, H, W]`` in [0, 1] to logits ``[B, classes]``.

    The network is held as it is: ``model.net`` and ``named_modules()`` reach every layer,
    and its weights and its train or eval mode are untouched.

    Args:
        net: takes normalised images, gives logits.
        mean, std: subtracted and divided by inside; one number or one per channel.
        class_names: name of each class, in the order of the logits; or just their number.
        input_size: ``(C, H, W)`` that the network was made for; None if it takes any.
        fixed_size: refuse another height or width (networks that flatten their features).
        name: for tables and reports.

    Attributes:
        classes: number of logits.
        class_names: one per class; "0", "1", ... where only the number was given.

    Raises:
        InvalidInput: ``std`` is not positive, or mean, std and ``input_size`` disagree on
            the channels, or there is no class.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        class_names: Sequence[str] | int = (),
        *,
        input_size: tuple[int, int, int] | None = None,
        fixed_size: bool = False,
        name: str = "custom",
    ) -> None:
        super().__init__()
        if isinstance(class_names, int):
            class_names = [str(i) for i in range(class_names)]
        if not class_names:
            raise InvalidInput("class_names", "empty", "give the names or the number of classes")
        self.name = name
        self.class_names = tuple(class_names)
        self.classes = len(self.class_names)
        self.input_size = input_size
        self.fixed_size = fixed_size
        # not persistent: a checkpoint holds the network's own weights and nothing else
        self.register_buffer("mean", _per_channel("mean", mean), persistent=False)
        self.register_buffer("std", _per_channel("std", std), persistent=False)
        if not bool((self.std > 0).all()):
            raise InvalidInput("std", f"must be positive, got {std}")
        self.channels = _channels(self.mean, self.std, input_size)
        self.net = net
        self.training = net.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of images ``[B, C, H, W]``.

        Shapes are checked, pixel values are not: attacks call this in a loop, and looking
        at values makes an accelerator wait. ``robustlab.core.batch.check_images`` does it.

        Raises:
            InvalidInput: wrong rank, dtype, channels or, for a fixed size, height or width;
                or the network returns something other than ``[B, classes]``.
        """
        self._check(images)
        logits = self.net((images - self.mean) / self.std)
        if not isinstance(logits, Tensor) or logits.shape != (len(images), self.classes):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            expected = f"logits [{len(images)}, {self.classes}]"
            raise InvalidInput("model", f"{self.name} returned {got}, expected {expected}")
        return logits

    def extra_repr(self) -> str:
        return f"{self.name}, classes={self.classes}, input_size={self.input_size}"

    def _check(self, images: Tensor) -> None:
        shape = tuple(images.shape)
        if images.ndim != 4:
            remedy = "add the batch: images.unsqueeze(0)" if images.ndim == 3 else ""
            raise InvalidInput("images", f"expected [B,C,H,W], got shape {shape}", remedy)
        if not images.is_floating_point():
            raise InvalidInput("images", f"expected floats in [0, 1], got {images.dtype}")
        if self.channels is not None and shape[1] != self.channels:
            problem = f"{self.name} takes {self.channels} channels, got {shape[1]} in {shape}"
            remedy = "repeat the gray one: images.expand(-1, 3, -1, -1)"
            gray_to_rgb = (shape[1], self.channels) == (1, 3)
            raise InvalidInput("images", problem, remedy if gray_to_rgb else "")
        if self.fixed_size and self.input_size is not None and shape[2:] != self.input_size[1:]:
            height, width = self.input_size[1:]
            problem = f"{self.name} takes {height}×{width} pixels, got {shape[2]}×{shape[3]}"
            raise InvalidInput("images", problem, "resize the images")


def _per_channel(field: str, value: float | Sequence[float]) -> Tensor:
    """``value`` as ``[1, C, 1, 1]``."""
    numbers = torch.as_tensor(value, dtype=torch.get_default_dtype()).reshape(1, -1, 1, 1)
    if numbers.numel() == 0 or not bool(torch.isfinite(numbers).all()):
        raise InvalidInput(field, f"expected finite numbers, got {value}")
    return numbers


def _channels(mean: Tensor, std: Tensor, input_size: tuple[int, int, int] | None) -> int | None:
    """How many channels the images must have; None if nothing says so."""
    told = {n for n in (mean.numel(), std.numel()) if n > 1}
    if input_size is not None:
        told.add(input_size[0])
    if len(told) > 1:
        problem = f"{mean.numel()} for mean, {std.numel()} for std, input_size {input_size}"
        raise InvalidInput("mean", f"channels disagree: {problem}")
    return told.pop() if told else None


def at_least(field: str, value: int, least: int) -> None:
    """Refuse a size that no network can have."""
    if value < least:
        raise InvalidInput(field, f"must be at least {least}, got {value}")
