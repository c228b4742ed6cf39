"""Tiny networks in float64 and inner attacks with a known answer, for the objectives' tests."""

import torch
from torch import nn

from robustlab.training.examples import Examples
from tests.nets import seeded

SHAPE = (2, 2, 3)
PIXELS = 12
CLASSES = 4


def dense(activation=nn.ReLU, hidden=9, seed=0):
    """Two matrices with an activation in between, on images of 2×2×3; batch-norm-free."""
    return seeded(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(PIXELS, hidden), activation(), nn.Linear(hidden, CLASSES)
        ),
        seed,
    )


def smooth(seed=0):
    return dense(lambda: nn.Softplus(beta=3), seed=seed)


def linear(classes=2, seed=0):
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, classes)), seed)


def lively(net, factor=3.0):
    """The same with larger weights: fresh ones leave every class about as likely."""
    with torch.no_grad():
        for weight in net.parameters():
            weight *= factor
    return net


def images(count=3, seed=1):
    """Away from the walls of the pixel box by more than any radius used here."""
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)


def nearby(x, epsilon=0.2, seed=2):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype) * 2 - 1
    return x + epsilon * noise


class Told:
    """A search that was told what it finds, and remembers what it was asked."""

    def __init__(self, found):
        self.found = found
        self.asked = []

    def __call__(self, gain, images, reach, *, ids, seed, step):
        self.asked.append((gain, reach))
        return self.found


def examples(count=3, found=None, search=None, classes=CLASSES, step=0):
    """Examples whose inner attack finds ``found``, somewhere near by default."""
    x = images(count)
    found = nearby(x) if found is None else found
    return Examples(
        images=x,
        labels=torch.arange(count) % classes,
        ids=tuple(f"image {i}" for i in range(count)),
        search=Told(found) if search is None else search,
        step=step,
    )


def cross_entropy(net, x, labels):
    """By the definition, one image at a time."""
    each = [
        -torch.log(torch.softmax(net(v[None])[0], 0)[y]) for v, y in zip(x, labels, strict=True)
    ]
    return torch.stack(each)


def total(terms):
    return sum(terms.values())
