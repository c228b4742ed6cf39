"""Only the judge says what an attack has achieved: proposals of every bad kind."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robustlab.core import judge as court
from robustlab.core.batch import Batch, make_batch
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.judge import judge, pose, propose, reexplain, verify
from robustlab.core.types import Problem
from robustlab.core.wrapping import Counted
from robustlab.explainers import build
from tests.explainers.battery import snapshot
from tests.nets import ResNetLike, VGGLike, pictures, seeded

EPSILON = 0.1
BUDGET = Budget("linf", EPSILON)
FLAT = torch.tensor([[0.0, 1], [0, 1], [3, 3], [3, 3]]).view(2, 2, 2)
GRADIENT = build("gradient", post="signed")


def brightness(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Class 1 if the four pixels sum to more than 2; confidence is a sigmoid of the surplus."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 4))
        net[1].bias.copy_(torch.tensor([2.0, -2.0]))
    return net.to(dtype).eval()


def two_images(**options: object) -> Batch:
    """One dark (class 0), one just bright enough (class 1)."""
    images = torch.stack([torch.full((1, 2, 2), 0.2), torch.full((1, 2, 2), 0.55)])
    return make_batch(images, **options)


def posed(explainer: object = GRADIENT, **options: object) -> Problem:
    return pose(brightness(), explainer, two_images(), **options)


@dataclass(frozen=True)
class Scripted:
    """An attack that does as it is told."""

    act: Callable[[Problem], Tensor]
    path: str = ""
    needs_explainer: bool = False
    success: bool = True  # what it says of itself; nobody should ask
    idle: bool = False

    def propose(self, problem: Problem, budget: Budget) -> Tensor:
        return self.act(problem)

    def gradient_path(self, explainer: object) -> str:
        return self.path

    def control(self) -> None:
        return None


def moved(by: float, image: int | None = None) -> Callable[[Problem], Tensor]:
    def act(problem: Problem) -> Tensor:
        images = problem.images.clone()
        images[slice(None) if image is None else slice(image, image + 1)] += by
        return images

    return act


# --- posing ---------------------------------------------------------------------------------


def test_a_problem_states_clean_facts():
    problem = posed(seed=7)
    assert problem.predictions.tolist() == [0, 1] == problem.targets.tolist()
    assert problem.labels.tolist() == [-1, -1] and problem.seed == 7
    assert problem.ids == ("image_0", "image_1") and problem.target_maps is None
    assert torch.equal(problem.maps, torch.tensor([[[-1.0] * 2] * 2, [[1.0] * 2] * 2]))
    assert not problem.maps.requires_grad


@pytest.mark.parametrize(
    ("target", "expected"),
    [("prediction", [0, 1]), ("current", [0, 1]), ("label", [1, 0]), (0, [0, 0]), (1, [1, 1])],
)
def test_whose_class_is_explained(target, expected):
    problem = pose(brightness(), GRADIENT, two_images(labels=[1, 0]), target=target)
    assert problem.targets.tolist() == expected and problem.targets.dtype == torch.int64
    signs = [1.0 if t else -1.0 for t in expected]
    assert problem.maps[:, 0, 0].tolist() == signs, "the map is of that class"


def test_an_automatic_layer_is_settled_when_the_problem_is_posed():
    batch = make_batch(pictures())
    problem = pose(seeded(ResNetLike), build("grad_cam"), batch)
    assert problem.explainer == build("grad_cam", layer="block2")


def test_ids_reach_the_explainer():
    net, images = seeded(VGGLike), pictures()
    explainer = build("smooth_grad", samples=2, post="signed")
    problem = pose(net, explainer, make_batch(images, ids=["x", "y", "z"]))
    raw = explainer.explain(net, images, problem.targets, ids=("x", "y", "z"))
    assert torch.equal(problem.maps, raw.sum(1))


def training(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, *brightness()).train()


@pytest.mark.parametrize(
    ("model", "options", "field", "words"),
    [
        (training(nn.BatchNorm2d(1)), {}, "model", "module '0' is in training mode; call model"),
        (training(nn.Identity(), nn.Dropout(0.1)), {}, "model", "module '1' is in training mode"),
        (training(nn.Dropout2d(0.1)), {}, "model", "training mode"),
        (training(nn.AlphaDropout(0.1)), {}, "model", "training mode"),
        (training(nn.FeatureAlphaDropout(0.1)), {}, "model", "training mode"),
        (training(nn.RReLU()), {}, "model", "training mode"),
        (Counted(training(nn.BatchNorm2d(1))), {}, "model", "training mode"),
        (brightness(), {"labels": [0, 2]}, "labels", "label 2 is out of range; .* 0..1"),
        (brightness(), {"target": "label"}, "target", "some images have none"),
        (brightness(), {"target": 2}, "target", "2 is not known; .* 0..1"),
        (brightness(), {"target": -1}, "target", "-1 is not known"),
        (brightness(), {"target": True}, "target", "True is not known"),
        (brightness(), {"target": "wrong"}, "target", "'wrong' is not known"),
        (brightness(), {"target_maps": torch.zeros(2, 3, 3)}, "target_maps", r"\(2, 2, 2\), got"),
        (nn.Flatten(0), {}, "model", "expected logits"),
    ],
)
def test_impossible_problems_are_refused(model, options, field, words):
    batch = two_images(labels=options.pop("labels", None))
    with pytest.raises(InvalidInput, match=words) as caught:
        pose(model, GRADIENT, batch, **options)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.01, 1.01])
def test_images_are_checked_even_if_the_batch_was_made_by_hand(value):
    batch = two_images()
    batch.images[1, 0, 0, 1] = value
    with pytest.raises(InvalidInput) as caught:
        pose(brightness(), GRADIENT, batch)
    assert caught.value.field == "images"


def test_training_mode_is_no_mistake_where_it_changes_nothing():
    expected = pose(brightness(), GRADIENT, two_images())
    found = pose(brightness().train(), GRADIENT, two_images())
    assert torch.equal(found.maps, expected.maps)
    frozen = training(nn.BatchNorm2d(1))
    frozen[0].eval()
    found = pose(frozen, GRADIENT, two_images())
    assert frozen.training and not frozen[0].training, "its modes are its own"
    torch.testing.assert_close(found.maps, pose(frozen.eval(), GRADIENT, two_images()).maps)


# --- verifying ------------------------------------------------------------------------------


def test_a_good_proposal():
    problem = posed()
    trial = verify(problem, BUDGET, problem.images + 0.05)
    assert trial.outcomes == ("ok", "ok")
    assert torch.equal(trial.images, problem.images + 0.05)
    torch.testing.assert_close(trial.radius, torch.tensor([0.05, 0.05]))
    assert trial.predictions.tolist() == [0, 1] and trial.prediction_kept.tolist() == [True, True]
    surplus = 2 * trial.images.flatten(1).sum(1) - 4
    expected = torch.sigmoid(surplus.abs())
    torch.testing.assert_close(trial.confidences, expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_diverged_and_is_replaced(value):
    problem = posed()
    proposal = problem.images + 0.05
    proposal[0, 0, 1, 1] = value
    trial = verify(problem, BUDGET, proposal)
    assert trial.outcomes == ("diverged", "ok"), "its neighbour is not punished"
    assert torch.equal(trial.images[0], problem.images[0])
    assert torch.equal(trial.images[1], proposal[1])
    assert trial.radius[0] == 0 and trial.prediction_kept.all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("by", [0.2, -0.3, 5.0, 1e30])
def test_what_leaves_the_ball_is_a_violation_and_is_projected(norm, by):
    problem, budget = posed(), Budget(norm, EPSILON)
    trial = verify(problem, budget, moved(by, image=1)(problem))
    assert trial.outcomes[1] == "budget_violated"
    assert trial.radius[1] == pytest.approx(EPSILON, rel=1e-5)
    assert trial.outcomes[0] == "infeasible", "the other was not moved at all"
    assert trial.images.min() >= 0 and trial.images.max() <= 1


def test_what_leaves_the_box_inside_the_ball_is_a_violation():
    images = torch.tensor([0.99, 0.01]).view(2, 1, 1, 1).expand(2, 1, 2, 2).clone()
    problem = pose(brightness(), GRADIENT, make_batch(images))
    proposal = images + torch.tensor([0.05, -0.05]).view(2, 1, 1, 1)
    trial = verify(problem, BUDGET, proposal)
    assert trial.outcomes == ("budget_violated", "budget_violated")
    assert trial.images.max() == 1 and trial.images.min() == 0
    torch.testing.assert_close(trial.radius, torch.tensor([0.01, 0.01]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("excess", [1e-7, 9e-7])
def test_rounding_is_no_violation(excess):
    problem = posed()
    trial = verify(problem, BUDGET, moved(EPSILON + excess)(problem))
    assert trial.outcomes == ("ok", "ok")
    assert (trial.radius <= EPSILON + 1e-7).all(), "it is projected all the same"


def test_the_clean_image_is_infeasible_unless_the_attack_is_meant_to_idle():
    problem = posed()
    clean = problem.images.clone()
    assert verify(problem, BUDGET, clean).outcomes == ("infeasible", "infeasible")
    assert verify(problem, BUDGET, clean, idle=True).outcomes == ("ok", "ok")
    assert verify(problem, Budget("linf", 0), clean).outcomes == ("ok", "ok")


def test_at_epsilon_zero_nothing_moves():
    problem = posed()
    trial = verify(problem, Budget("l2", 0), problem.images + 0.01)
    assert trial.outcomes == ("budget_violated", "budget_violated")
    assert torch.equal(trial.images, problem.images) and not trial.radius.any()


def test_a_changed_prediction_is_told_per_image():
    problem = posed()  # the bright image is 0.05 above the border
    trial = verify(problem, BUDGET, moved(-0.08)(problem))
    assert trial.outcomes == ("ok", "ok"), "a changed prediction is no bad outcome"
    assert trial.predictions.tolist() == [0, 0]
    assert trial.prediction_kept.tolist() == [True, False]


def test_kept_means_the_clean_prediction_not_the_label():
    problem = pose(brightness(), GRADIENT, two_images(labels=[1, 0]), target="label")
    trial = verify(problem, BUDGET, problem.images + 0.01)
    assert trial.prediction_kept.all()


def test_a_proposal_of_another_shape_is_refused():
    with pytest.raises(InvalidInput, match="expected shape") as caught:
        verify(posed(), BUDGET, torch.zeros(2, 1, 2, 3))
    assert caught.value.field == "proposal"


def test_a_proposal_of_another_dtype_is_measured_in_the_models():
    """Attacks by way of numpy come back as float64."""
    problem = posed()
    trial = verify(problem, BUDGET, problem.images.double() + 0.05)
    assert trial.images.dtype == torch.float32 and trial.outcomes == ("ok", "ok")


# --- judging --------------------------------------------------------------------------------


def test_maps_are_of_the_true_model_at_the_projected_images():
    net, batch = seeded(VGGLike), make_batch(pictures())
    explainer = build("input_x_gradient", post="signed")
    problem = pose(net, explainer, batch)
    verdict = judge(Scripted(lambda p: p.images + 5), problem, BUDGET)
    expected_images = (batch.images + EPSILON).clamp(max=1)
    torch.testing.assert_close(verdict.images, expected_images)
    raw = explainer.explain(net, expected_images, problem.targets)
    torch.testing.assert_close(verdict.maps, raw.sum(1))
    assert torch.equal(verdict.clean_maps, problem.maps)
    assert set(verdict.outcomes) == {"budget_violated"}


def test_the_explained_class_stays_unless_the_current_one_is_asked_for():
    problem = posed()
    attack = Scripted(moved(-0.08))  # changes the second prediction from 1 to 0
    assert judge(attack, problem, BUDGET).maps[:, 0, 0].tolist() == [-1.0, 1.0]
    current = judge(attack, problem, BUDGET, target="current")
    assert current.maps[:, 0, 0].tolist() == [-1.0, -1.0]
    trial = verify(problem, BUDGET, moved(-0.08)(problem))
    assert torch.equal(reexplain(problem, trial, "current"), current.maps)


def test_passes_are_counted_for_the_attack_alone():
    def act(problem: Problem) -> Tensor:
        for _ in range(3):
            problem.model(problem.images)
        problem.explainer.explain(problem.model, problem.images, problem.targets)
        return problem.images + 0.05

    verdict = judge(Scripted(act), posed(), BUDGET)
    assert (verdict.forwards, verdict.backwards) == (8, 2)


def test_a_proposals_graph_ends_at_the_judge():
    weight = torch.ones((), requires_grad=True)
    images = propose(Scripted(lambda p: p.images * weight), posed(), BUDGET).images
    assert not images.requires_grad


def test_a_gradient_attack_on_an_explainer_without_one_is_refused():
    attack = Scripted(moved(0.01), path="impossible", needs_explainer=True)
    with pytest.raises(NotDifferentiable, match="Scripted needs gradients and Gradient has none"):
        judge(attack, posed(), BUDGET)
    without = Scripted(moved(0.01), path="impossible", needs_explainer=False)
    assert judge(without, posed(), BUDGET).outcomes == ("ok", "ok")


def test_judging_leaves_the_model_alone():
    net, batch = seeded(ResNetLike), make_batch(pictures())
    before = snapshot(net, batch.images, batch.labels)
    problem = pose(net, build("lrp"), batch)
    judge(Scripted(moved(0.05)), problem, BUDGET)
    after = snapshot(net, batch.images, batch.labels)
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        assert same, key


# --- attacks that lie -----------------------------------------------------------------------


def far_away(problem: Problem) -> Tensor:
    return problem.images + 0.4


def nothing_done(problem: Problem) -> Tensor:
    return problem.images


def moves_the_goalposts(problem: Problem) -> Tensor:
    """Shifts the clean images, so that its proposal would look close to them."""
    problem.images.add_(0.3)
    return problem.images + 0.05


def rewrites_the_clean_maps(problem: Problem) -> Tensor:
    problem.maps.neg_()
    return problem.images


def forges_the_prediction(problem: Problem) -> Tensor:
    problem.predictions.fill_(0)
    return problem.images - 0.08


@pytest.mark.parametrize(
    ("lie", "outcome"), [(far_away, "budget_violated"), (nothing_done, "infeasible")]
)
def test_claiming_success_does_not_help(lie, outcome):
    verdict = judge(Scripted(lie, success=True), posed(), BUDGET)
    assert set(verdict.outcomes) == {outcome}
    assert (verdict.radius <= EPSILON + 1e-6).all()
    if outcome == "infeasible":
        assert torch.equal(verdict.maps, verdict.clean_maps), "no drift"


def test_only_an_attack_that_is_meant_to_stay_may_stay():
    idle = judge(Scripted(nothing_done, idle=True), posed(), BUDGET)
    assert idle.outcomes == ("ok", "ok") and not idle.radius.any()
    moving = judge(Scripted(far_away, idle=True), posed(), BUDGET)
    assert moving.outcomes == ("budget_violated",) * 2, "it says nothing of what it does"


@pytest.mark.parametrize(
    "lie", [moves_the_goalposts, rewrites_the_clean_maps, forges_the_prediction]
)
def test_writing_into_the_problem_does_not_help(lie):
    honest, problem = posed(), posed()
    verdict = judge(Scripted(lie), problem, BUDGET)
    assert torch.equal(problem.images, honest.images), "the clean images are still clean"
    assert torch.equal(verdict.clean_maps, honest.maps)
    assert (court.verify(honest, BUDGET, verdict.images).radius <= EPSILON + 1e-6).all()
    assert torch.equal(verdict.prediction_kept, verdict.predictions == honest.predictions)
