"""The hidden patch: where it lies, what stays, what it follows, and that it hides."""

from dataclasses import replace

import pytest
import torch

import robustlab as rl
from attacks import Patch
from attacks.explanation.gradients import by_double_backward
from attacks.explanation.patch import Avoid, RandomPatch
from attacks.toward import classes_toward, pull
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput, NotDifferentiable
from robustlab.core.judge import explain_maps, judge, pose
from robustlab.explainers import FIDO, GradCAM, Gradient
from tests.attacks.battery import part
from tests.attacks.problems import posed
from tests.nets import pictures

BUDGET = Budget("patch", 16 / 144)  # four pixels square, of twelve


def energy(problem, images, classes, window):
    """Share of the positive part of the map inside the window, by slices."""
    maps = explain_maps(problem.model, problem.explainer, images, classes, problem.ids)
    maps = maps.clamp(min=0)
    return maps[(slice(None), *window)].sum((1, 2)) / maps.sum((1, 2))


@pytest.fixture(scope="module")
def digits():
    """Trained net, eight digits, Grad-CAM."""
    model, batch = rl.models.load("small_resnet"), rl.data.load("mnist_5k").batch(8)
    return pose(model, GradCAM(), batch)


def test_it_hides_from_the_map_that_shows_a_plain_patch(digits):
    budget, wanted = Budget("patch", 144 / 784), classes_toward(digits, "runner_up")
    window = slice(0, 12), slice(0, 12)
    plain, hidden = (judge(Patch(steps=30, hide=hide), digits, budget) for hide in (False, True))
    both = (plain.predictions == wanted) & (hidden.predictions == wanted)
    assert both.sum() >= 5, "too few to compare"
    assert (hidden.predictions == wanted).sum() >= (plain.predictions == wanted).sum() - 1
    seen, unseen = (energy(digits, r.images, wanted, window)[both] for r in (plain, hidden))
    assert unseen.mean() < 0.5 * seen.mean(), (unseen.mean(), seen.mean())


# --- where it lies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rows", "columns"),
    [
        ({}, slice(0, 4), slice(0, 4)),
        ({"corner": "top_right"}, slice(0, 4), slice(8, 12)),
        ({"corner": "bottom_left"}, slice(8, 12), slice(0, 4)),
        ({"corner": "bottom_right"}, slice(8, 12), slice(8, 12)),
        ({"at": (0.5, 0.25)}, slice(3, 7), slice(6, 10)),
        ({"at": (8 / 12, 8 / 12), "corner": "top_left"}, slice(8, 12), slice(8, 12)),
    ],
    ids=str,
)
@pytest.mark.parametrize("hide", [True, False, None])
def test_every_pixel_outside_stays_bit_for_bit(hide, options, rows, columns):
    problem = posed("plain", "grad_cam")
    attack = RandomPatch(**options) if hide is None else Patch(steps=3, hide=hide, **options)
    moved = attack.propose(problem, BUDGET)
    changed = (moved != problem.images).any(1)
    assert changed[:, rows, columns].all(), "the whole square is free"
    changed[:, rows, columns] = False
    assert not changed.any()
    assert torch.equal(
        BUDGET.radius(moved, problem.images), torch.full((3,), 16 / 144, dtype=torch.float64)
    )


def test_the_side_is_the_largest_that_the_area_allows():
    inside = Patch().inside(torch.zeros(1, 3, 224, 224), Budget("patch", 0.05))
    assert int(inside.sum()) == 50**2 and 50**2 <= 0.05 * 224**2 < 51**2
    wide = Patch().inside(torch.zeros(1, 3, 10, 40), Budget("patch", 1.0))
    assert int(wide.sum()) == 100, "no square in the picture is larger"


@pytest.mark.parametrize(
    ("make", "budget", "field", "words"),
    [
        (lambda: Patch(at=(0.9, 0.0)), BUDGET, "at", r"leaves a 12x12 picture; at most \(0.67"),
        (lambda: Patch(at=(1.2, 0.0)), BUDGET, "at", "not within the image"),
        (Patch, Budget("patch", 0.006), "epsilon", "less than one pixel"),
        (lambda: Patch(weight=0.0), BUDGET, "weight", "above 0"),
        (lambda: Patch(steps=0), BUDGET, "steps", "at least 1"),
        (lambda: Patch(step_size=-1.0), BUDGET, "step_size", "above 0"),
    ],
)
def test_what_cannot_be_is_refused(make, budget, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        make().propose(posed("plain", "grad_cam"), budget)
    assert caught.value.field == field


# --- what it follows -----------------------------------------------------------------------


def test_energy_is_the_share_of_the_positive_part():
    inside = torch.tensor([[True, False], [False, False]])
    maps = torch.tensor([[[3.0, 1.0], [0.0, -9.0]], [[-1.0, 2.0], [2.0, 0.0]], [[0.0, -1], [0, 0]]])
    values = Avoid(inside).value(maps)
    assert values.tolist() == [-0.75, 0.0, -0.25], "no positive part counts as a flat map"
    assert values.dtype == torch.float64


def test_energy_has_the_gradient_of_finite_differences():
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 5, generator=g, dtype=torch.float64)
    maps[1] = -maps[1].abs()  # nothing positive: flat
    inside = torch.zeros(5, 5, dtype=torch.bool)
    inside[:3, 1:] = True
    leaf = maps.clone().requires_grad_()
    (slope,) = torch.autograd.grad(Avoid(inside).loss(leaf, slice(None)).sum(), leaf)
    direction = torch.randn(2, 5, 5, generator=g, dtype=torch.float64)
    ahead, back = (Avoid(inside).value(maps + h * direction) for h in (1e-7, -1e-7))
    expected = (slope * direction).sum((1, 2))
    torch.testing.assert_close((ahead - back) / 2e-7, expected, rtol=1e-5, atol=1e-8)
    assert torch.equal(slope[1], torch.zeros_like(slope[1]))


def step_by_hand(problem, images, wanted, inside, weight, alpha, beta, *, hide):
    """One step of the formula; CE counts for images that are not predicted as wanted."""
    aimed = replace(problem, targets=wanted)
    missing = (problem.model(images).argmax(1) != wanted).view(-1, 1, 1, 1)
    gradient = pull(problem, images, wanted)
    if hide:
        energy_up = -by_double_backward(aimed, images, Avoid(inside), beta)
        gradient = weight * missing * gradient - energy_up
    moved = (images + alpha * gradient.sign()).clamp(0, 1)
    return torch.where(inside, moved, problem.images)


@pytest.mark.parametrize("hide", [True, False])
def test_iterates_and_choice_by_hand(hide):
    """CE is on until the class is reached and off from there; the least energy is kept."""
    problem, steps, alpha = posed("plain", "grad_cam"), 14, 0.1
    budget, weight = Budget("patch", 49 / 144), 100.0
    attack = Patch(steps=steps, step_size=alpha, weight=weight, hide=hide, beta=None)
    wanted = classes_toward(problem, "runner_up")
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[:7, :7] = True
    images = torch.where(inside, 0.5, problem.images)
    iterates = [images]
    for _ in range(steps):
        images = step_by_hand(problem, images, wanted, inside, weight, alpha, None, hide=hide)
        iterates.append(images)
    chosen, phases = images.clone(), 0
    for i in range(3):
        reached = [bool(problem.model(x[i : i + 1]).argmax() == wanted[i]) for x in iterates]
        phases += any(reached) and not all(reached)
        shares = energy_of(problem, iterates, wanted, i)
        among = [n for n, yes in enumerate(reached) if yes and (hide or n > 0)]
        if among:
            n = min(among, key=lambda n: shares[n]) if hide else among[-1]
            chosen[i] = iterates[n][i]
    assert phases, "the switch was never thrown"
    torch.testing.assert_close(attack.propose(problem, budget), chosen, rtol=0, atol=1e-12)


def energy_of(problem, iterates, wanted, i):
    window = slice(0, 7), slice(0, 7)
    return [float(energy(problem, images, wanted, window)[i]) for images in iterates]


def test_each_image_is_led_as_if_it_were_alone():
    """Half of the images have arrived and half have not: the switch is each one's own."""
    problem = posed("plain", "grad_cam")
    attack, budget = Patch(steps=14, step_size=0.1, weight=100.0), Budget("patch", 49 / 144)
    whole = attack.propose(problem, budget)
    for i in range(3):
        alone = attack.propose(part(problem, [i]), budget)
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=0, atol=1e-9)


def test_a_plain_patch_needs_no_explainer():
    assert Patch().needs_explainer and not Patch(hide=False).needs_explainer
    assert Patch().gradient_path(Gradient()) == "hessian_vector"
    assert Patch(hide=False).gradient_path(Gradient()) == ""
    problem = posed("plain", FIDO(steps=1))
    Patch(hide=False, steps=1).propose(problem, BUDGET)
    with pytest.raises(NotDifferentiable, match="FIDO"):
        Patch(steps=1).propose(problem, BUDGET)


def test_the_control_is_black_and_white_in_the_same_place():
    problem = posed("plain")
    control = Patch(corner="bottom_right").control()
    moved = control.propose(problem, BUDGET)
    values = moved[:, :, 8:, 8:]
    assert set(values.unique().tolist()) == {0.0, 1.0}
    assert 0.3 < float(values.mean()) < 0.7
    assert not torch.equal(values[0], values[1]), "drawn per image"
    again = control.propose(part(problem, [2, 0]), BUDGET)
    assert torch.equal(again, moved[[2, 0]])
    still = control.propose(problem, Budget("patch", 0.0))
    assert torch.equal(still, problem.images)
    with pytest.raises(InvalidInput, match="norm patch"):
        control.propose(problem, Budget("linf", 0.1))


def test_a_narrower_box_bounds_the_patch():
    problem = posed("plain", "grad_cam", 0.3 + 0.4 * pictures())
    budget = Budget("patch", 16 / 144, lower=0.25, upper=0.75)
    moved = Patch(steps=6).propose(problem, budget)
    assert float(moved.min()) == 0.25 and float(moved.max()) == 0.75
