"""Ghorbani's attacks against a plain loop written from the paper, and what they must achieve."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import MassCenter, TargetRegion, TopK, build
from attacks.explanation import gradients
from robustlab.core.budget import Budget
from robustlab.core.judge import judge
from robustlab.core.randomness import uniform
from robustlab.explainers import LRP, GradCAM, Gradient, InputXGradient, IntegratedGradients
from robustlab.metrics import build as metric
from tests.attacks.problems import TwoConvolutions, balanced, maps_of, network, posed
from tests.nets import pictures, seeded

BUDGET = Budget("linf", 8 / 255)
K = 25


@pytest.fixture(scope="module")
def relu_net() -> nn.Module:
    return balanced(seeded(TwoConvolutions), pictures(count=10))


def softplus_twin(net: nn.Module, beta: float) -> nn.Module:
    twin = TwoConvolutions().double().eval()
    twin.load_state_dict(net.state_dict())
    twin.activation = lambda z: F.softplus(z, beta=beta)
    return twin


# --- the paper's loop, in plain words --------------------------------------------------------


def gradient_map(net: nn.Module, x: Tensor, c: Tensor, times_input: bool) -> Tensor:
    """Σ_channels |∂f_c/∂x| or |x ⊙ ∂f_c/∂x|, in the graph of x."""
    score = net(x).gather(1, c[:, None]).sum()
    (g,) = torch.autograd.grad(score, x, create_graph=True)
    return (x * g if times_input else g).abs().sum(1)


def normalised(m: Tensor) -> Tensor:
    return m * m[0].numel() / m.sum((1, 2), keepdim=True)


def center(m: Tensor) -> Tensor:
    s = normalised(m) / m[0].numel()
    rows = torch.arange(m.shape[1], dtype=m.dtype)
    columns = torch.arange(m.shape[2], dtype=m.dtype)
    return torch.stack([(s.sum(2) * rows).sum(1), (s.sum(1) * columns).sum(1)], 1)


def top(m: Tensor) -> list[set[int]]:
    return [set(np.argsort(-row.numpy(), kind="stable")[:K]) for row in m.flatten(1)]


def dissimilarity(goal: str, clean: Tensor) -> tuple[Callable, Callable]:
    """(differentiable D of the surrogate's map, the metric of the true map), larger = worse."""
    if goal == "top_k":
        before = top(clean)
        mask = torch.stack(
            [torch.tensor([i in t for i in range(clean[0].numel())]) for t in before]
        ).view_as(clean)

        def overlap(m: Tensor) -> Tensor:
            return torch.tensor([-len(a & b) / K for a, b in zip(top(m), before, strict=True)])

        return lambda m: -(normalised(m) * mask).sum((1, 2)), overlap
    if goal == "mass_center":
        start = center(clean)
        return (
            lambda m: (center(m) - start).square().sum(1),
            lambda m: (center(m) - start).norm(dim=1),
        )
    share = lambda m: normalised(m)[:, :6, :6].sum((1, 2)) / m[0].numel()  # noqa: E731
    return share, share


def ghorbani(goal, net, surrogate, problem, start, *, step, steps, times_input=False):
    """x_p = Π(x_{p−1} + α sign ∇D); the best iterate that keeps the prediction, and the last."""
    clean, epsilon, c = problem.images, BUDGET.epsilon, problem.targets

    def true_map(x: Tensor) -> Tensor:
        return gradient_map(net, x.clone().requires_grad_(), c, times_input).detach()

    loss, measure = dissimilarity(goal, true_map(clean))
    best, worst = clean.clone(), measure(true_map(clean))

    def keep(x: Tensor) -> None:
        reached, prediction = measure(true_map(x)), net(x).argmax(1)
        for i in range(len(x)):
            if prediction[i] == problem.predictions[i] and reached[i] > worst[i]:
                best[i], worst[i] = x[i], reached[i]

    x = start
    keep(x)  # a random start is an iterate like any other
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        d = loss(gradient_map(surrogate, leaf, c, times_input)).sum()
        (g,) = torch.autograd.grad(d, leaf)
        x = x + step * g.sign()
        x = torch.min(torch.max(x, clean - epsilon), clean + epsilon).clamp(0, 1)
        keep(x)
    return best, x


ATTACKS = {"top_k": {"k": K}, "mass_center": {}, "target_region": {}}


@pytest.mark.parametrize("select", ["best_metric", "last"])
@pytest.mark.parametrize("beta", [20.0, None], ids=["softplus", "relu"])
@pytest.mark.parametrize("goal", ATTACKS)
def test_equals_the_loop_of_the_paper(relu_net, goal, beta, select):
    """With the true ReLU net the map is x ⊙ ∇f: the plain gradient would have no slope."""
    times_input = beta is None
    explainer = InputXGradient() if times_input else Gradient()
    problem = posed(relu_net, explainer, pictures(count=5))
    attack = build(
        goal, steps=6, step_size=0.01, path="double_backward", beta=beta, select=select,
        **ATTACKS[goal],
    )  # fmt: skip
    start = problem.images
    if goal == "mass_center":
        noise = uniform(start, problem.ids, problem.seed, "ascent/start")
        start = (start + BUDGET.epsilon * noise).clamp(0, 1)
    surrogate = relu_net if beta is None else softplus_twin(relu_net, beta)
    best, last = ghorbani(
        goal, relu_net, surrogate, problem, start, step=0.01, steps=6, times_input=times_input
    )
    assert not torch.equal(best, problem.images), "nothing was compared: no image moved"
    assert not torch.equal(best, last), "selection must matter here"
    expected = best if select == "best_metric" else last
    proposal = attack.propose(problem, BUDGET)
    torch.testing.assert_close(proposal, expected, rtol=0, atol=1e-12)


# --- the mass centre's flat start ------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"path": "hessian_vector"}, {"path": "double_backward", "beta": None}], ids=str
)
def test_mass_center_never_leaves_an_exact_start(relu_net, options):
    problem = posed(relu_net, "input_x_gradient", pictures(count=5))
    stuck = MassCenter(steps=4, random_start=False, select="last", **options)
    assert torch.equal(stuck.propose(problem, BUDGET), problem.images)
    free = MassCenter(steps=4, **options)
    result = judge(free, problem, BUDGET)
    assert (metric("center_shift")(result.clean_maps, result.maps) > 0.05).sum() >= 3
    assert result.prediction_kept.all()


# --- what they achieve -----------------------------------------------------------------------

WAYS = [
    ("gradient", {"path": "hessian_vector"}),
    ("gradient", {"path": "double_backward", "beta": 10.0}),
    ("input_x_gradient", {"path": "double_backward", "beta": None}),
    ("grad_cam", {}),
]


@pytest.mark.parametrize(("explainer", "options"), WAYS, ids=str)
@pytest.mark.parametrize("box", [(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)], ids=str)
def test_target_region_gathers_the_map_in_the_box(relu_net, box, explainer, options):
    problem = posed(relu_net, explainer, pictures(count=8))
    result = judge(TargetRegion(box=box, steps=8, **options), problem, BUDGET)
    rows, columns = (
        slice(int(12 * box[1]), int(12 * box[3])),
        slice(int(12 * box[0]), int(12 * box[2])),
    )

    def share(m: Tensor) -> Tensor:
        return m[:, rows, columns].sum((1, 2)) / m.sum((1, 2)).clamp(min=1e-12)

    gained = share(result.maps) - share(result.clean_maps)
    assert (gained >= 0).all()
    assert gained.mean() > 0.01
    assert result.prediction_kept.all()


@pytest.mark.parametrize(("explainer", "options"), WAYS[:3], ids=str)
@pytest.mark.parametrize("goal", ATTACKS)
def test_more_steps_of_the_same_size_are_never_worse(relu_net, goal, explainer, options):
    problem = posed(relu_net, explainer, pictures(count=4))
    values = []
    for steps in (1, 2, 4, 8):
        attack = build(goal, steps=steps, step_size=0.008, **ATTACKS[goal], **options)
        moved = maps_of(problem, attack.propose(problem, BUDGET))
        values.append(attack.objective(problem).value(moved))
    values = torch.stack([attack.objective(problem).value(problem.maps), *values])
    assert (values.diff(dim=0) >= -1e-12).all()
    assert (values[-1] > values[1]).any(), "eight steps must find more than one"


@pytest.mark.parametrize(
    ("goal", "judged_by"),
    [
        ("top_k", lambda clean, moved: -metric("top_k_intersection", k=K)(clean, moved)),
        ("mass_center", metric("center_shift")),
        ("target_region", lambda _, m: m[:, :6, :6].sum((1, 2)) / m.sum((1, 2)).clamp(min=1e-12)),
    ],
    ids=list(ATTACKS),
)
@pytest.mark.parametrize(
    ("explainer", "options"),
    [
        (Gradient(), {}),
        (Gradient(), {"path": "double_backward"}),
        (InputXGradient(), {}),
        (IntegratedGradients(steps=4), {}),
        (GradCAM(), {}),
        (LRP(), {}),
        (LRP(rule="epsilon"), {}),
    ],
    ids=str,
)
def test_beats_random_signs_of_equal_tries_and_selection(
    relu_net, goal, judged_by, explainer, options
):
    """Under default settings: an attack that does not beat chance is broken."""
    problem = posed(relu_net, explainer, pictures(count=10))
    attack = build(goal, steps=10, **ATTACKS[goal], **options)
    ours = judge(attack, problem, BUDGET)
    chance = judge(attack.control(), problem, BUDGET)
    damage = judged_by(ours.clean_maps, ours.maps).mean()
    floor = judged_by(chance.clean_maps, chance.maps).mean()
    assert damage > floor, f"{damage:.3f} against {floor:.3f}"
    clean = judged_by(ours.clean_maps, ours.clean_maps).mean()
    assert floor > clean, "the control must do something, or it is no floor"


def test_best_iterate_keeps_the_prediction_where_the_last_one_loses_it():
    problem, budget = posed("plain"), Budget("linf", 24 / 255)
    last = judge(TargetRegion(steps=10, select="last"), problem, budget)
    best = judge(TargetRegion(steps=10), problem, budget)
    assert not last.prediction_kept.all()
    assert best.prediction_kept.all()
    assert (best.radius > 0).any()


# --- settings that decide what is computed ---------------------------------------------------


def test_beta_grows_geometrically():
    attack = TopK(steps=5, beta=(10.0, 160.0))
    assert [attack.beta_at(step) for step in range(5)] == pytest.approx([10, 20, 40, 80, 160])
    assert TopK(steps=1, beta=(10.0, 100.0)).beta_at(0) == 10
    assert [TopK(steps=3, beta=7.0).beta_at(step) for step in range(3)] == [7, 7, 7]
    assert TopK(beta=None).beta_at(3) is None


def test_every_step_uses_its_own_beta(monkeypatch):
    used = []

    class Recorded(gradients.Smoothed):
        def __init__(self, inner, beta):
            used.append(beta)
            super().__init__(inner, beta)

    monkeypatch.setattr(gradients, "Smoothed", Recorded)
    attack = TopK(k=K, steps=3, path="double_backward", beta=(4.0, 36.0))
    attack.propose(posed(network("plain")), BUDGET)
    assert used == pytest.approx([4, 12, 36])


def test_steps_are_two_and_a_half_epsilon_over_steps_long():
    problem = posed("plain")
    implicit = TargetRegion(steps=5, select="last").propose(problem, BUDGET)
    explicit = TargetRegion(steps=5, step_size=2.5 * BUDGET.epsilon / 5, select="last")
    assert torch.equal(implicit, explicit.propose(problem, BUDGET))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_start_lies_in_the_ball_and_belongs_to_seed_and_image(norm):
    problem, budget = posed("plain"), Budget(norm, 0.1)
    # a step too small to matter shows the start itself
    attack = TargetRegion(steps=1, step_size=1e-9, random_start=True, select="last")
    start = attack.propose(problem, budget) - problem.images
    radius = budget.radius(start, torch.zeros_like(start))
    assert ((radius > 0.01) & (radius <= 0.1 + 1e-9)).all()
    assert not torch.allclose(start[0], start[1], atol=1e-3)
