"""The searches that metrics are handed: their slopes, what they keep, and what they never do."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from attacks.explanation.climbing import LEGS, Highest, check_search, climb_to
from attacks.explanation.gradients import by_double_backward_of, by_products_of
from robustlab.core import streaming
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.core.types import Problem
from robustlab.explainers import build as explainer
from robustlab.metrics.change import Ratio, distance, moved
from robustlab.metrics.nearby import Nearby, ball_of
from robustlab.metrics.relative_stability import (
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)
from tests.attacks.problems import posed
from tests.nets import pictures

BALL = Budget("linf", 0.05)
TINY = 1e-4


def changes(problem: Problem) -> dict[str, Ratio]:
    """The ratio of every metric, caught where the search is handed it."""
    found = {}
    for cls in (
        RelativeInputStability,
        RelativeOutputStability,
        RelativeRepresentationStability,
    ):

        def catch(_, __, change, start, *___, name=cls.name):
            found[name] = change
            return start

        cls(samples=1, search="gradient", compare="raw").examine(problem, catch)

    def below(near: Tensor, rows) -> tuple[Tensor, Tensor]:
        far = distance(problem.images[rows], near)
        return far.clamp(min=1e-3), torch.ones_like(far, dtype=torch.bool)

    clean = problem.raw
    return {
        **found,
        "local_lipschitz": Ratio(clean, lambda raw: raw, distance, below),
        "max_sensitivity": Ratio(clean, lambda raw: raw, moved),
    }


def near(problem: Problem) -> Tensor:
    g = torch.Generator().manual_seed(2)
    noise = torch.rand(problem.images.shape, generator=g, dtype=torch.float64) * 2 - 1
    return BALL.project(problem.images + 0.02 * noise, problem.images)


@pytest.mark.parametrize("name", ["max_sensitivity", "local_lipschitz", "ris", "ros", "rrs"])
@pytest.mark.parametrize("way", ["products", "graph"])
def test_both_slopes_are_those_of_differences(name, way, monkeypatch):
    monkeypatch.setattr(streaming, "PIXELS_PER_MICRO_BATCH", 2 * 144)
    problem = posed("smooth", explainer("gradient"))
    change, images = changes(problem)[name], near(problem)

    def value(at: Tensor) -> Tensor:
        raw = problem.explainer.explain(problem.model, at, problem.targets, ids=problem.ids)
        return change.loss(at, raw, slice(0, len(at)))

    raw = problem.explainer.explain(problem.model, images, problem.targets, ids=problem.ids)
    slope = (
        by_products_of(problem, images, raw, change.loss, TINY)
        if way == "products"
        else by_double_backward_of(problem, images, change.loss, None)
    )
    assert torch.isfinite(slope).all()
    g = torch.Generator().manual_seed(3)
    for _ in range(3):
        step = torch.randn(images.shape, generator=g, dtype=torch.float64)
        step = step * (images != problem.images)
        measured = (value(images + 1e-6 * step) - value(images - 1e-6 * step)) / 2e-6
        by_slope = (slope * step).sum((1, 2, 3))
        scale = slope.flatten(1).norm(dim=1) * step.flatten(1).norm(dim=1)
        assert ((measured - by_slope).abs() < 1e-4 * scale).all()
    if name != "max_sensitivity":  # canary: the map's part alone is another direction
        blind = by_products_of(
            problem, images, raw, lambda at, r, rows: change.loss(at.detach(), r, rows), TINY
        )
        cosine = torch.cosine_similarity(blind.flatten(1), slope.flatten(1))
        assert (cosine < 0.999).any()


@dataclass(frozen=True, eq=False)
class Bright:
    """The mean pixel, whatever the map; images above ``most`` do not count."""

    most: float = 2.0

    def loss(self, images: Tensor, raw: Tensor, rows) -> Tensor:
        return images.mean((1, 2, 3))

    def value(self, images: Tensor, raw: Tensor, rows) -> Tensor:
        found = self.loss(images, raw, rows).double()
        return torch.where(found <= self.most, found, -torch.inf)


@pytest.mark.parametrize("search", ["gradient", "evolution"])
def test_what_depends_on_the_image_alone_is_climbed_to_the_top(search):
    problem = posed("plain", "gradient", 0.3 + 0.4 * pictures())
    found = climb_to(search, problem, Bright(), problem.images.clone(), BALL, 20)
    gained = (found - problem.images).mean((1, 2, 3))
    assert (BALL.radius(found, problem.images) <= BALL.epsilon + 1e-12).all()
    if search == "gradient":
        torch.testing.assert_close(gained, torch.full((3,), 0.05).double())
    else:
        assert (gained > 0.01).all()


@pytest.mark.parametrize("search", ["gradient", "evolution"])
def test_a_start_that_cannot_be_beaten_is_what_comes_back(search):
    problem = posed("plain", "gradient", 0.3 + 0.4 * pictures())
    top = problem.images + BALL.epsilon
    assert torch.equal(climb_to(search, problem, Bright(), top, BALL, 3), top)


@pytest.mark.parametrize("search", ["gradient", "evolution"])
def test_images_that_do_not_count_are_never_returned(search):
    problem = posed("plain", "gradient", 0.3 + 0.4 * pictures())
    most = float(problem.images.mean()) + 0.02
    start = problem.images.clone()
    found = climb_to(search, problem, Bright(most), start, BALL, 12)
    means = found.mean((1, 2, 3))
    assert (means <= most).all() and (means >= start.mean((1, 2, 3))).all()
    assert (means > start.mean((1, 2, 3)) + 0.005).any()
    none = climb_to(search, problem, Bright(-1.0), start, BALL, 3)
    assert torch.equal(none, start)


def test_a_search_gets_off_the_image_itself_where_nothing_has_a_slope():
    problem = posed("plain", "gradient")
    change = Ratio(problem.raw, lambda raw: raw, moved)
    found = climb_to("gradient", problem, change, problem.images.clone(), BALL, 4)
    raw = problem.explainer.explain(problem.model, found, problem.targets)
    assert (change.value(found, raw, slice(0, 3)) > 0).all()


def test_the_best_is_kept_image_by_image_and_on_the_true_model():
    problem = posed("plain", "gradient")
    best = Highest(problem, Bright(), problem.images)
    seen = best.consider(problem.images)
    torch.testing.assert_close(seen.values, problem.images.mean((1, 2, 3)))
    torch.testing.assert_close(
        seen.raw, problem.explainer.explain(problem.model, problem.images, problem.targets)
    )
    other = problem.images.clone()
    other[0] += 0.1
    other[1] -= 0.1
    best.consider(other)
    assert torch.equal(best.images[0], other[0])
    assert torch.equal(best.images[1:], problem.images[1:])


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
def test_the_legs_take_all_steps_and_no_more(steps, monkeypatch):
    taken = []
    monkeypatch.setattr(
        "attacks.explanation.climbing.by_products_of",
        lambda problem, at, *rest: taken.append(1) or torch.ones_like(at),
    )
    problem = posed("plain", "gradient")
    climb_to("gradient", problem, Bright(), problem.images.clone(), BALL, steps)
    assert len(taken) == steps
    assert sum(leg.share for leg in LEGS) == 1


def test_every_leg_begins_at_the_best_image_so_far(monkeypatch):
    starts = []

    def step(problem, budget, uphill, settings, best, images, gait):
        starts.append(images)
        best.consider(images + 0.01)
        best.consider(images - 0.01)

    monkeypatch.setattr("attacks.explanation.climbing.climb", step)
    problem = posed("plain", "gradient", 0.3 + 0.4 * pictures())
    begin = problem.images + 0.01
    climb_to("gradient", problem, Bright(), begin, BALL, 12)
    assert len(starts) == len(LEGS)
    for i, start in enumerate(starts):
        torch.testing.assert_close(start, begin + 0.01 * i)


@pytest.mark.parametrize(
    ("shows", "possible"),
    [("gradient", True), ("grad_cam", True), ("occlusion", True), ("lime", False), ("rise", True)],
)
def test_who_has_no_gradient_is_told_what_to_do(shows, possible):
    one = explainer(shows)
    if (one.differentiable != "none") is not possible:
        pytest.skip("another promise than this test knows")
    check_search("evolution", one)
    check_search("none", one)
    if possible:
        check_search("gradient", one)
        return
    with pytest.raises(InvalidInput, match="no gradient to climb; search: evolution"):
        check_search("gradient", one)


def test_the_ball_is_the_one_of_the_copies():
    images = replace(posed("plain"), images=pictures() + 0.5).images
    ball = ball_of(Nearby(radius=0.1), images)
    assert ball.upper == float(images.max()) and ball.lower == 0.0
    open_ball = ball_of(Nearby(radius=0.1, clip=False), images)
    torch.testing.assert_close(open_ball.project(images + 1, images), images + 0.1)
