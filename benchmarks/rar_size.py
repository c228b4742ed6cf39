"""``python -m benchmarks.rar_size``: is RAR's regulariser more than adversarial training?

‖IG(x, x')‖₁ is never less than ℓ(x') − ℓ(x), and equals it where every pixel that moves raises
the loss, all along the line. Then the objectives of Chen et al. 2019 have nothing to add to
adversarial training. For each network of the zoo, on shipped test images and with 20 steps each:
how far PGD raises the loss and ‖IG‖₁ there; ‖IG‖₁ where a search for it leads that begins there;
and where it leads from a random start, as in training.

    python -m benchmarks.rar_size [--images 500] [--data mnist] [--epsilon 0.3] [--json FILE]
"""

import argparse
import json
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.inner import SignSearch, climb
from robustlab import data, models
from robustlab.core.threads import one_thread
from robustlab.core.untouched import frozen
from robustlab.models import zoo
from robustlab.training.examples import Examples, Reach
from robustlab.training.objectives.rar import loss_and_change

SAMPLES: Final = {"fashion_mnist": "fashion_3k", "mnist": "mnist_1k"}
POINTS: Final = 50
TOGETHER: Final = 50


def main() -> None:
    """Measure every network and print, or store, what was found."""
    arguments = _arguments()
    names = [name for name in zoo.zoo() if zoo.card(name)["data"] == arguments.data]
    with one_thread():
        results = [_measured(name, arguments) for name in names]
    print(f"{'network':<28}{'loss rises':>12}{'1-norm':>10}{'from there':>12}{'at random':>12}")
    for one in results:
        print("{name:<28}{rise:>12.3f}{there:>10.3f}{onward:>12.3f}{random:>12.3f}".format(**one))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _measured(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    model = models.load(f"zoo:{name}")
    batch = data.load(SAMPLES[arguments.data]).batch(arguments.images)
    parts = []
    with frozen(model):
        for rows in torch.arange(len(batch)).split(TOGETHER):
            ids = tuple(batch.ids[i] for i in rows)
            examples = Examples(batch.images[rows], batch.labels[rows], ids, SignSearch())
            parts.append(_of(model, examples, arguments.epsilon))
    means = torch.cat(parts, 1).mean(1).tolist()
    return {"name": name, **dict(zip(("rise", "there", "onward", "random"), means, strict=True))}


def _of(model: nn.Module, examples: Examples, epsilon: float) -> Tensor:
    """The four columns for each image, ``[4,B]``."""
    images, labels = examples.images, examples.labels
    reach = Reach(epsilon=epsilon, steps=20)

    def loss(x: Tensor) -> Tensor:
        return F.cross_entropy(model(x), labels, reduction="none")

    def size(x: Tensor, points: int = 5) -> Tensor:
        return loss_and_change(model, images, x, labels, points)[1]

    harmful = examples.worst(loss, reach)
    onward = climb(size, harmful, images, reach)
    ends = (harmful, onward, examples.worst(size, reach))
    rise = loss(harmful) - loss(images)
    return torch.stack([rise.detach(), *(size(x, POINTS).detach() for x in ends)])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--data", choices=sorted(SAMPLES), default="fashion_mnist")
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
