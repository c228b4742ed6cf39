"""The strongest of many, and what it says against itself."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks import build
from attacks.explanation import diagnosis, worst_case
from attacks.explanation.worst_case import WorstCase
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge
from robustlab.core.streaming import logits_of
from robustlab.explainers import build as explainer
from tests.attacks.problems import maps_of, posed
from tests.nets import Quadratic, pictures, seeded

BUDGET = Budget("linf", 0.03)


@pytest.fixture(autouse=True)
def short_efforts(monkeypatch):
    """A quarter of the quick effort: which member wins is the question, not how far."""
    monkeypatch.setattr(worst_case, "EFFORT", {"quick": (4, 12, 6), "standard": (6, 16, 8)})


QUICK = {"k": 30, "effort": "quick"}
EXPLAINERS = ("gradient", "grad_cam", "lrp", "integrated_gradients", "occlusion", "lime")
SMALL = {
    "integrated_gradients": {"steps": 3},
    "occlusion": {"window": 4, "stride": 4},
    "lime": {"samples": 32, "segments": 6, "superpixels": "grid"},
}


def damage(problem, attack, images):
    """The goal's metric on the true model, −1 (unmoved) where the prediction was lost."""
    values = attack.objective(problem).value(maps_of(problem, images))
    kept = logits_of(problem.model, images).argmax(1) == problem.predictions
    return torch.where(kept, values, -1.0)


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_never_weaker_than_any_member_on_any_image(name, norm):
    problem = posed("plain", explainer(name, **SMALL.get(name, {})))
    budget = BUDGET if norm == "linf" else Budget("l2", 0.3)
    attack = build("worst_case", **QUICK)
    found = damage(problem, attack, attack.propose(problem, budget))
    members = attack.members(problem.explainer)
    assert {"black box", "random sign"} <= set(members)
    for member in members.values():
        assert (found >= damage(problem, attack, member.propose(problem, budget))).all()


def test_single_attacks_of_the_same_steps_are_not_stronger():
    problem = posed("smooth")
    attack = build("worst_case", **QUICK)
    found = damage(problem, attack, attack.propose(problem, BUDGET))
    for options in ({}, {"path": "double_backward"}, {"optimiser": "adam"}):
        single = build("top_k", k=30, steps=4, **options).propose(problem, BUDGET)
        slack = 0.1 if options else 0.0  # without options it is the plain member
        assert (found >= damage(problem, attack, single) - slack).all(), options
    assert (found > damage(problem, attack, attack.control().propose(problem, BUDGET))).all()


@pytest.mark.parametrize(
    ("name", "members"),
    [
        (
            "gradient",
            {"plain", "products", "products, restarted", "fine products", "surrogate", "adam"},
        ),
        ("grad_cam", {"plain", "surrogate", "true slope", "true slope, restarted", "adam"}),
        ("lrp", {"plain", "true slope", "true slope, restarted", "adam"}),
        ("lime", {"fine black box"}),
    ],
)
def test_members_are_those_that_the_explainer_lets(name, members):
    attack = build("worst_case")
    assert set(attack.members(explainer(name))) == members | {"black box", "random sign"}
    assert attack.gradient_path(explainer(name)) != "impossible"


def test_it_repeats_itself_and_does_not_know_its_batch():
    problem, attack = posed("plain", "grad_cam"), build("worst_case", **QUICK)
    images = attack.propose(problem, BUDGET)
    assert torch.equal(images, attack.propose(problem, BUDGET))
    part = posed("plain", "grad_cam", problem.images)
    one = slice(1, 2)
    alone = replace(
        part, images=part.images[one], targets=part.targets[one], labels=part.labels[one],
        predictions=part.predictions[one], maps=part.maps[one], ids=part.ids[one],
        raw=part.raw[one], target_maps=None,
    )  # fmt: skip
    torch.testing.assert_close(attack.propose(alone, BUDGET), images[one], rtol=0, atol=1e-9)


def test_nothing_to_spend_gives_the_image_back():
    problem = posed("plain")
    images, cautions = build("worst_case", **QUICK).propose_with_cautions(
        problem, Budget("linf", 0.0)
    )
    assert torch.equal(images, problem.images)
    assert cautions == ((), (), ())


def test_a_patch_is_not_a_ball():
    with pytest.raises(InvalidInput, match="norm linf or l2"):
        build("worst_case", **QUICK).propose(posed("plain"), Budget("patch", 0.1))


# --- what it says against itself --------------------------------------------------------------


def cautions(problem, budget=BUDGET, **options):
    found = judge(build("worst_case", **{**QUICK, **options}), problem, budget)
    return found.cautions


def test_a_map_that_cannot_move_has_no_slope_and_nothing_is_found():
    linear = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 3)))
    for texts in cautions(posed(linear)):
        assert {diagnosis.ZERO, diagnosis.NOTHING} <= set(texts)
    moving = seeded(lambda: Quadratic(432))
    with torch.no_grad():
        moving.b[1] = 100
    for texts in cautions(posed(moving)):
        assert not {diagnosis.ZERO, diagnosis.NOTHING} & set(texts)


def test_a_randomised_explainer_is_called_one():
    for name, expected in (("smooth_grad", True), ("gradient", False)):
        for texts in cautions(posed("plain", explainer(name))):
            assert (diagnosis.RANDOM in texts) is expected


def test_damage_that_goes_with_the_draws_is_called_tuned():
    """Two draws of large noise: an attack on these very draws is none on others."""
    noisy = explainer("smooth_grad", samples=2, sigma=0.5)
    steady = explainer("smooth_grad", samples=2, sigma=1e-6)
    budget = Budget("linf", 0.01)
    problem = posed("smooth", noisy)
    attack = build("worst_case", **QUICK)
    images, texts = attack.propose_with_cautions(problem, budget)
    other = replace(problem, explainer=replace(noisy, seed=1))
    objective = attack.objective(problem)
    start = objective.value(problem.maps)
    gained = objective.value(maps_of(problem, images)) - start
    again = objective.value(maps_of(other, images)) - start
    expected = (gained > 0) & (again < 0.5 * gained)
    assert [diagnosis.TUNED in t for t in texts] == expected.tolist()
    assert not any(diagnosis.TUNED in t for t in cautions(posed("smooth", steady), budget))


@dataclass(frozen=True, kw_only=True)
class Poor(WorstCase):
    """Its only member is random sign itself."""

    def members(self, explainer):
        return {"random sign": super().members(explainer)["random sign"]}


def test_random_sign_that_does_as_well_is_named():
    problem = posed("smooth")
    _, texts = Poor(**QUICK).propose_with_cautions(problem, BUDGET)
    assert all(diagnosis.RANDOM_SIGN in t for t in texts)
    assert not any(diagnosis.RANDOM_SIGN in t for t in cautions(problem))


class Steep(nn.Module):
    """Predicts by the sign of one pixel's distance from the picture: any step flips it."""

    def __init__(self, images):
        super().__init__()
        self.register_buffer("images", images)
        self.net = seeded(lambda: Quadratic(432))

    def forward(self, x):
        moved = (x.unsqueeze(1) - self.images).abs().flatten(2).amax(2).amin(1)
        flip = F.pad((moved > 1e-4).to(x) * 1e4, (0, 0)).unsqueeze(1)
        return self.net(x) * 1e-3 + torch.cat([torch.zeros_like(flip), flip], 1)


def test_lost_predictions_are_counted():
    images = pictures()
    texts = cautions(posed(Steep(images), images=images))
    assert all({diagnosis.FLIPS, diagnosis.NOTHING} <= set(t) for t in texts)
    assert not any(diagnosis.FLIPS in t for t in cautions(posed("smooth"), Budget("linf", 1e-4)))


class Wavy(nn.Module):
    """A smooth net under fast, tiny waves: the true slope is that of the waves, and products
    with probes as wide as the ball look past them.
    """

    def __init__(self):
        super().__init__()
        self.net = seeded(lambda: Quadratic(432))
        self.phase = nn.Parameter(torch.rand(432, dtype=torch.float64))
        with torch.no_grad():
            self.net.b[1] = 100

    def forward(self, x):
        waves = torch.sin(x.flatten(1) * 1e5 + 6.28 * self.phase) * 1e-7
        return self.net(x) + F.pad(waves.sum(1, keepdim=True), (1, 0))


def test_paths_that_point_different_ways_are_named():
    assert all(diagnosis.PARTING in t for t in cautions(posed(Wavy())))
    assert not any(diagnosis.PARTING in t for t in cautions(posed("smooth")))


class Corner(nn.Module):
    """Looks at a corner only."""

    def __init__(self):
        super().__init__()
        self.net = seeded(lambda: Quadratic(48))
        with torch.no_grad():
            self.net.b[1] = 100

    def forward(self, x):
        return self.net(x[:, :, :4, :4])


def test_slopes_that_are_zero_at_most_pixels_are_named():
    assert all(diagnosis.SATURATED in t for t in cautions(posed(Corner()), k=8))
    assert not any(diagnosis.SATURATED in t for t in cautions(posed("smooth")))
