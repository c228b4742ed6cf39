"""What an image is made for: a class, or a channel or neuron of a named layer."""

from typing import Any

from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.layers import find_module
from robustlab.core.wrapping import Wrapper

Position = tuple[int, int]


class Units(Wrapper):
    """A model that returns the channels of one of its layers in place of its logits.

    ``[B,K]`` from a layer's output ``[B,K]`` or ``[B,K,h,w]``: the mean over all places, or
    the value at ``position`` (row, column). With ``channel`` that one alone, ``[B,1]``.
    """

    def __init__(
        self, inner: nn.Module, layer: str, channel: int | None, position: Position | None
    ) -> None:
        super().__init__(inner)
        self.layer, self.channel, self.position = layer, channel, position

    def forward(self, images: Tensor) -> Tensor:
        outputs: list[Any] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            # a copy: what follows may change it in place
            outputs.append(output.clone() if isinstance(output, Tensor) else output)

        handle = find_module(self.inner, self.layer).register_forward_hook(keep)
        try:
            self.inner(images)
        finally:
            handle.remove()
        if not outputs:
            raise InvalidInput("layer", f"{self.layer!r} did not run in this model's forward pass")
        values = self._placed(outputs[-1])
        if self.channel is None:
            return values
        if self.channel >= values.shape[1]:
            raise InvalidInput(
                "channel",
                f"{self.channel} is out of range",
                f"{self.layer!r} has channels 0..{values.shape[1] - 1}",
            )
        return values[:, self.channel : self.channel + 1]

    def _placed(self, output: Any) -> Tensor:
        """``[B,K]``: the mean over all places, or the values at one of them."""
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if not isinstance(output, Tensor) or output.ndim not in (2, 4):
            raise InvalidInput(
                "layer", f"{self.layer!r} returns {got}", "name one with [B,K] or [B,K,h,w]"
            )
        if self.position is None:
            return output if output.ndim == 2 else output.mean((2, 3))
        row, column = self.position
        if output.ndim == 2 or row >= output.shape[2] or column >= output.shape[3]:
            raise InvalidInput("position", f"{self.position} is not in {self.layer!r}, {got}")
        return output[:, :, row, column]


def check_unit(layer: str | None, channel: int | None, position: Position | None) -> None:
    """Refuse what names no unit, whatever the model."""
    for field, value in (("channel", channel), ("position", position)):
        if value is not None and layer is None:
            raise InvalidInput(field, "belongs to a layer and none is named", "give layer, too")
    if channel is not None and channel < 0:
        raise InvalidInput("channel", f"must be at least 0, got {channel}")
    if position is not None and min(position) < 0:
        raise InvalidInput("position", f"must be at least 0, got {position}")


def posed(
    model: nn.Module,
    targets: Tensor,
    layer: str | None,
    channel: int | None,
    position: Position | None,
) -> tuple[nn.Module, Tensor]:
    """(the model whose output is maximised, the index of the unit in it for each image)."""
    if layer is None:
        return model, targets
    chosen = targets if channel is None else targets.new_zeros(targets.shape)
    return Units(model, layer, channel, position), chosen
