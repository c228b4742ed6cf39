"""What only `ris`, `ros` and `rrs` know: predictions that stay, zeros below, and layers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.explanation.climbing import climb_to
from robustlab.core.errors import InvalidInput
from robustlab.core.streaming import logits_of
from tests.attacks.problems import posed
from tests.metrics.nearby import (
    RELATIVE,
    SIZE,
    Told,
    by_loops,
    copies_of,
    examined,
    explained,
    problem_of,
    quotients,
    size,
)
from tests.nets import pictures


def test_copies_that_are_predicted_otherwise_do_not_count():
    problem, radius = problem_of("plain"), 0.5
    net, kept = problem.model, []
    for i, image in enumerate(problem.images):
        near = torch.stack(copies_of(problem, i, radius, 12, clip=True))
        own = net(image.unsqueeze(0)).argmax(1)
        kept.append(int((net(near).argmax(1) == own).sum()))
    assert 0 < sum(kept) < 36, "canary: all copies are predicted alike"
    for name in RELATIVE:
        expected = by_loops(name, problem, "map", radius, 12, clip=True)
        found = examined(name, problem, radius=radius, samples=12, seed=7)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        # Quantus: NaN for such a copy, and the maximum of the image with it
        spoilt = np.max([np.nan, *found.tolist()])
        assert np.isnan(spoilt) and torch.isfinite(found).all()


def test_an_image_whose_copies_all_change_sides_has_the_value_of_itself():
    class Touchy(nn.Module):
        """Class 1 for one image exactly, class 0 for all others."""

        def __init__(self, image: Tensor) -> None:
            super().__init__()
            self.fc = nn.Linear(image.numel(), 1).double()
            self.register_buffer("image", image)

        def forward(self, x: Tensor) -> Tensor:
            here = (x == self.image).flatten(1).all(1)
            score = self.fc(x.flatten(1)).square()
            return torch.cat([score, score + torch.where(here, 1.0, -1.0).unsqueeze(1)], 1)

    image = 0.2 + 0.5 * pictures(1, SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        problem = posed(Touchy(image[0]).eval(), "gradient", image)
    for name in RELATIVE:
        for search in ("none", "gradient", "evolution"):
            value = examined(name, problem, climb_to, search=search, samples=3, steps=3)
            assert torch.equal(value, torch.zeros(1).double())
    assert (examined("max_sensitivity", problem, samples=3) > 0).all()


@pytest.mark.parametrize("name", RELATIVE)
def test_the_prediction_that_has_to_stay_is_not_the_explained_class(name):
    problem = problem_of("plain")
    other = replace(problem, targets=(problem.predictions + 1) % 5)
    raw = other.explainer.explain(other.model, other.images, other.targets)
    other = replace(other, raw=raw, maps=raw.abs().sum(1), predictions=other.targets)
    assert (examined(name, other, samples=3) > 0).all()


def test_black_pixels_do_not_rule_the_relative_change_of_an_image():
    images = pictures(2)
    images[:, :, :9] = 0.0
    problem = posed("plain", "gradient", images)
    ours = examined("ris", problem, samples=4)
    theirs = examined("ris", problem, samples=4, eps_min=1e-6)
    assert (theirs < 1e-3 * ours).all(), "canary: x / 1e-6 of black pixels is all that counts"
    dark = examined("ris", posed("plain", "gradient", 0 * images), samples=2)
    assert torch.equal(dark, torch.zeros(2).double())


def test_eps_min_is_as_quantus_writes_it():
    problem, eps, radius = problem_of("residual", "grad_cam"), 1e-6, 0.1
    images = problem.images.clone()
    images[:, :, :3] = 0.0
    problem = posed("residual", problem.explainer, images)

    def change(before, after):  # quantus.metrics.robustness.relative_input_stability
        return size((before - after) / (before + (before == 0) * eps))

    expected = []
    for i, image in enumerate(images):
        before, values = explained(problem, i, image, "raw"), []
        own = logits_of(problem.model, image.unsqueeze(0)).argmax()
        for near in copies_of(problem, i, radius, 5, clip=False):
            if logits_of(problem.model, near.unsqueeze(0)).argmax() == own:
                far = change(before, explained(problem, i, near, "raw"))
                values.append(far / change(image.numpy(), near.numpy()))
        expected.append(max(values, default=0.0))
    found = examined(
        "ris", problem, compare="raw", radius=radius, samples=5, clip=False, seed=7, eps_min=eps
    )
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0
    )


def test_eps_min_stands_for_zeros_of_the_map_too():
    base, eps, expected = problem_of("plain"), 1e-3, []
    problem = posed("plain", Told(known=base.images, here=0.0, there=3.0))
    for i, image in enumerate(problem.images):
        near = torch.stack(copies_of(problem, i, 0.01, 4, clip=True))
        kept = near[logits_of(problem.model, near).argmax(1) == problem.predictions[i]]
        assert len(kept) and (image > 0).all()
        expected.append(3 * 12 / eps / min(size(quotients(image, one)) for one in kept))
    found = examined("ris", problem, radius=0.01, samples=4, seed=7, eps_min=eps)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert not examined("ris", problem, radius=0.01, samples=4, seed=7).any()  # left out


def test_the_layer_of_rrs_can_be_named_and_must_exist():
    problem = problem_of("plain")
    inner = examined("rrs", problem, samples=3)
    same = examined("rrs", problem, samples=3, layer="net.head.1")  # the ReLU before the last
    torch.testing.assert_close(same, inner)
    assert (examined("rrs", problem, samples=3, layer="net.features.0") != inner).all()
    for layer in ("net.features.17", ""):
        with pytest.raises(InvalidInput, match="the model has no module") as caught:
            examined("rrs", problem, samples=1, layer=layer)
        assert caught.value.field == "layer"

    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4].square()

    with pytest.raises(InvalidInput, match="no dense layer or convolution ran"):
        examined("rrs", posed(Bare().eval(), "gradient", pictures(1)), samples=1)
