"""A small run of metrics beside the drift, for the tests of two kinds of them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import attacks
import robustlab as rl
from robustlab.lab.run import run_experiment
from robustlab.records import RunRecord, Store
from tests.lab import tiny

TOP_K = {"k": 50, "steps": 2}


def run(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> Path:
    """Three digits, two explainers, and an attack on one of them whose images are saved."""
    spec = tiny.spec(
        images=3, chunk=2, explainers=["gradient", "grad_cam"], metrics=metrics,
        attacks=["none", {"name": "top_k", "against": "gradient", **TOP_K}],
        saving=["png"], gallery={"images": 1},
    )  # fmt: skip
    assert run_experiment(spec, folder, workers=1).crashed == ()
    return folder


def records_of(folder: Path) -> list[RunRecord]:
    found, problems = Store(folder).load_all()
    assert not problems
    return found


def text_of(html: str) -> str:
    """What a reader sees of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def images_of(record: RunRecord, model: nn.Module, batch: rl.Batch) -> Tensor:
    """The pictures of a cell, disturbed again by the front door where it is the attack's."""
    if record.cell.role != "attack":
        return batch.images
    attack, budget = attacks.build("top_k", **TOP_K), rl.Budget("linf", 0.1)
    return rl.attack(model, rl.explainers.build("gradient"), attack, batch, budget).images


def attacked() -> rl.AttackResult:
    """What a notebook has after an attack on the prediction of one digit."""
    model, batch = rl.models.load("small_cnn"), rl.data.load("mnist_5k").batch(1)
    return rl.attack(
        model, rl.explainers.build("gradient"), attacks.build("pgd", steps=1), batch,
        rl.Budget("linf", 0.1),
    )  # fmt: skip
