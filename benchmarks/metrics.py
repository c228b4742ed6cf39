"""``python -m benchmarks.metrics``: what the metrics of two maps cost, per map.

Beside ours SciPy and scikit-image do the same work where they have it, one map after the other,
and quantus where it is installed: ``pip install quantus`` into an environment of its own, with
robustlab beside it on PYTHONPATH (the two want different versions of OpenCV and numpy). Medians
of interleaved repeats; one thread and processor time; ratios are what counts. "differs" is the
largest difference of a figure from ours; quantus' SSIM is another one, with flat windows.

    python -m benchmarks.metrics [--maps 512] [--size 224] [--repeats 5] [--json FILE]
        [--kinds plain relu 8bit] [--types float32 float64] [--metrics spearman kendall]
"""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import Job, timed
from robustlab.core.memory import keep_memory
from robustlab.core.threads import one_thread
from robustlab.metrics import METRICS, build

PAIRWISE = [name for name, cls in METRICS.items() if "__call__" in vars(cls)]
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda m: m,
    "relu": lambda m: m.clamp(min=0),  # half of it zero
    "8bit": lambda m: ((m - m.min()) / (m.max() - m.min()) * 255).round(),
}


def main() -> None:
    """Measure, print, and store where asked."""
    arguments = _arguments()
    warnings.filterwarnings("ignore")
    keep_memory()
    results = []
    with one_thread():
        for kind in arguments.kinds:
            for dtype in arguments.types:
                results += _bench(kind, dtype, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _bench(kind: str, dtype: str, arguments: argparse.Namespace) -> list[dict[str, object]]:
    count, size = arguments.maps, arguments.size
    print(f"\n{kind}, {dtype}: {count} pairs of maps {size}x{size}")
    print(f"{'metric':<22}{'who':<26}{'ms a map':>10}{'times ours':>12}{'differs':>10}")
    a, b = pair(kind, dtype, count, size)
    rows: list[dict[str, object]] = []
    for name in arguments.metrics:
        jobs = [*_ours(name, a, b), *_peers(name, a.numpy(), b.numpy())]
        found, seconds = timed(jobs, arguments.repeats)
        for job, value, taken in zip(jobs, found, seconds, strict=True):
            each, ratio = 1e3 * taken / count, taken / seconds[0]
            differs = float(np.abs(np.asarray(value) - np.asarray(found[0])).max())
            print(f"{name:<22}{job.who:<26}{each:>10.2f}{ratio:>12.2f}{differs:>10.1g}", flush=True)
            rows.append({"kind": kind, "type": dtype, "metric": name, "who": job.who,
                         "ms": each, "times_ours": ratio, "differs": differs})  # fmt: skip
    return rows


def pair(kind: str, dtype: str, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Clean maps and disturbed ones, as far apart as they are different from nothing."""
    shape, g = (count, size, size), torch.Generator().manual_seed(0)
    exact = torch.float64 if dtype == "float64" else torch.float32
    a = torch.randn(shape, generator=g, dtype=exact)
    b = a + torch.randn(shape, generator=g, dtype=exact)
    return KINDS[kind](a), KINDS[kind](b)


def _ours(name: str, a: Tensor, b: Tensor) -> list[Job]:
    options: dict[str, Any] = {"scale": "none"} if name == "mse" else {}
    if "k" in METRICS[name].__dataclass_fields__:
        options = {"k": min(1000, a[0].numel())}
    metric: Any = build(name, **options)
    jobs = [Job("robustlab", name, lambda: metric(a, b))]
    if hasattr(metric, "against"):
        known = metric.against(a)
        jobs.append(Job("robustlab, ranked before", name, lambda: known(b)))
    return jobs


def _peers(name: str, a: Any, b: Any) -> list[Job]:
    from scipy import ndimage, stats
    from scipy.spatial import distance
    from skimage import metrics

    def ssim(x: Any, y: Any) -> float:
        x, y = ((m - m.min()) / (m.max() - m.min()) for m in (x, y))
        return metrics.structural_similarity(
            x, y, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )

    def shift(x: Any, y: Any) -> float:
        return np.linalg.norm(np.subtract(*(ndimage.center_of_mass(np.abs(m)) for m in (x, y))))

    one_by_one: dict[str, tuple[str, Callable[[Any, Any], float]]] = {
        "spearman": ("scipy", lambda x, y: stats.spearmanr(x.ravel(), y.ravel())[0]),
        "kendall": ("scipy", lambda x, y: stats.kendalltau(x.ravel(), y.ravel())[0]),
        "pearson": ("scipy", lambda x, y: stats.pearsonr(x.ravel(), y.ravel())[0]),
        "cosine": ("scipy", lambda x, y: 1 - distance.cosine(x.ravel(), y.ravel())),
        "mse": ("scikit-image", metrics.mean_squared_error),
        "ssim": ("scikit-image", ssim),
        "center_shift": ("scipy", shift),
    }
    jobs = []
    if name in one_by_one:
        who, work = one_by_one[name]
        jobs.append(Job(who, name, lambda: [work(x, y) for x, y in zip(a, b, strict=True)]))
    return jobs + _quantus(name, a, b)


def _quantus(name: str, a: Any, b: Any) -> list[Job]:
    """Its functions of similarity, as its MPRT, RandomLogit and Consistency call them."""
    try:
        from quantus.functions import similarity_func
    except ImportError:
        return []
    known = {
        "spearman": similarity_func.correlation_spearman,
        "kendall": similarity_func.correlation_kendall_tau,
        "pearson": similarity_func.correlation_pearson,
        "ssim": similarity_func.ssim,
    }
    if name not in known:
        return []
    work = known[name]
    if name != "ssim":
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return [Job("quantus", name, lambda: [work(x, y) for x, y in zip(a, b, strict=True)])]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=int, default=512)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["plain"])
    parser.add_argument("--types", nargs="+", choices=("float32", "float64"), default=["float32"])
    parser.add_argument("--metrics", nargs="+", choices=PAIRWISE, default=PAIRWISE)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
