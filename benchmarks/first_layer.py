"""``python -m benchmarks.first_layer``: the way back through the convolution that sees the picture.

PyTorch's own transpose of a strided convolution against `robustlab.core.subpixel`, in one run,
interleaved; medians of processor time on one thread, channels-last.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from robustlab.core.memory import keep_memory
from robustlab.core.streaming import fast_layout, micro_batch
from robustlab.core.subpixel import suits, transpose_2d
from robustlab.core.threads import one_thread

# channels in, channels out, kernel, padding, side of the image; stride 2
LAYERS = ((1, 16, 4, 1, 28), (3, 64, 7, 3, 224), (3, 32, 3, 1, 224))
REPEATS = 9


def main() -> None:
    """Time all layers and print the table."""
    keep_memory()
    print(f"{'layer':<22}{'PyTorch ms':>12}{'here ms':>10}{'ratio':>8}  taken")
    for layer in LAYERS:
        with one_thread():
            theirs, ours, taken = _timed(*layer)
        name = "{} -> {}, {}x{k} on {}".format(*layer[:3], layer[4], k=layer[2])
        print(f"{name:<22}{theirs:>12.1f}{ours:>10.1f}{theirs / ours:>8.1f}  {taken}")


def _timed(inputs: int, outputs: int, kernel: int, padding: int, side: int) -> tuple[float, ...]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
    images = torch.randn(1, inputs, side, side, generator=generator)
    images = fast_layout(images.expand(micro_batch(images), -1, -1, -1))
    s = torch.randn_like(F.conv2d(images, weight, None, 2, padding))

    def native() -> Tensor:
        return torch.ops.aten.convolution_backward(
            s, images, weight, None, [2, 2], [padding] * 2, [1, 1], False, [0, 0], 1,
            [True, False, False],
        )[0]  # fmt: skip

    def here() -> Tensor:
        return transpose_2d(s, weight, 2, (padding, padding), (side, side))

    times: dict[Callable[[], Tensor], list[float]] = {native: [], here: []}
    for repeat in range(REPEATS + 1):
        for work, taken in times.items():
            started = time.process_time()
            work()
            if repeat:  # the first warms up
                taken.append(1e3 * (time.process_time() - started))
    theirs, ours = (statistics.median(taken) for taken in times.values())
    return theirs, ours, suits(weight, (2, 2), (1, 1), 1)


if __name__ == "__main__":
    main()
