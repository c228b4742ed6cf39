"""``python -m benchmarks.sensitivity``: what ``max_sensitivity`` costs, beside captum and quantus.

All explain EfficientNet-Lite0 by integrated gradients at the same copies of the photographs, so
the figures must be the same, too. quantus takes part where it is installed: ``pip install
quantus`` into an environment of its own, with robustlab beside it on PYTHONPATH. Medians of
interleaved repeats; one thread and processor time; ratios are what counts. "differs" is the
largest difference of a figure from ours.

    python -m benchmarks.sensitivity [--images 4] [--samples 4] [--steps 16] [--json FILE]
"""

import argparse
import json
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from attacks.explanation.climbing import climb_to
from benchmarks.timing import Job, timed
from robustlab import data, explainers, metrics, models
from robustlab.core.judge import pose
from robustlab.core.memory import keep_memory
from robustlab.core.randomness import uniform
from robustlab.core.streaming import fast_layout, micro_batch
from robustlab.core.threads import one_thread
from robustlab.core.types import Problem
from robustlab.core.untouched import frozen


@dataclass(frozen=True)
class Setting:
    """What is measured: our metric on our photographs, and its copies for the others."""

    problem: Problem
    metric: Any
    steps: int
    used: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, images: int, samples: int, steps: int) -> Self:
        model = models.load("efficientnet_lite0")
        explainer = explainers.build("integrated_gradients", steps=steps)
        problem = pose(model, explainer, data.load("photos").batch(images))
        options = {"compare": "raw", "clip": False, "radius": 0.02}
        return cls(problem, metrics.build("max_sensitivity", samples=samples, **options), steps)

    def noise(self) -> Tensor:
        """Of the next copy; ours are numbered."""
        problem, stream = self.problem, f"nearby/{len(self.used)}"
        self.used.append(len(self.used))
        return self.metric.radius * uniform(problem.images, problem.ids, self.metric.seed, stream)


def main() -> None:
    """Measure, print, and store where asked."""
    arguments = _arguments()
    warnings.filterwarnings("ignore")
    keep_memory()
    with one_thread():
        rows = _bench(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _bench(arguments: argparse.Namespace) -> list[dict[str, object]]:
    setting = Setting.of(arguments.images, arguments.samples, arguments.steps)
    jobs = [_ours(setting), *_captum(setting)]
    if find_spec("quantus"):
        jobs.append(_quantus(setting))
    with frozen(setting.problem.model):
        found, seconds = timed(jobs, arguments.repeats)
    count = len(setting.problem.images)
    print(f"{count} images, {arguments.samples} copies, {arguments.steps} steps")
    print(f"{'who':<26}{'s an image':>12}{'times ours':>12}{'differs':>10}")
    rows: list[dict[str, object]] = []
    for job, value, taken in zip(jobs, found, seconds, strict=True):
        each, ratio = taken / count, taken / seconds[0]
        differs = float((torch.as_tensor(value).double() - found[0]).abs().max())
        print(f"{job.who:<26}{each:>12.2f}{ratio:>12.2f}{differs:>10.1g}", flush=True)
        rows.append({"metric": job.what, "who": job.who, "seconds": each,
                     "times_ours": ratio, "differs": differs})  # fmt: skip
    return rows


def _ours(setting: Setting) -> Job:
    return Job(
        "robustlab", "max_sensitivity", lambda: setting.metric.examine(setting.problem, climb_to)
    )


def _captum(setting: Setting) -> list[Job]:
    from captum.attr import IntegratedGradients
    from captum.metrics import sensitivity_max

    problem = setting.problem
    theirs = IntegratedGradients(problem.model)

    def copies(inputs: Tensor) -> Tensor:
        """Captum hands each image out several times in a row."""
        repeated = len(inputs) // len(problem.ids)
        return inputs + torch.stack([setting.noise() for _ in range(repeated)], 1).flatten(0, 1)

    def measure(x: Tensor, size: int | None) -> Tensor:
        setting.used.clear()
        return sensitivity_max(
            lambda inputs, target: theirs.attribute(
                inputs, target=target, n_steps=setting.steps, method="riemann_right",
                internal_batch_size=size),
            x, perturb_func=copies, n_perturb_samples=setting.metric.samples, norm_ord=2,
            max_examples_per_batch=len(x), target=problem.targets)  # fmt: skip

    plain = problem.images
    return [
        Job("captum (defaults)", "sensitivity_max", lambda: measure(plain, None)),
        Job("captum (tuned)", "sensitivity_max",
            lambda: measure(fast_layout(plain), micro_batch(plain))),
    ]  # fmt: skip


def _quantus(setting: Setting) -> Job:
    """Its metric as it comes, but for raw values and our copies; captum's maps."""
    import quantus
    from captum.attr import IntegratedGradients

    problem = setting.problem
    theirs = IntegratedGradients(problem.model)

    def maps(inputs: Any, targets: Any) -> Any:
        x, y = torch.as_tensor(inputs), torch.as_tensor(targets)
        found = theirs.attribute(x, target=y, n_steps=setting.steps, method="riemann_right")
        return found.detach().numpy()

    def copy(arr: Any, **_: object) -> Any:
        return arr + setting.noise().flatten(1).numpy()

    x, y = problem.images.numpy(), problem.targets.numpy()
    clean = maps(x, y)  # ours are explained before, too
    metric = quantus.MaxSensitivity(
        nr_samples=setting.metric.samples, perturb_func=copy, abs=False, normalise=False,
        return_nan_when_prediction_changes=False, disable_warnings=True)  # fmt: skip

    def measure() -> Any:
        setting.used.clear()
        return metric(
            model=problem.model, x_batch=x, y_batch=y, a_batch=clean,
            explain_func=lambda model, inputs, targets, **_: maps(inputs, targets))  # fmt: skip

    return Job("quantus with captum", "MaxSensitivity", measure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
