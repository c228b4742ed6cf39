"""One perturbation for all: against the single attack, SVD, and images it never saw."""

import numpy as np
import pytest
import torch

import attacks.explanation.universal as module
from attacks import build
from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.data import from_tensors
from robustlab.explainers import build as explainer
from tests.attacks.problems import posed
from tests.nets import pictures

LINF, L2 = Budget("linf", 0.03), Budget("l2", 0.4)


class Library:
    """A data set of grey-ish pictures, so that the box never binds."""

    def __init__(self, count=6):
        self.images = 0.3 + 0.4 * pictures(count, seed=7)
        self.ids = tuple(f"fitted {i}" for i in range(count))

    def pick(self, ids):
        where = [self.ids.index(i) for i in ids]
        return from_tensors(self.images[where], torch.zeros(len(where), dtype=torch.long), ids)


@pytest.fixture
def library(monkeypatch):
    made = Library()
    monkeypatch.setattr(module.data, "load", lambda name, **options: made)
    return made


def attacked(images=None, net="smooth"):
    return posed(net, explainer("gradient"), 0.3 + 0.4 * pictures() if images is None else images)


@pytest.mark.parametrize("budget", [LINF, L2], ids=str)
def test_of_one_fitted_image_it_is_that_images_own_attack(library, budget):
    options = {"k": 30, "steps": 6, "step_size": 0.2 * budget.epsilon}
    delta = build("universal", images=1, **options).perturbation(attacked(), budget)
    own = posed("smooth", explainer("gradient"), library.images[-1:])
    expected = build("top_k", **options).propose(own, budget) - own.images
    torch.testing.assert_close(delta, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("budget", [LINF, L2], ids=str)
@pytest.mark.parametrize("form", ["gradient", "pca"])
def test_every_image_gets_the_same_perturbation_whatever_the_batch(library, form, budget):
    attack = build("universal", k=30, form=form, images=4, steps=3)
    problem = attacked()
    change = attack.propose(problem, budget) - problem.images
    torch.testing.assert_close(change, change[:1].expand_as(change), rtol=0, atol=1e-12)
    assert float(budget.radius(change[:1], torch.zeros_like(change[:1]))) == pytest.approx(
        budget.epsilon, rel=1e-6
    )
    alone = attacked(problem.images[1:2])
    torch.testing.assert_close(attack.propose(alone, budget) - alone.images, change[1:2])


def test_pca_is_the_first_singular_vector_of_the_slopes(library):
    attack = build("universal", k=30, form="pca", images=5, probe=1e-3)
    delta = attack.perturbation(attacked(), L2)
    fitted = posed("smooth", explainer("gradient"), library.images[-5:])
    leaf = fitted.images.clone().requires_grad_()
    raw = fitted.explainer.explain(fitted.model, leaf, fitted.targets, create_graph=True)
    loss = attack.objective(fitted).loss(raw.abs().sum(1), slice(None)).sum()
    rows = torch.autograd.grad(loss, leaf)[0].flatten(1)
    rows = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    first = np.linalg.svd(rows)[2][0]
    assert abs(float(delta.flatten() @ torch.from_numpy(first))) / L2.epsilon > 1 - 1e-4
    objective = attack.objective(fitted)

    def worth(step):
        maps = fitted.explainer.explain(fitted.model, fitted.images + step, fitted.targets)
        return float(objective.value(maps.abs().sum(1)).mean())

    assert worth(delta) >= worth(-delta)


def test_images_it_never_saw_move_more_than_by_a_random_direction(library):
    problem = attacked(0.3 + 0.4 * pictures(12, seed=3))
    objective = build("top_k", k=30).objective(problem)

    def moved(images):
        raw = problem.explainer.explain(problem.model, images, problem.targets)
        return float(objective.value(raw.abs().sum(1)).mean())

    found = moved(build("universal", k=30, images=6, steps=10).propose(problem, LINF))
    assert found > moved(build("random_sign").propose(problem, LINF)) + 0.02


def test_the_prediction_of_fitted_images_counts(library):
    """A perturbation that flips every fitted image is worth nothing, and nothing is returned."""
    problem = attacked(net="plain")
    attack = build("universal", k=30, images=4, steps=4)
    huge = attack.perturbation(problem, Budget("linf", 0.5))
    flipped = problem.model((library.images[-4:] + huge).clamp(0, 1)).argmax(1)
    kept = flipped == problem.model(library.images[-4:]).argmax(1)
    assert kept.any() or not huge.any()


def test_a_fitted_image_must_not_be_attacked(library):
    problem = attacked()
    both = from_tensors(problem.images, problem.labels, ("fitted 5", "b", "c"))
    from robustlab.core.judge import pose

    with pytest.raises(InvalidInput, match="fitted 5 would be fitted and attacked"):
        build("universal", images=2, k=30).propose(
            pose(problem.model, problem.explainer, both), LINF
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 0}, "images"),
        ({"steps": 0}, "steps"),
        ({"fit": "mnist_6k"}, "mnist_5k"),
        ({"fit": {"size": 3}}, "names no data set"),
        ({"fit": "mnist_5k"}, "1×28×28"),
    ],
    ids=str,
)
def test_bad_input_is_named(options, words):
    with pytest.raises(InvalidInput, match=words):
        build("universal", k=30, **options).propose(attacked(), LINF)
