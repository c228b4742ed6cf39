"""``python -m benchmarks.pointwise``: what oneDNN's 1x1 convolutions bring to whole networks.

A forward and a gradient pass as the lab runs them, and the same without
`robustlab.core.pointwise`, of one to sixteen images, in one run, interleaved; medians of
processor time on one thread. With ``--plain-memory`` as for a model that cannot take
channels-last images.

    python -m benchmarks.pointwise [--models efficientnet_lite0 ...] [--plain-memory]
"""

import argparse
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.timing import Job, timed
from robustlab import models
from robustlab.core import streaming
from robustlab.core.memory import keep_memory
from robustlab.core.streaming import input_gradient, run_model
from robustlab.core.threads import one_thread
from robustlab.core.untouched import frozen

MODELS: Final = ("efficientnet_lite0", "torchvision:mobilenet_v2", "torchvision:resnet50")
COUNTS: Final = (1, 2, 4, 8, 16)


def main() -> None:
    """Time all networks and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain-memory", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    keep_memory()
    print(f"{'model':<28}{'images':>7}{'pass':>10}{'without ms':>12}{'with ms':>10}{'ratio':>8}")
    for name in arguments.models:
        model = models.load(name, **({"weights": "none"} if ":" in name else {}))
        if arguments.plain_memory:
            streaming._PLAIN_MEMORY.add(model)
        with one_thread(), frozen(model):
            for count in COUNTS:
                _print(name, model, count, arguments.repeats)


def _print(name: str, model: nn.Module, count: int, repeats: int) -> None:
    images = torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(count)

    def forward() -> Tensor:
        with torch.no_grad():
            return run_model(model, images)

    def gradient() -> Tensor:
        return input_gradient(model, images, targets)

    for kind, run in (("forward", forward), ("gradient", gradient)):
        jobs = [Job("without", kind, _without(run)), Job("with", kind, run)]
        _, (without, with_) = timed(jobs, repeats)
        print(f"{name:<28}{count:>7}{kind:>10}{1e3 * without / count:>12.1f}"
              f"{1e3 * with_ / count:>10.1f}{without / with_:>8.2f}", flush=True)  # fmt: skip


def _without(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def plain() -> Tensor:
        with mock.patch.object(streaming, "quick_pointwise", nullcontext):
            return run()

    return plain


if __name__ == "__main__":
    main()
