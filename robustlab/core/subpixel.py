"""The transpose of a strided convolution into few channels, as a convolution without stride.

The library's own takes a slow road where the result has one or three channels, which is what
every gradient with respect to a picture ends in: this one is two to four times as fast there on
a CPU (``python -m benchmarks.first_layer``).
"""

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

FEW: Final = 4
"""Up to so many channels it is faster."""
LARGE: Final = 16
"""From so many taps on; with 3×3 there is nothing to gain."""


def suits(weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> bool:
    """Whether `transpose_2d` is meant for this convolution."""
    strided = len(stride) == 2 and stride[0] == stride[1] > 1
    plain = strided and groups == 1 and dilation == (1, 1)
    gains = weight.shape[1] <= FEW and weight[0, 0].numel() >= LARGE
    return plain and gains and weight.device.type == "cpu"


def transpose_2d(
    s: Tensor, weight: Tensor, stride: int, padding: tuple[int, ...], size: tuple[int, int]
) -> Tensor:
    """x̄[b,c,p] = Σ_{n,o} s[b,n,o] · w[n,c,p + padding − stride·o] for pixels p of ``size``.

    Pixels p = stride·i + a with the same phase a see the same taps, o = i + d with tap
    a + padding − stride·d: one convolution of ``s`` whose channels are (c, a), and the phases
    are interleaved afterwards (Shi et al., CVPR 2016).
    """
    taps, pads = [], []
    for axis in (0, 1):
        index, pad = _phases(weight.shape[2 + axis], stride, padding[axis])
        count = -(-size[axis] // stride)
        # output i reads s[i + first .. i + last]
        taps.append(index.to(weight.device))
        pads.append((pad[0], count + pad[1] - s.shape[2 + axis]))
    (top, bottom), (left, right) = pads
    kernel = _kernel(weight, taps[0], taps[1])
    found = F.conv2d(F.pad(s, (left, right, top, bottom)), kernel)
    return F.pixel_shuffle(found, stride)[..., : size[0], : size[1]]


@lru_cache(maxsize=64)
def _phases(length: int, stride: int, padding: int) -> tuple[Tensor, tuple[int, int]]:
    """Which tap ``[stride, D]`` each phase uses at each offset, ``length`` meaning none; and
    (−first offset, last offset).
    """
    first = -((length - 1 - padding) // stride)
    last = (stride - 1 + padding) // stride
    offsets = torch.arange(first, last + 1)
    index = torch.arange(stride)[:, None] + padding - stride * offsets
    return torch.where((index < 0) | (index >= length), length, index), (-first, last)


def _kernel(weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The weights ``[C·stride², N, D, D]`` of the convolution without stride."""
    padded = F.pad(weight, (0, 1, 0, 1))  # the tap that is none
    split = padded[:, :, rows.flatten()][..., columns.flatten()]
    split = split.unflatten(3, columns.shape).unflatten(2, rows.shape)  # [N,C,a,D,b,D]
    return split.permute(1, 2, 4, 0, 3, 5).reshape(-1, len(weight), rows.shape[1], columns.shape[1])
