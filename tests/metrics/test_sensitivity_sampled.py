"""Random copies: against loops over the same ones, captum, and the metric of two maps."""

from dataclasses import dataclass, replace

import pytest
import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from robustlab.core.maps import to_maps
from robustlab.explainers import build as explainer
from robustlab.explainers.gradient.plain import Gradient
from robustlab.metrics import build
from tests.attacks.problems import posed
from tests.metrics.nearby import ALL, SEARCHED, by_loops, copies_of, examined, problem_of


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("net", "shows", "compare", "clip"),
    [
        ("plain", "gradient", "map", True),
        ("residual", "gradient", "raw", False),
        ("residual", "grad_cam", "raw", True),
    ],
)
def test_every_ratio_is_the_loop_over_the_same_copies(name, net, shows, compare, clip):
    problem = problem_of(net, shows)
    images = problem.images.clone()
    images[1, :, :4] = 0.0  # black pixels, to which nothing is relative
    problem = posed(net, problem.explainer, images)
    expected = by_loops(name, problem, compare, 0.05, 6, clip=clip)
    options = {"compare": compare, "radius": 0.05, "samples": 6, "seed": 7, "clip": clip}
    if name == "ros":  # the outputs of these networks hardly depend on the picture
        options["floor"] = 1e-6
    found = examined(name, problem, **options)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert (expected > 0).sum() >= 2, "canary: there is nothing to be told apart"
    other = examined(name, problem, **{**options, "seed": 8})
    assert not torch.allclose(found, other, rtol=1e-3)


def test_noise_goes_both_ways():
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Watching(Gradient):
        def explain(self, model, images, targets, *, ids=None, create_graph=False):
            seen.append(images)
            return super().explain(model, images, targets, ids=ids, create_graph=create_graph)

    problem = replace(problem_of("plain"), explainer=Watching())
    examined("ris", problem, radius=0.1, samples=40, clip=False)
    change = torch.cat([s - problem.images.repeat(len(s) // 3, 1, 1, 1) for s in seen])
    assert len(change) == 120 and float(change.abs().max()) <= 0.1 + 1e-12
    assert abs(float(change.mean())) < 0.002  # Quantus: 0.11 of [0.02, 0.2]
    assert float(change.square().mean().sqrt()) == pytest.approx(0.1 / 3**0.5, rel=0.02)
    seen.clear()
    examined("ris", problem, radius=0.1, samples=40)
    assert all(float(s.min()) >= 0 and float(s.max()) <= 1 for s in seen)


@pytest.mark.parametrize("net", ["plain", "residual"])
def test_captum_agrees_on_the_same_copies(net):
    problem, radius, samples = problem_of(net), 0.05, 5

    def perturbed(images: Tensor) -> Tensor:
        """captum repeats every image ``samples`` times, one after the other."""
        images = images[0] if isinstance(images, tuple) else images
        copies = [
            copies_of(problem, i, radius, samples, clip=False) for i in range(len(problem.images))
        ]
        assert len(images) == len(copies) * samples
        return torch.stack([copy for own in copies for copy in own])

    def explain(images: Tensor | tuple[Tensor], target: Tensor) -> Tensor | tuple[Tensor]:
        """As captum's own methods: a tuple in, a tuple out."""
        if isinstance(images, tuple):
            return (explain(images[0], target),)
        return problem.explainer.explain(problem.model, images, target).detach().contiguous()

    theirs = sensitivity_max(
        explain, problem.images, perturb_func=perturbed, n_perturb_samples=samples,
        max_examples_per_batch=len(problem.images) * samples, target=problem.targets,
    )  # fmt: skip
    ours = examined(
        "max_sensitivity", problem, compare="raw", radius=radius, samples=samples, clip=False,
        seed=7,
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-6, atol=1e-9)


def test_it_is_the_largest_and_the_mean_of_the_metric_of_two_maps():
    problem = problem_of("residual", "integrated_gradients", steps=4)
    relative = build("relative_l2")
    found = []
    for j in range(5):
        near = torch.stack(
            [copies_of(problem, i, 0.05, 5, clip=True)[j] for i in range(len(problem.images))]
        )
        raw = problem.explainer.explain(problem.model, near, problem.targets, ids=problem.ids)
        found.append(relative(problem.maps, to_maps(raw, problem.explainer.post, (12, 12))))
    options = {"radius": 0.05, "samples": 5, "seed": 7}
    torch.testing.assert_close(
        examined("max_sensitivity", problem, **options), torch.stack(found).amax(0)
    )
    torch.testing.assert_close(
        examined("avg_sensitivity", problem, **options), torch.stack(found).mean(0)
    )


@pytest.mark.parametrize("name", SEARCHED)
def test_more_copies_never_find_less(name):
    problem = problem_of("plain")
    values = [examined(name, problem, samples=n) for n in (1, 3, 9)]
    assert (values[0] <= values[1]).all() and (values[1] <= values[2]).all()
    assert (values[0] < values[2]).any()
    mean = examined("avg_sensitivity", problem, samples=9)
    assert (mean < examined("max_sensitivity", problem, samples=9)).all()


def test_a_stochastic_explainer_draws_the_same_numbers_for_a_copy():
    problem = posed("smooth", explainer("smooth_grad", samples=3, sigma=0.2))
    value = examined("max_sensitivity", problem, radius=1e-6, samples=3)
    assert (value < 1e-4).all()
    renamed = replace(problem, ids=("x", "y", "z"))  # canary: Φ(x) of other draws
    assert (examined("max_sensitivity", renamed, radius=1e-6, samples=3) > 1e-2).all()
