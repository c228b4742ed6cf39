"""The control: what it looks like, and that no attack and no model can move it."""

import numpy as np
import pytest
import torch

import attacks
import robustlab as rl
from robustlab.core.errors import NotDifferentiable
from robustlab.core.randomness import generator
from robustlab.explainers import build
from tests.explainers.nets import TARGETS
from tests.nets import ResNetLike, VGGLike, pictures, seeded


def cubic(x, a=-0.75):
    """Keys' kernel, which bicubic interpolation is made of."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def along(cells, side):
    """How much of each cell each pixel along one side takes, borders repeated."""
    weights = np.zeros((side, cells))
    for pixel in range(side):
        centre = (pixel + 0.5) * cells / side - 0.5
        for cell in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weights[pixel, min(max(cell, 0), cells - 1)] += cubic(centre - cell)
    return weights


@pytest.mark.parametrize(("cells", "seed"), [(7, 0), (3, 5)])
def test_it_is_the_seeds_grid_under_a_cubic_kernel(cells, seed):
    raw = build("fixed_map", cells=cells, seed=seed).explain(None, pictures(), TARGETS)
    source = generator(seed, "", "fixed_map")
    grid = torch.randn(cells, cells, generator=source, dtype=torch.float64).numpy()
    expected = along(cells, 12) @ grid @ along(cells, 12).T
    np.testing.assert_allclose(raw[1, 0].numpy(), expected, rtol=0, atol=1e-12)


def test_seed_and_cells_make_another_picture_and_few_cells_a_smooth_one():
    def picture(**options):
        return build("fixed_map", **options).explain(None, torch.zeros(1, 3, 56, 64), TARGETS[:1])

    def roughness(field):
        return float(field.diff(dim=3).square().mean() / field.var())

    default = picture()
    assert default.shape == (1, 1, 56, 64)
    correlation = np.corrcoef(default.flatten(), picture(seed=1).flatten())[0, 1]
    assert abs(correlation) < 0.5
    rough = [roughness(picture(cells=n)) for n in (3, 7, 28)]
    assert rough == sorted(rough) and rough[0] < 0.01 < 0.2 < rough[2]
    white = torch.randn(1, 1, 56, 64, generator=torch.Generator().manual_seed(0))
    assert roughness(white) > 1.8  # canary: noise that nothing has smoothed has 2


def test_gradient_attacks_say_that_there_is_nothing_to_follow():
    batch = rl.data.load("mnist_5k").batch(2)
    model, explainer = rl.models.load("small_cnn"), build("fixed_map")
    for name in ("top_k", "mass_center", "target_map"):
        attack = attacks.build(name)
        assert attack.gradient_path(explainer) == "impossible"
        with pytest.raises(NotDifferentiable, match="FixedMap has none; black_box attacks any"):
            rl.attack(model, explainer, attack, batch, rl.Budget("linf", 0.1))


def test_black_box_finds_no_query_that_moves_it():
    batch = rl.data.load("mnist_5k").batch(2)
    model, explainer = rl.models.load("small_cnn"), build("fixed_map")
    attack = attacks.build("black_box", k=50, queries=6, population=3, grid=4)
    result = rl.attack(model, explainer, attack, batch, rl.Budget("linf", 0.1))
    assert torch.equal(result.maps, result.clean_maps)
    assert result.drift("spearman").tolist() == [1, 1]


def test_a_network_without_its_weights_has_the_same_map():
    images, explainer = pictures(), build("fixed_map")
    maps = [explainer.explain(seeded(net), images, TARGETS) for net in (VGGLike, ResNetLike)]
    assert torch.equal(*maps)
    gradients = [
        build("gradient").explain(seeded(net), images, TARGETS) for net in (VGGLike, ResNetLike)
    ]
    assert not torch.allclose(*gradients)  # canary: an explainer that explains
