"""Make the small weights that ship with the project: ``python -m robustlab.training.small``.

Each network is trained on the training split of mnist_5k, or of the ``data`` of its recipe with
its ``data_options``, in a few minutes on one core. On one machine the result is the same to the
last bit; elsewhere rounding may differ, hence the hash on the card.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab import data, models
from robustlab.core.batch import Batch
from robustlab.core.files import sha256
from robustlab.core.threads import one_thread
from robustlab.models.abn_cnn import AbnCnnNet
from robustlab.models.shipped import FOLDER
from robustlab.models.weight_files import save_weights

COMMAND = "python -m robustlab.training.small"
RECIPES: dict[str, dict[str, Any]] = {
    "small_cnn": {"epochs": 12, "batch_size": 50, "learning_rate": 2e-3, "seed": 0},
    "small_resnet": {"epochs": 4, "batch_size": 50, "learning_rate": 1e-2, "seed": 0},
    "se_cnn": {"epochs": 6, "batch_size": 50, "learning_rate": 1e-2, "seed": 0},
    "cbam_cnn": {"epochs": 6, "batch_size": 50, "learning_rate": 1e-2, "seed": 0},
    "abn_cnn": {"epochs": 6, "batch_size": 50, "learning_rate": 1e-2, "seed": 0},
    # Adebayo's label randomisation: right about every training image, and it has learnt nothing
    "small_cnn_random_labels": {
        "epochs": 40,
        "batch_size": 50,
        "learning_rate": 3e-3,
        "seed": 0,
        "labels": "shuffled",
    },
    # reads the patch and nothing else: half of its digits are wrong, its patches never
    "small_cnn_decoy_mnist": {
        "data": "decoy_mnist",
        "data_options": {"noise": 0.5},
        "epochs": 12,
        "batch_size": 50,
        "learning_rate": 2e-3,
        "seed": 0,
    },
    "small_vit": {"epochs": 40, "batch_size": 50, "learning_rate": 2e-3, "seed": 0, "shift": 2},
}


def train(net: nn.Module, batch: Batch, recipe: dict[str, Any]) -> None:
    """Fit ``net`` in place: Adam, one learning-rate cycle, `objective`.

    Args:
        net: takes ``[B, 1, 28, 28]``, gives logits; left in evaluation mode.
        batch: all training images.
        recipe: epochs, batch_size, learning_rate and seed (of the order of images); shift,
            in pixels, where images are moved at random.
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
            images = shifted(batch.images[rows], recipe.get("shift", 0), order)
            objective(net, images, batch.labels[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()


def objective(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy; of an attention branch network the sum over both its branches."""
    branches = net.branches(images) if isinstance(net, AbnCnnNet) else [net(images)]
    return torch.stack([F.cross_entropy(logits, labels) for logits in branches]).sum()


def shifted(images: Tensor, most: int, random: torch.Generator) -> Tensor:
    """Each image moved by up to ``most`` pixels along either axis; what moves in is black."""
    if not most:
        return images
    moves = torch.randint(2 * most + 1, (2, len(images), 1), generator=random)
    rows, columns = moves + torch.arange(images.shape[-1])
    every = torch.arange(len(images))[:, None, None]
    padded = F.pad(images, (most,) * 4)
    return padded[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(net: nn.Module, batch: Batch) -> float:
    """Share of images whose label has the largest logit."""
    hits: Tensor = net(batch.images).argmax(1) == batch.labels
    return float(hits.double().mean())


def without_leak(net: nn.Module) -> dict[str, float]:
    """Test accuracy on decoy_mnist where the patch tells a random class, and without it."""
    return {
        f"test_accuracy_leak_{leak}": accuracy(net, data.load("decoy_mnist", leak=leak).batch())
        for leak in ("random", "none")
    }


@contextmanager
def _reproducible() -> Iterator[None]:
    """One thread and deterministic algorithms inside; as before on the way out."""
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with one_thread():  # sums must not depend on the number of cores
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)


@_reproducible()
def make(name: str, folder: Path) -> dict[str, Any]:
    """Train one network, write its weights and card to ``folder``, return the card.

    Whoever calls it, the files are the same to the last byte on one machine.
    """
    recipe = RECIPES[name]
    source = recipe.get("data", "mnist_5k")
    arch = name.removesuffix("_random_labels").removesuffix(f"_{source}")
    model = models.load(arch, weights="none", seed=recipe["seed"])
    images = data.load(source, split="train", **recipe.get("data_options", {})).batch()
    if recipe.get("labels") == "shuffled":
        order = torch.Generator().manual_seed(recipe["seed"])
        images = replace(images, labels=images.labels[torch.randperm(len(images), generator=order)])
    train(model.net, images, recipe)
    path = folder / f"{name if name != arch else f'{name}_{source}'}.safetensors"
    save_weights(model.net, path)
    card = {
        "model": arch,
        "data": source,
        "train_images": len(images),
        **recipe,
        **({} if name == arch else {"train_accuracy": accuracy(model, images)}),
        "test_accuracy": accuracy(model, data.load(source, split="test").batch()),
        **(without_leak(model) if source == "decoy_mnist" else {}),
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
    for name in options.names or RECIPES:
        card = make(name, options.out)
        sys.stdout.write(f"{name}: test accuracy {card['test_accuracy']:.4f}\n")


if __name__ == "__main__":
    main()
