"""The battery over all attacks, and attacks broken on purpose that it must reject."""

from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch

from attacks import (
    ATTACKS,
    MIFGSM,
    PGD,
    CarliniWagner,
    DeepFool,
    RandomNoise,
    RandomSign,
    TargetRegion,
    TopK,
    build,
)
from attacks.explanation import worst_case
from attacks.explanation.ascent import ascend
from attacks.explanation.objectives import FillRegion
from robustlab.core.budget import Budget
from robustlab.core.randomness import generator
from robustlab.explainers import IntegratedGradients, SmoothGrad
from tests.attacks.battery import check_attack, check_budget, check_form, untouched
from tests.attacks.problems import network, posed
from tests.nets import pictures

BUDGETS = {"linf": Budget("linf", 6 / 255), "l2": Budget("l2", 0.25)}
PATCH = Budget("patch", 16 / 144)
# blind to the explanation
BLIND = ("none", "random_sign", "random_noise", "fgsm", "pgd", "mi_fgsm", "deep_fool")
SHORTEST = {"carlini_wagner": {"steps": 8, "binary_search_steps": 4, "step_size": 0.05}}
# these lead the prediction away
STEERED = {"dual": {"steps": 4}, "patch": {"steps": 3}}
PLAIN = ("mass_center", "target_region", "target_map", "map_distance")
AIMED = {"top_k": {"k": 30}} | {name: {} for name in PLAIN}
BY_QUERIES = {"black_box": {"k": 30, "queries": 6, "population": 3, "grid": 4}}
# several explainers, several images, several attacks
MANIFOLD = {
    "ensemble": {"k": 30, "steps": 3, "of": ["gradient", "grad_cam"]},
    "universal": {"k": 30, "steps": 4, "images": 2, "fit": {"name": "photos", "size": 12}},
    "worst_case": {"k": 30, "effort": "quick"},
}
# network, explainer, options: both gradient paths, and two explainers that have only one
SCENES = [
    ("plain", "gradient", {"path": "hessian_vector"}),
    ("residual", "gradient", {"path": "double_backward"}),
    ("residual", "grad_cam", {}),
    ("plain", "lrp", {}),
]


@pytest.fixture(autouse=True)
def short_efforts(monkeypatch):
    """The worst case in few steps: here it must keep promises, not be strong."""
    monkeypatch.setattr(worst_case, "EFFORT", {"quick": (2, 6, 3)})


def test_every_attack_is_in_the_battery():
    assert {*BLIND, *SHORTEST, *AIMED, *STEERED, *BY_QUERIES, *MANIFOLD} == set(ATTACKS)


def small(name):
    """The attack, quick."""
    options = {"steps": 3} | AIMED[name] if name in AIMED else BY_QUERIES.get(name, {})
    more = SHORTEST.get(name, {}) | STEERED.get(name, {}) | MANIFOLD.get(name, {})
    return build(name, **options, **more)


def budget_of(name, norm="linf"):
    return PATCH if name == "patch" else BUDGETS["l2" if name in SHORTEST else norm]


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize("name", BLIND)
def test_blind_attack_keeps_its_promises(name, net, norm):
    check_attack(build(name), posed(net), BUDGETS[norm], feasible=False)


@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize("name", SHORTEST)
def test_shortest_attack_keeps_its_promises(name, net):
    proposal = check_attack(small(name), posed(net), BUDGETS["l2"], feasible=False)
    assert not torch.equal(proposal, posed(net).images), "nothing was checked: no image moved"


@pytest.mark.parametrize(("net", "explainer", "options"), SCENES, ids=str)
@pytest.mark.parametrize(
    ("name", "budget"),
    [("dual", BUDGETS["linf"]), ("dual", BUDGETS["l2"]), ("patch", PATCH)],
    ids=str,
)
def test_steered_attack_keeps_its_promises(name, budget, net, explainer, options):
    attack, problem = build(name, **STEERED[name], **options), posed(net, explainer)
    proposal = check_attack(attack, problem, budget, feasible=False)
    assert not torch.equal(proposal, problem.images), "nothing was checked: no image moved"


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize(("net", "explainer", "options"), SCENES, ids=str)
@pytest.mark.parametrize("name", AIMED)
def test_aimed_attack_keeps_its_promises(name, net, explainer, options, norm):
    attack = build(name, steps=3, **AIMED[name], **options)
    problem = posed(net, explainer)
    proposal = check_attack(attack, problem, BUDGETS[norm])
    assert not torch.equal(proposal, problem.images), "nothing was checked: no image moved"


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("goal", ["top_k", "mass_center", "target_region", "target_map"])
def test_black_box_attack_keeps_its_promises(goal, norm):
    attack = build("black_box", goal=goal, **BY_QUERIES["black_box"])
    problem = posed("residual", "grad_cam")
    proposal = check_attack(attack, problem, BUDGETS[norm])
    assert not torch.equal(proposal, problem.images), "nothing was checked: no image moved"


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("name", MANIFOLD)
def test_manifold_attack_keeps_its_promises(name, norm):
    problem = posed("residual", "grad_cam")
    feasible = name != "universal"  # it knows nothing of the images that it is put on
    proposal = check_attack(
        build(name, **MANIFOLD[name]), problem, BUDGETS[norm], feasible=feasible
    )
    assert not torch.equal(proposal, problem.images), "nothing was checked: no image moved"


@pytest.mark.parametrize(
    ("attack", "explainer", "norm", "feasible"),
    [
        (PGD(random_start=True), "gradient", "linf", False),
        (PGD(random_start=True, against="label"), "gradient", "l2", False),
        (PGD(toward="least_likely"), "gradient", "linf", False),
        (MIFGSM(toward="runner_up"), "gradient", "l2", False),
        (DeepFool(against="label"), "gradient", "linf", False),
        (
            CarliniWagner(toward=1, steps=8, binary_search_steps=4, step_size=0.05),
            "gradient",
            "l2",
            False,
        ),
        (RandomSign(tries=4, like=TopK(k=30)), "gradient", "linf", True),
        (RandomSign(tries=4, like=TargetRegion()), "grad_cam", "l2", True),
        (TopK(k=30, steps=3, select="last"), "gradient", "linf", False),
        (TopK(k=30, steps=3, select="best_loss"), "input_x_gradient", "linf", True),
        (TopK(k=30, steps=3, random_start=True), SmoothGrad(samples=3), "l2", True),
        (
            TargetRegion(steps=3, path="double_backward", beta=10.0),
            SmoothGrad(samples=2),
            "linf",
            True,
        ),
        (TargetRegion(steps=3, optimiser="adam"), IntegratedGradients(steps=3), "linf", True),
        (
            TargetRegion(steps=3, path="double_backward", output_weight=1.0),
            IntegratedGradients(steps=3),
            "linf",
            True,
        ),
    ],
    ids=str,
)
def test_variant_keeps_its_promises(attack, explainer, norm, feasible):
    check_attack(attack, posed("plain", explainer), BUDGETS[norm], feasible=feasible)


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("name", ATTACKS)
def test_single_precision_stays_single_and_inside(name, norm):
    problem = posed(deepcopy(network("plain")).float(), images=pictures().float())
    budget = budget_of(name, norm)
    with untouched(problem):
        proposal = small(name).propose(problem, budget)
    check_form(problem, proposal)
    check_budget(problem, budget, proposal)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("name", ATTACKS)
def test_images_that_collect_gradients_leave_no_graph_behind(name):
    problem = posed("plain", images=pictures().requires_grad_())
    assert not small(name).propose(problem, budget_of(name)).requires_grad


class Broken(RandomNoise):
    """Base of the broken attacks, itself faultless: random signs drawn from the image's id."""

    def noise(self, problem):
        draws = [
            torch.rand(problem.images.shape[1:], generator=generator(0, i, "")) for i in problem.ids
        ]
        return (torch.stack(draws).double() * 2 - 1).sign()

    def step(self, problem, budget):
        return budget.project(problem.images + budget.epsilon * self.noise(problem), problem.images)

    propose = step


class LeavesBall(Broken):
    def propose(self, problem, budget):
        return self.step(problem, replace(budget, epsilon=2 * budget.epsilon))


class LeavesBox(Broken):
    def propose(self, problem, budget):
        return problem.images + budget.epsilon * self.noise(problem)


class DrawsGlobally(Broken):
    def noise(self, problem):
        return torch.rand_like(problem.images) * 2 - 1


class DrawsGloballyInSecret(DrawsGlobally):
    """Puts the generator's state back, but its result still depends on it."""

    def propose(self, problem, budget):
        with torch.random.fork_rng():
            return self.step(problem, budget)


class ThawsParameters(Broken):
    def propose(self, problem, budget):
        problem.model.requires_grad_(True)
        return self.step(problem, budget)


class FreezesForGoodAfterAnError(Broken):
    def propose(self, problem, budget):
        wanted = [p for p in problem.model.parameters() if p.requires_grad]
        problem.model.requires_grad_(False)
        problem.model(problem.images)
        for parameter in wanted:
            parameter.requires_grad_(True)
        return self.step(problem, budget)


class CollectsGradients(Broken):
    def propose(self, problem, budget):
        with torch.enable_grad():
            problem.model(problem.images).sum().backward()
        return self.step(problem, budget)


class LeavesHook(Broken):
    def propose(self, problem, budget):
        problem.model.register_forward_hook(lambda *_: None)
        return self.step(problem, budget)


class LeavesTrainingMode(Broken):
    def propose(self, problem, budget):
        problem.model.train()
        return self.step(problem, budget)


class WritesOnTheImages(Broken):
    def propose(self, problem, budget):
        proposal = self.step(problem, budget)
        problem.images.copy_(proposal)
        return proposal


class ReturnsTheImagesThemselves(Broken):
    def propose(self, problem, budget):
        return problem.images


class ChangesDtype(Broken):
    def propose(self, problem, budget):
        return self.step(problem, budget).float()


class Diverges(Broken):
    def propose(self, problem, budget):
        return self.step(problem, budget) / 0 * 0


class MovesAtZero(Broken):
    def propose(self, problem, budget):
        return self.step(problem, budget) * (1 - 1e-12)


class LooksAtItsNeighbours(Broken):
    def noise(self, problem):
        own, others = super().noise(problem), problem.images.mean(0)
        return own * (problem.images - others).sign()


class DrawsByPosition(Broken):
    def noise(self, problem):
        g = torch.Generator().manual_seed(0)
        return torch.rand(problem.images.shape, generator=g, dtype=torch.float64) * 2 - 1


@dataclass(frozen=True, kw_only=True)
class LosesPrediction(TargetRegion):
    def propose(self, problem, budget):
        return PGD().propose(problem, budget)


@dataclass(frozen=True, kw_only=True)
class DoesHarmToItself(TargetRegion):
    """Empties the region that it claims to fill."""

    def propose(self, problem, budget):
        return ascend(problem, budget, FillRegion(-self.objective(problem).region), self)


@dataclass(frozen=True, kw_only=True)
class ForgetsIds(TargetRegion):
    """Explains with other noise than the judge will."""

    def propose(self, problem, budget):
        problem.explainer.explain(problem.model, problem.images, problem.targets)
        return super().propose(problem, budget)


@dataclass(frozen=True, kw_only=True)
class SwallowsErrors(TargetRegion):
    def propose(self, problem, budget):
        try:
            return super().propose(problem, budget)
        except RuntimeError:
            return problem.images.clone()


def test_battery_accepts_what_the_broken_attacks_have_in_common():
    check_attack(Broken(), posed("plain"), BUDGETS["linf"], feasible=False)


@pytest.mark.parametrize(
    ("broken", "breach"),
    [
        (LeavesBall, "left the ball"),
        (LeavesBox, "left the box"),
        (DrawsGlobally, "random state"),
        (DrawsGloballyInSecret, "a second call differs"),
        (ThawsParameters, "requires_grad of"),
        (FreezesForGoodAfterAnError, "requires_grad of"),
        (CollectsGradients, "grad of"),
        (LeavesHook, "hooks of"),
        (LeavesTrainingMode, "mode of"),
        (WritesOnTheImages, r"problem\.images"),
        (ReturnsTheImagesThemselves, "shares memory"),
        (ChangesDtype, "dtype became"),
        (Diverges, "not finite"),
        (MovesAtZero, "moves at epsilon 0"),
        (LooksAtItsNeighbours, "mixes the batch: an image alone"),
        (DrawsByPosition, "mixes the batch"),
    ],
)
def test_battery_rejects_a_broken_attack(broken, breach):
    problem = posed(deepcopy(network("plain")))  # what they spoil must stay theirs
    with pytest.raises(AssertionError, match=breach):
        check_attack(broken(), problem, BUDGETS["linf"], feasible=False)


@pytest.mark.parametrize(
    ("broken", "breach"),
    [
        (LosesPrediction(), "changed the prediction"),
        (TargetRegion(steps=3, select="last"), "changed the prediction"),
        (DoesHarmToItself(steps=3), "worse than doing nothing"),
        (ForgetsIds(steps=3), "without the images' ids"),
        (SwallowsErrors(steps=3), "DID NOT RAISE"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_battery_rejects_a_false_claim(broken, breach):
    with pytest.raises((AssertionError, pytest.fail.Exception), match=breach):
        check_attack(broken, posed("plain"), BUDGETS["linf"])
