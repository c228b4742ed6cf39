"""Which layers there are, in which order, and what redrawing does to them."""

import torch
from torch import Tensor, nn

from robustlab.models.randomised import layers_from_the_output, redraw
from robustlab.models.seeding import seeded
from tests.nets import pictures


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.between = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.between(self.shared(x.mean((2, 3)))))


def test_a_shared_layer_counts_where_it_runs_last():
    net = Twice().double()
    assert layers_from_the_output(net, pictures(1)) == [net.shared, net.between]
    assert not any(m._forward_hooks for m in net.modules())


def test_redrawing_draws_layer_after_layer_from_one_generator():
    net, twin = Twice(), Twice()
    with seeded(4):
        redraw([net.shared, net.between], "fresh")
    with seeded(4):
        twin.shared.reset_parameters()
        twin.between.reset_parameters()
    for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    before = [p.detach().clone() for p in net.parameters()]
    with seeded(4):
        redraw([net.between], "shuffled")
    after = list(net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(after[:2], before[:2], strict=True))
    assert not torch.equal(after[2], before[2])
    assert torch.equal(after[2].flatten().sort().values, before[2].flatten().sort().values)
