"""1x1 convolutions of a few images by oneDNN.

With one thread and fewer than 16 images PyTorch does them by hand (``use_mkldnn`` in its
ATen/native/Convolution.cpp), unless they have a stride, a dilation or groups; and its comment
says that this is faster. oneDNN is up to 1.4 times as fast through a whole network of today,
forwards and backwards, in either layout of memory (``python -m benchmarks.pointwise``).
A dilation means nothing to a 1x1 kernel, but changes PyTorch's mind.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from robustlab.core.interposition import OPERATIONS

_CONVOLUTIONS: Final = (F.conv2d, torch.conv2d)
_NAMES: Final = OPERATIONS[F.conv2d][1]
_MANY: Final = 16
_LARGE: Final = 20480  # numbers in a single image: with fewer PyTorch goes its own way anyhow


def quick_pointwise(images: Tensor) -> AbstractContextManager[object]:
    """The mode, where it can do something for so many images: it costs 4 % of a pass."""
    helps = images.dtype == torch.float32 and images.device.type == "cpu" and len(images) < _MANY
    return PointwiseByOneDNN() if helps else nullcontext()


class PointwiseByOneDNN(TorchFunctionMode):
    """While active, gives 1x1 convolutions of a few images a dilation, if oneDNN is there.

    Values and derivatives are the same but for rounding. It is no `Interposition`, which runs
    what is done in place out of place: a forward pass has no need of that.
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
            call = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
            if _is_kept_from_onednn(call):
                return func(**{**call, "dilation": 2})
        return func(*args, **kwargs)


def _is_kept_from_onednn(call: Mapping[str, Any]) -> bool:
    x: Tensor = call["input"]
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.ndim != 4:
        return False
    pointwise = call["weight"].shape[2:] == (1, 1) and call.get("groups", 1) == 1
    stride = call.get("stride", 1)
    strides = stride if isinstance(stride, Sequence) else (stride,)
    few = 1 < len(x) < _MANY or (len(x) == 1 and x.numel() > _LARGE)
    return pointwise and set(strides) == {1} and few and torch.backends.mkldnn.is_available()
