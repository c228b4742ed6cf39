"""``make bench``: is an explainer as fast as the passes it says it needs?

For every explainer and for one attack step by each gradient path: measured time divided by
(stated passes × a bare pass). A bare gradient pass is one forward and one backward of a
micro-batch, channels-last, parameters frozen: the best that PyTorch does by itself. Captum, at its
defaults and tuned (small ``internal_batch_size``, channels-last), and Zennit do the same work
in the same run. All timings are medians of interleaved repeats, so a slow moment of the
machine hits all alike; ratios are what counts.

    python -m benchmarks.passes [--images 8] [--repeats 5] [--threads N] [--json FILE]
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from attacks.explanation.fragility import TopK
from attacks.explanation.gradients import by_double_backward, by_products
from robustlab import data, explainers, models
from robustlab.core.judge import pose
from robustlab.core.streaming import fast_layout, micro_batch
from robustlab.core.torchvision_ops import import_torchvision
from robustlab.core.types import Problem
from robustlab.core.untouched import frozen

SUITE: tuple[tuple[str, dict[str, object]], ...] = (
    ("gradient", {}),
    ("input_x_gradient", {}),
    ("guided_backprop", {}),
    ("integrated_gradients", {"steps": 16}),
    ("smooth_grad", {"samples": 16}),
    ("grad_cam", {}),
    ("lrp", {"rule": "epsilon"}),
    ("lrp", {"composite": "epsilon_plus"}),
    ("lrp", {"composite": "epsilon_alpha2_beta1"}),
)


@dataclass(frozen=True)
class Job:
    """Something to time, and how many forward and backward passes of the batch it states."""

    who: str
    what: str
    forward: float
    backward: float
    run: Callable[[], object]


def main() -> None:
    """Bench both networks and print, or store, the ratios."""
    arguments = _arguments()
    warnings.filterwarnings("ignore")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    results = []
    for name in ("efficientnet_lite0", "torchvision:resnet18"):
        results += _bench(name, arguments.images, arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _bench(name: str, count: int, repeats: int) -> list[dict[str, object]]:
    model = models.load(name, **({} if name == "efficientnet_lite0" else {"weights": "none"}))
    batch = data.load("photos").batch(count)
    problem = pose(model, explainers.build("gradient"), batch)
    jobs = [*_bare(model, problem), *_ours(model, problem), *_attack_steps(model, problem)]
    jobs += [*_captum(model, problem), *_zennit(model, problem)]
    times: dict[int, list[float]] = {i: [] for i in range(len(jobs))}
    with frozen(model):
        for repeat in range(repeats + 1):
            for i, job in enumerate(jobs):
                started = time.perf_counter()
                job.run()
                if repeat:  # the first round warms up
                    times[i].append(time.perf_counter() - started)
    medians = [statistics.median(times[i]) for i in range(len(jobs))]
    forward, gradient = medians[0], medians[1]
    backward = gradient - forward
    print(f"\n{name}: {len(batch)} images, {torch.get_num_threads()} thread(s); a bare forward "
          f"takes {1000 * forward / len(batch):.0f} ms per image, a gradient pass "
          f"{1000 * gradient / len(batch):.0f} ms")  # fmt: skip
    print(f"{'who':22}{'what':38}{'stated':>12}{'gradient passes':>17}{'time / stated':>15}")
    rows: list[dict[str, object]] = []
    for job, seconds in zip(jobs[2:], medians[2:], strict=True):
        stated = job.forward * forward + job.backward * backward
        passes, ratio = seconds / gradient, seconds / stated
        print(f"{job.who:22}{job.what:38}{job.forward:>5g}f {job.backward:>4g}b"
              f"{passes:>17.2f}{ratio:>15.2f}")  # fmt: skip
        rows.append({"model": name, "who": job.who, "what": job.what, "gradient_passes": passes,
                     "time_over_stated": ratio, "seconds": seconds})  # fmt: skip
    return rows


def _bare(model: nn.Module, problem: Problem) -> list[Job]:
    """The yardstick: plain passes in micro-batches, as tight as PyTorch allows."""
    size = micro_batch(problem.images)
    parts = [fast_layout(p) for p in problem.images.split(size)]
    targets = problem.targets.split(size)

    def forward() -> None:
        with torch.no_grad():
            for part in parts:
                model(part)

    def gradient() -> None:
        for part, labels in zip(parts, targets, strict=True):
            leaf = part.detach().requires_grad_()
            torch.autograd.grad(model(leaf).gather(1, labels[:, None]).sum(), leaf)

    return [Job("bare", "forward", 1, 0, forward), Job("bare", "gradient pass", 1, 1, gradient)]


def _ours(model: nn.Module, problem: Problem) -> list[Job]:
    jobs = []
    for name, options in SUITE:
        explainer = explainers.build(name, **options)
        if name == "grad_cam":
            explainer = explainer.resolved(model, problem.images)  # type: ignore[attr-defined]
        cost = explainer.cost()
        jobs.append(
            Job("robustlab", _title(name, options), cost.forward, cost.backward,
                lambda e=explainer: e.explain(model, problem.images, problem.targets))  # type: ignore[misc]
        )  # fmt: skip
    return jobs


def _attack_steps(model: nn.Module, problem: Problem) -> list[Job]:
    """The gradient of one top-k step on the gradient map, by each path.

    hessian_vector: two gradient passes beside the map itself, which the step has anyway.
    double_backward: through softplus, stated as the forward, the backward with its graph and
    the backward through both, five passes of a forward's size in all.
    """
    objective = TopK(k=1000).objective(problem)
    raw = problem.explainer.explain(model, problem.images, problem.targets)
    return [
        Job("robustlab attack step", "hessian_vector", 2, 2,
            lambda: by_products(problem, problem.images, raw, objective, 0.5 / 255)),
        Job("robustlab attack step", "double_backward", 2, 3,
            lambda: by_double_backward(problem, problem.images, objective, 30.0)),
    ]  # fmt: skip


def _captum(model: nn.Module, problem: Problem) -> list[Job]:
    from captum.attr import (
        GuidedBackprop,
        InputXGradient,
        IntegratedGradients,
        LayerGradCam,
        NoiseTunnel,
        Saliency,
    )

    images, targets = problem.images, problem.targets
    fast = fast_layout(images)
    layer = explainers.build("grad_cam").resolved(model, images).layer  # type: ignore[attr-defined]
    ig, smooth = IntegratedGradients(model), NoiseTunnel(Saliency(model))
    size = micro_batch(images)

    def leaf(x: Tensor) -> Tensor:
        return x.detach().requires_grad_()

    jobs = [
        ("gradient", 1, lambda x: Saliency(model).attribute(leaf(x), target=targets, abs=False)),
        ("input_x_gradient", 1, lambda x: InputXGradient(model).attribute(leaf(x), target=targets)),
        ("guided_backprop", 1, lambda x: GuidedBackprop(model).attribute(leaf(x), target=targets)),
        ("grad_cam", 1, lambda x: LayerGradCam(model, model.get_submodule(layer)).attribute(
            x, target=targets)),
    ]  # fmt: skip
    tuned = [
        ("integrated_gradients steps=16", 16, lambda x: ig.attribute(
            x, target=targets, n_steps=16, method="riemann_right", internal_batch_size=size)),
        ("smooth_grad samples=16", 16, lambda x: smooth.attribute(
            x, nt_type="smoothgrad", nt_samples=16, nt_samples_batch_size=max(1, size // len(x)),
            stdevs=0.15, target=targets, abs=False)),
    ]  # fmt: skip
    defaults = [
        ("integrated_gradients steps=16", 16, lambda x: ig.attribute(
            x, target=targets, n_steps=16, method="riemann_right")),
        ("smooth_grad samples=16", 16, lambda x: smooth.attribute(
            x, nt_type="smoothgrad", nt_samples=16, stdevs=0.15, target=targets, abs=False)),
    ]  # fmt: skip

    def job(who: str, entry: tuple[str, int, Callable[[Tensor], object]], x: Tensor) -> Job:
        what, passes, run = entry
        return Job(who, what, passes, passes, lambda: run(x))

    return [job("captum (defaults)", e, images) for e in (*jobs, *defaults)] + [
        job("captum (tuned)", e, fast) for e in (*jobs, *tuned)
    ]


def _zennit(model: nn.Module, problem: Problem) -> list[Job]:
    import_torchvision()  # zennit imports torchvision at once
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import EpsilonAlpha2Beta1, EpsilonPlus
    from zennit.torchvision import ResNetCanonizer

    targets = problem.targets

    def one_hot(logits: Tensor) -> Tensor:
        hot = torch.zeros_like(logits).scatter_(1, targets[:, None], 1)
        return hot * logits.detach()

    def run(composite: type, x: Tensor) -> Callable[[], object]:
        def relevance() -> object:
            canonizers = [ResNetCanonizer(), SequentialMergeBatchNorm()]
            if any("ResNet" in type(m).__name__ for m in model.modules()):
                canonizers = canonizers[:1]
            with Gradient(model, composite=composite(canonizers=canonizers)) as attributor:
                return attributor(x.detach().requires_grad_(), one_hot)

        return relevance

    composites = (
        ("lrp epsilon_plus", EpsilonPlus, 2),
        ("lrp epsilon_alpha2_beta1", EpsilonAlpha2Beta1, 3),
    )
    layouts = (
        ("zennit", problem.images),
        ("zennit (tuned)", fast_layout(problem.images)),
    )
    return [
        Job(who, what, stated, stated, run(composite, images))
        for who, images in layouts
        for what, composite, stated in composites
    ]


def _title(name: str, options: dict[str, object]) -> str:
    shown = " ".join(f"{k}={v}" if isinstance(v, int) else str(v) for k, v in options.items())
    return f"{name} {shown}".strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
