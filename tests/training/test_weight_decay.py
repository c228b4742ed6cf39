"""Weight decay: which parameters it counts."""

import torch
from torch import nn

from robustlab.training import build
from tests.nets import seeded
from tests.training.problems import examples


def test_weights_count_and_biases_and_scales_do_not():
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
            nn.Linear(36, 4),
        )
    )  # fmt: skip
    with torch.no_grad():
        for part in (net[0], net[1], net[4]):
            part.bias.fill_(7.0)
    found = build("weight_decay", weight=0.25).terms(net, examples())["weights"]
    wanted = sum(float(w) ** 2 for part in (net[0], net[4]) for w in part.weight.detach().flatten())
    torch.testing.assert_close(found.item(), 0.25 * wanted)
    everything = sum(float(p.detach().square().sum()) for p in net.parameters())
    assert abs(everything - wanted) > 100


def test_frozen_weights_are_nobodys_business():
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Linear(6, 4)))
    net[1].weight.requires_grad_(False)
    found = build("weight_decay", weight=1.0).terms(net, examples())["weights"]
    torch.testing.assert_close(found, net[2].weight.square().sum())
