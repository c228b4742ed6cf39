"""``python -m benchmarks.sensitivity``: what ``max_sensitivity`` costs, beside captum and quantus.

All explain EfficientNet-Lite0 by integrated gradients at the same copies of the photographs, so
the figures must be the same, too. quantus takes part where it is installed: ``pip install
quantus`` into an environment of its own, with robustlab beside it on PYTHONPATH. Each works in a
process of its own, as it comes: their batches of hundreds of images are fetched from the system
page by page, in every pass, which is part of what they cost. ``--keep-memory`` tells the C library
of all of them not to give memory back, as the command ``robustlab`` does for itself. Medians of
interleaved repeats; one thread and processor time, the system's included; ratios are what counts.
"differs" is the largest difference of a figure from ours.

    python -m benchmarks.sensitivity [--images 4] [--samples 2] [--steps 16] [--keep-memory]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor

from attacks.explanation.climbing import climb_to
from robustlab import data, explainers, metrics, models
from robustlab.core.judge import pose
from robustlab.core.memory import keep_memory
from robustlab.core.randomness import uniform
from robustlab.core.streaming import fast_layout, micro_batch
from robustlab.core.threads import one_thread
from robustlab.core.types import Problem
from robustlab.core.untouched import frozen

Run = Callable[[], Any]
MEASURED: Final = ("seconds", "system_seconds", "peak_gib")


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
    """Measure, print, and store where asked; with ``--only`` one of them, in this process."""
    arguments = _arguments()
    if arguments.only is not None:
        print(json.dumps(_measured(arguments)))
        return
    rows = _bench(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _bench(arguments: argparse.Namespace) -> list[dict[str, object]]:
    whos = [who for who in CONTENDERS if who != QUANTUS or find_spec("quantus")]
    rounds: dict[str, list[dict[str, Any]]] = {who: [] for who in whos}
    for number in range(arguments.repeats):
        print(f"round {number + 1} of {arguments.repeats}", file=sys.stderr, flush=True)
        for who in whos:
            rounds[who].append(_in_its_own_process(who))
    ours = rounds[OURS]
    rows: list[dict[str, object]] = []
    for who, runs in rounds.items():
        row = {name: statistics.median(run[name] for run in runs) for name in MEASURED}
        row["times_ours"] = row["seconds"] / statistics.median(run["seconds"] for run in ours)
        found, reference = (torch.tensor(r[0]["found"]) for r in (runs, ours))
        rows.append({"who": who, **row, "differs": float((found - reference).abs().max())})
    _print(arguments, rows)
    return rows


def _print(arguments: argparse.Namespace, rows: Sequence[Mapping[str, object]]) -> None:
    print(f"{arguments.images} images, {arguments.samples} copies, {arguments.steps} steps")
    print(f"{'who':<22}{'s an image':>12}{'in the system':>15}{'peak GiB':>10}"
          f"{'times ours':>12}{'differs':>10}")  # fmt: skip
    for row in rows:
        print("{who:<22}{seconds:>12.2f}{system_seconds:>15.2f}{peak_gib:>10.1f}"
              "{times_ours:>12.2f}{differs:>10.1g}".format(**row))  # fmt: skip


def _in_its_own_process(who: str) -> dict[str, Any]:
    """What `_measured` says there, with the arguments of this one."""
    command = [sys.executable, "-m", "benchmarks.sensitivity", *sys.argv[1:], "--only", who]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Figures, seconds an image and memory of one of them; a first round warms up."""
    warnings.filterwarnings("ignore")
    if arguments.keep_memory:
        keep_memory()
    with one_thread():
        setting = Setting.of(arguments.images, arguments.samples, arguments.steps)
        run = CONTENDERS[arguments.only](setting)
        with frozen(setting.problem.model):
            run()
            before = resource.getrusage(resource.RUSAGE_SELF)
            found = run()
            after = resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {
        "found": torch.as_tensor(found).double().tolist(),
        "seconds": (user + system) / arguments.images,
        "system_seconds": system / arguments.images,
        "peak_gib": after.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20),
    }


def _ours(setting: Setting) -> Run:
    return lambda: setting.metric.examine(setting.problem, climb_to)


def _captum(setting: Setting, tuned: bool = False) -> Run:
    from captum.attr import IntegratedGradients
    from captum.metrics import sensitivity_max

    problem = setting.problem
    theirs = IntegratedGradients(problem.model)
    x = fast_layout(problem.images) if tuned else problem.images
    size = micro_batch(x) if tuned else None

    def copies(inputs: Tensor) -> Tensor:
        """Captum hands each image out several times in a row."""
        repeated = len(inputs) // len(problem.ids)
        return inputs + torch.stack([setting.noise() for _ in range(repeated)], 1).flatten(0, 1)

    def measure() -> Tensor:
        setting.used.clear()
        return sensitivity_max(
            lambda inputs, target: theirs.attribute(
                inputs, target=target, n_steps=setting.steps, method="riemann_right",
                internal_batch_size=size),
            x, perturb_func=copies, n_perturb_samples=setting.metric.samples, norm_ord=2,
            max_examples_per_batch=len(x), target=problem.targets)  # fmt: skip

    return measure


def _quantus(setting: Setting) -> Run:
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

    return measure


OURS, QUANTUS = "robustlab", "quantus with captum"
CONTENDERS: Final[Mapping[str, Callable[[Setting], Run]]] = {
    OURS: _ours,
    "captum (defaults)": _captum,
    "captum (tuned)": partial(_captum, tuned=True),
    QUANTUS: _quantus,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
