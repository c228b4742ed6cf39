"""1x1 convolutions of a few images by oneDNN.

With one thread and fewer than 16 images PyTorch does them by hand (``use_mkldnn`` in its
ATen/native/Convolution.cpp), unless they have a stride, a dilation or groups; and its comment
says that this is faster. With images in channels-last memory oneDNN is 1.4 times as fast
through a whole network of today, forwards and backwards (``python -m benchmarks.pointwise``).
A dilation means nothing to a 1x1 kernel, but changes PyTorch's mind.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS: Final = (F.conv2d, torch.conv2d)
_DEFAULTS: Final = {
    "input": None, "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1,
    "groups": 1,
}  # fmt: skip
_MANY: Final = 16
_LARGE: Final = 20480  # numbers in a single image: with fewer PyTorch goes its own way anyhow


class PointwiseByOneDNN(TorchFunctionMode):
    """While active, gives 1x1 convolutions of a few images a dilation, if oneDNN is there.

    Values and derivatives are the same but for rounding. It must be the innermost mode.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            call = _DEFAULTS | dict(zip(_DEFAULTS, args, strict=False)) | dict(kwargs)
            if _is_kept_from_onednn(call["input"], call["weight"], call["stride"], call["groups"]):
                return func(*(call | {"dilation": 2}).values())
        return func(*args, **kwargs)


def _is_kept_from_onednn(x: Tensor, weight: Tensor, stride: Any, groups: int) -> bool:
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.ndim != 4:
        return False
    pointwise = weight.shape[2:] == (1, 1) and groups == 1
    strides = stride if isinstance(stride, Sequence) else (stride,)
    few = 1 < len(x) < _MANY or (len(x) == 1 and x.numel() > _LARGE)
    return pointwise and set(strides) == {1} and few and torch.backends.mkldnn.is_available()
