"""The fit loop: the optimum it must find, the order it must take, the state it must keep."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.training.loop import Diverged, Schedule, fit


@dataclass
class LeastSquares:
    """Mean of (w·x − y)², whose minimum the normal equations know."""

    inputs: torch.Tensor
    wanted: torch.Tensor
    broken_from: int = 10**9
    asked: list | None = None

    def __len__(self):
        return len(self.inputs)

    def parts(self, net, rows, step):
        if self.asked is not None:
            self.asked.append(rows.tolist())
        error = (net(self.inputs[rows]) - self.wanted[rows]).square().mean()
        penalty = 0.5 * error  # two parts, whose sum counts
        self.broken_from -= 1
        return {"error": 0.5 * error / (self.broken_from > 0), "rest": penalty}


def problem(**changes):
    g = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 3, generator=g, dtype=torch.float64)
    wanted = inputs @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + 0.1
    wanted += 0.2 * torch.randn(40, 1, generator=g, dtype=torch.float64)
    return LeastSquares(inputs, wanted, **changes)


def net():
    torch.manual_seed(3)
    return nn.Linear(3, 1).double()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


SCHEDULE = Schedule(epochs=4, batch_size=16, learning_rate=0.05)


def test_it_finds_the_least_squares_solution():
    objective, model = problem(), net()
    fit(model, objective, Schedule(epochs=600, batch_size=40, learning_rate=0.1, decay="cosine"))
    design = torch.cat([objective.inputs, torch.ones(40, 1).double()], 1)
    solution = torch.linalg.lstsq(design, objective.wanted).solution.flatten()
    torch.testing.assert_close(weights(model), solution, atol=1e-6, rtol=0)


def test_one_step_is_adams():
    """The first step moves each weight by the learning rate, against its slope."""
    objective, model = problem(), net()
    before = weights(model)
    loss = (model(objective.inputs) - objective.wanted).square().mean()
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])
    fit(model, objective, Schedule(epochs=1, batch_size=40, learning_rate=0.01))
    torch.testing.assert_close(weights(model), before - 0.01 * slope.sign(), atol=1e-7, rtol=0)


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own():
    seen = []
    objective = problem(asked=seen)
    fit(net(), objective, SCHEDULE)
    epochs = [[row for rows in seen[i : i + 3] for row in rows] for i in range(0, len(seen), 3)]
    assert len(epochs) == 4
    assert all(sorted(rows) == list(range(40)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 4
    again = []
    fit(net(), problem(asked=again), SCHEDULE)
    assert again == seen
    other = []
    fit(net(), problem(asked=other), replace(SCHEDULE, seed=1))
    assert other != seen


def test_history_is_the_mean_over_images():
    model, objective = net(), problem()
    (means,) = fit(model, objective, replace(SCHEDULE, epochs=1, learning_rate=0.0))
    loss = (net()(objective.inputs) - objective.wanted).square().mean()
    assert means["error"] + means["rest"] == pytest.approx(loss.item())
    assert torch.equal(weights(model), weights(net()))


@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_a_killed_training_reaches_the_same_weights(tmp_path, decay):
    schedule = replace(SCHEDULE, decay=decay)
    whole = net()
    history = fit(whole, problem(), schedule)
    killed, path = net(), tmp_path / "deep" / "state.safetensors"
    with pytest.raises(Diverged):  # as good as a kill: in the third epoch of four
        fit(killed, problem(broken_from=8), schedule, state=path)
    resumed, steps = net(), []
    again = fit(resumed, problem(), schedule, state=path, watch=lambda p: steps.append(p.step))
    assert torch.equal(weights(resumed), weights(whole))
    assert again == history
    assert steps == list(range(7, 13))
    assert fit(net(), problem(), schedule, state=path) == history  # nothing left to do


def test_a_loss_that_is_no_number_takes_no_step():
    model = net()
    with pytest.raises(Diverged, match=r"error is inf at step 1; a smaller learning_rate"):
        fit(model, problem(broken_from=1), SCHEDULE)
    assert torch.equal(weights(model), weights(net()))


def test_mode_and_progress():
    model, modes, told = nn.Sequential(net(), nn.Dropout(0.5)), [], []

    class Watching(LeastSquares):
        def parts(self, net, rows, step):
            modes.append(net.training)
            return super().parts(net, rows, step)

    data = problem()
    for mode in ("eval", "train"):
        fit(model, Watching(data.inputs, data.wanted), replace(SCHEDULE, epochs=1, mode=mode),
            watch=told.append)  # fmt: skip
        assert not model.training
    assert modes == [False] * 3 + [True] * 3
    assert [(p.step, p.steps) for p in told] == [(1, 3), (2, 3), (3, 3)] * 2


def test_another_networks_state_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    fit(net(), problem(), replace(SCHEDULE, epochs=1), state=path)
    with pytest.raises(InvalidInput, match=r"state\.safetensors.*another network"):
        fit(nn.Sequential(net()), problem(), SCHEDULE, state=path)
    path.write_bytes(b"no tensors")
    with pytest.raises(InvalidInput, match=r"no training state.*remove it"):
        fit(net(), problem(), SCHEDULE, state=path)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"epochs": 0}, "epochs"), ({"batch_size": 0}, "batch_size"),
     ({"learning_rate": -1.0}, "learning_rate")],
)  # fmt: skip
def test_impossible_schedules_are_refused(options, field):
    with pytest.raises(InvalidInput, match=field):
        Schedule(**options)
