"""``python -m benchmarks.training``: is a training step as dear as the passes it says it needs?

For every objective: the time of one step (terms, backward pass, Adam) in steps of natural
training, beside the passes it states in those of natural training. Repeats are interleaved, so
a slow moment of the machine hits all alike; medians and their ratios are what counts.

    python -m benchmarks.training [--images 50] [--repeats 5] [--json FILE]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from attacks.inner import SignSearch
from robustlab import data, models, training
from robustlab.core.threads import one_thread
from robustlab.training.examples import Examples
from robustlab.training.objective import Shaping


def main() -> None:
    """Time every line of the table and print, or store, the ratios."""
    arguments = _arguments()
    with one_thread():
        results = _bench(arguments.images, arguments.repeats)
    print(f"{'objective':<16}{'ms':>8}{'stated':>8}{'measured':>10}")
    for one in results:
        line = "{name:<16}{ms:>8.1f}{stated:>8.1f}{measured:>10.1f}".format(**one)
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _bench(images: int, repeats: int) -> list[dict[str, object]]:
    steps = {name: _step(name, images) for name in training.TRAINING}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if repeat:  # the first warms up
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    stated = {name: training.build(name).cost().gradient for name in steps}
    return [
        {
            "name": name,
            "ms": 1e3 * medians[name],
            "stated": stated[name] / stated["natural"],
            "measured": medians[name] / medians["natural"],
        }
        for name in steps
    ]


def _step(name: str, images: int) -> Callable[[], None]:
    """One step of training small_cnn with the objective at its defaults."""
    objective = training.build(name)
    asked = objective.model_options() if isinstance(objective, Shaping) else {}
    model = models.load("small_cnn", weights="none", **asked)
    optimiser = torch.optim.Adam(model.parameters())
    batch = data.load("fashion_3k", split="train").batch(images)
    examples = Examples(batch.images, batch.labels, batch.ids, SignSearch())

    def step() -> None:
        optimiser.zero_grad()
        torch.stack([*objective.terms(model, examples).values()]).sum().backward()
        optimiser.step()

    return step


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--images", type=int, default=50, help="images of a step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
