"""Make the generator that ships: ``python -m robustlab.training.generator``.

A variational autoencoder (Kingma & Welling 2014) on the training split of mnist_5k, of which
only the decoder is kept: about five minutes on one core. On one machine the result is the same to
the last bit; elsewhere rounding may differ, hence the hash on the card.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab import data
from robustlab.core.errors import InvalidInput
from robustlab.core.files import sha256
from robustlab.core.threads import one_thread
from robustlab.models.generator import GeneratorNet
from robustlab.models.seeding import seeded
from robustlab.models.shipped import FOLDER
from robustlab.models.weight_files import save_weights

COMMAND: Final = "python -m robustlab.training.generator"
RECIPE: Final[dict[str, Any]] = {
    "code": 16,
    "epochs": 100,
    "batch_size": 50,
    "learning_rate": 2e-3,
    "seed": 0,
}


class Autoencoder(nn.Module):
    """Images to the mean and log variance of their codes (encoder), and back (generator)."""

    def __init__(self, code: int, channels: int, size: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 32, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (size // 4) ** 2, 2 * code),
        )
        self.generator = GeneratorNet(code, channels, size)

    def loss(self, images: Tensor, noise: Tensor) -> Tensor:
        """Minus the evidence lower bound, in nats per image; ``noise`` is standard normal."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        logits = self.generator.logits(mean + noise * (log_variance / 2).exp())
        unlikely = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        apart = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        return (unlikely + apart) / len(images)

    @torch.inference_mode()
    def reconstruction_error(self, images: Tensor) -> float:
        """Mean squared error per pixel of images that went through their mean codes."""
        codes = self.encoder(images).chunk(2, 1)[0]
        return float((self.generator(codes) - images).square().mean())


def train(net: Autoencoder, images: Tensor, recipe: dict[str, Any]) -> None:
    """Fit ``net`` in place: Adam, one learning-rate cycle."""
    size, rate = recipe["batch_size"], recipe["learning_rate"]
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    steps = recipe["epochs"] * -(-len(images) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    random = torch.Generator().manual_seed(recipe["seed"])
    for _ in range(recipe["epochs"]):
        for rows in torch.randperm(len(images), generator=random).split(size):
            optimizer.zero_grad()
            noise = torch.randn((len(rows), recipe["code"]), generator=random)
            net.loss(images[rows], noise).backward()
            optimizer.step()
            schedule.step()


@one_thread()  # sums must not depend on the number of cores
def make(name: str, folder: Path) -> dict[str, Any]:
    """Train on data set ``name``, write the generator and its card, return the card.

    Raises:
        InvalidInput: the data set cannot be loaded by its name, or its images are not square
            with a side that is a multiple of 4.
    """
    images, unseen = (_images(name, split) for split in ("train", "test"))
    channels, height, width = images.shape[1:]
    if height != width or height % 4:
        shape = f"its images are {channels}×{height}×{width}"
        raise InvalidInput("data", shape, "the side of a square image must be a multiple of 4")
    with seeded(RECIPE["seed"]):
        net = Autoencoder(RECIPE["code"], channels, height)
    train(net, images, RECIPE)
    path = folder / f"generator_{name}.safetensors"
    save_weights(net.generator, path)
    card = {
        "model": "generator",
        "data": name,
        "train_images": len(images),
        **RECIPE,
        "train_error": net.reconstruction_error(images),
        "test_error": net.reconstruction_error(unseen),
        "error_of_the_mean_image": float((unseen - images.mean(0)).square().mean()),
        "parameters": sum(p.numel() for p in net.generator.parameters()),
        "torch": str(torch.__version__),
        "command": f"{COMMAND} --data {name}",
        "sha256": sha256(path),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def _images(name: str, split: str) -> Tensor:
    return data.load(name, split=split).batch().images


def main(arguments: list[str] | None = None) -> None:
    """Make a generator of the named data set, mnist_5k by default."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Make the shipped generator.")
    parser.add_argument("--data", default="mnist_5k", help="a data set with a train and test split")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    card = make(options.data, options.out)
    sys.stdout.write(
        f"reconstruction error {card['test_error']:.4f} per pixel on unseen images"
        f" (the mean image: {card['error_of_the_mean_image']:.4f})\n"
    )


if __name__ == "__main__":
    main()
