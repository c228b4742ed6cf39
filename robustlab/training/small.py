"""Make the small weights that ship with the project: ``python -m robustlab.training.small``.

Each network is trained on mnist_5k's training split in under a minute on one core. On one
machine the result is the same to the last bit; elsewhere rounding may differ, hence the
hash on the card.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab import data, models
from robustlab.core.batch import Batch
from robustlab.models.shipped import FOLDER, sha256
from robustlab.models.weight_files import save_weights

COMMAND = "python -m robustlab.training.small"
RECIPES: dict[str, dict[str, Any]] = {
    "small_cnn": {"epochs": 12, "batch_size": 50, "learning_rate": 2e-3, "seed": 0},
    "small_resnet": {"epochs": 4, "batch_size": 50, "learning_rate": 1e-2, "seed": 0},
}


def train(net: nn.Module, batch: Batch, recipe: dict[str, Any]) -> None:
    """Fit ``net`` in place: Adam, one learning-rate cycle, cross entropy.

    Args:
        net: takes ``[B, 1, 28, 28]``, gives logits; left in evaluation mode.
        batch: all training images.
        recipe: epochs, batch_size, learning_rate and seed (of the order of images).
    """
    count, size, rate = len(batch), recipe["batch_size"], recipe["learning_rate"]
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    steps = recipe["epochs"] * -(-count // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    order = torch.Generator().manual_seed(recipe["seed"])
    net.train()
    for _ in range(recipe["epochs"]):
        for rows in torch.randperm(count, generator=order).split(size):
            optimizer.zero_grad()
            F.cross_entropy(net(batch.images[rows]), batch.labels[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()


@torch.inference_mode()
def accuracy(net: nn.Module, batch: Batch) -> float:
    """Share of images whose label has the largest logit."""
    hits: Tensor = net(batch.images).argmax(1) == batch.labels
    return float(hits.double().mean())


def make(name: str, folder: Path) -> dict[str, Any]:
    """Train one network, write its weights and card to ``folder``, return the card."""
    recipe = RECIPES[name]
    model = models.load(name, weights="none", seed=recipe["seed"])
    images = data.load("mnist_5k", split="train").batch()
    train(model, images, recipe)
    path = folder / f"{name}_mnist_5k.safetensors"
    save_weights(model.net, path)
    card = {
        "model": name,
        "data": "mnist_5k",
        "train_images": len(images),
        **recipe,
        "test_accuracy": accuracy(model, data.load("mnist_5k", split="test").batch()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": str(torch.__version__),
        "command": f"{COMMAND} {name}",
        "sha256": sha256(path),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def main(arguments: list[str] | None = None) -> None:
    """Make the named networks, all of them by default."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Make the shipped small weights.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in RECIPES]
    if unknown:
        parser.error(f"unknown {unknown[0]!r}, known: {', '.join(RECIPES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums must not depend on the number of cores
    torch.use_deterministic_algorithms(True)
    for name in options.names or RECIPES:
        card = make(name, options.out)
        sys.stdout.write(f"{name}: test accuracy {card['test_accuracy']:.4f}\n")


if __name__ == "__main__":
    main()
