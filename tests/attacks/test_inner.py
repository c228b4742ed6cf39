"""The inner attack of robust training: its ball, its starts, and an optimum that is known."""

from dataclasses import replace

import pytest
import torch

from attacks.inner import SignSearch
from robustlab.core.errors import InvalidInput
from robustlab.training.examples import Reach

IDS = ("a", "b", "c")
SEARCH = SignSearch()


def pictures(low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(3, 2, 4, 4, generator=generator, dtype=torch.float64)


def slopes():
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1)).double()


def bumpy(x):
    """Many maxima: the sign changes along the way."""
    return (torch.sin(30 * x) + x.roll(1, -1) * x).flatten(1).sum(1)


def found(gain, x, reach, step=0, seed=0, ids=IDS):
    return SEARCH(gain, x, reach, ids=ids, seed=seed, step=step)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("steps", [1, 7])
def test_what_it_finds_is_in_the_ball_and_the_box(start, steps):
    x = pictures()
    moved = found(bumpy, x, Reach(epsilon=0.2, steps=steps, random_start=start, step_size=0.15))
    assert (moved - x).abs().max() <= 0.2 + 1e-12
    assert moved.min() >= 0 and moved.max() <= 1
    assert (moved - x).abs().max() > 0.1
    assert not moved.requires_grad


def test_the_start_is_clipped_before_anybody_sees_it():
    """Some pictures are at the wall: where Madry et al. start, they would be outside."""
    x, seen = pictures(), []

    def watched(points):
        seen.append(points.detach().clone())
        return bumpy(points)

    found(watched, x, Reach(epsilon=0.3, steps=3))
    assert len(seen) == 3
    assert all(v.min() >= 0 and v.max() <= 1 and (v - x).abs().max() <= 0.3 + 1e-12 for v in seen)
    noise = (seen[0] - x).abs()
    assert noise.max() > 0.28 and noise.min() < 0.05  # uniform, not at the corners
    inside = (seen[0] > 0) & (seen[0] < 1)
    assert 0.1 < noise[inside].mean() < 0.2


def test_the_optimum_of_a_linear_gain_is_the_corner():
    x, weights = pictures(0.2, 0.8), slopes()
    for start in (True, False):
        reach = Reach(epsilon=0.1, steps=5, random_start=start)
        moved = found(lambda v: (weights * v).flatten(1).sum(1), x, reach)
        torch.testing.assert_close(moved, x + 0.1 * weights.sign(), rtol=0, atol=1e-12)
    at_walls = pictures()
    moved = found(lambda v: (weights * v).flatten(1).sum(1), at_walls, replace(reach, epsilon=0.3))
    wanted = (at_walls + 0.3 * weights.sign()).clamp(0, 1)
    torch.testing.assert_close(moved, wanted, rtol=0, atol=1e-12)


def test_each_step_is_as_long_as_it_says():
    x, weights = pictures(0.4, 0.6), slopes()

    def gain(v):
        return (weights * v).flatten(1).sum(1)

    reach = Reach(epsilon=0.2, steps=4, step_size=0.03, random_start=False)
    torch.testing.assert_close(found(gain, x, reach), x + 4 * 0.03 * weights.sign())
    assert Reach(epsilon=0.2, steps=4).stride == 0.125  # 2.5 ε / steps
    one = Reach(epsilon=0.2, steps=1, step_size=0.05, random_start=False)
    assert not torch.equal(found(gain, x, one), found(lambda v: -gain(v), x, one))  # it ascends


def test_an_image_moves_alone_as_it_does_in_company():
    x, reach = pictures(), Reach(epsilon=0.2, steps=6)
    whole = found(bumpy, x, reach)
    for i in range(3):
        alone = found(bumpy, x[i : i + 1], reach, ids=IDS[i : i + 1])
        assert torch.equal(alone[0], whole[i])
    order = [2, 0, 1]
    shuffled = found(bumpy, x[order], reach, ids=tuple(IDS[i] for i in order))
    assert torch.equal(shuffled, whole[order])


def test_starts_are_of_the_step_the_seed_and_the_image():
    x = pictures(0.4, 0.6)[:1].expand(3, -1, -1, -1)
    reach = Reach(epsilon=0.2, steps=1, step_size=0.001)
    first = found(bumpy, x, reach)
    assert torch.equal(first, found(bumpy, x, reach))
    assert not torch.equal(first, found(bumpy, x, reach, step=1))
    assert not torch.equal(first, found(bumpy, x, reach, seed=1))
    assert not torch.equal(first[0], first[1])
    still = replace(reach, random_start=False)
    assert torch.equal(found(bumpy, x, still), found(bumpy, x, still, step=1))


def test_no_radius_no_change():
    x = pictures()
    assert torch.equal(found(bumpy, x, Reach(epsilon=0.0, steps=3)), x)


def test_it_wants_gradients_where_its_caller_does_not():
    x = pictures()
    with torch.no_grad():
        moved = found(bumpy, x, Reach(epsilon=0.2, steps=2))
    assert torch.equal(moved, found(bumpy, x, Reach(epsilon=0.2, steps=2)))


def test_a_gain_that_knows_nothing_of_the_image_is_refused():
    with pytest.raises(InvalidInput, match=r"model: .*does not depend on the image"):
        found(lambda _: torch.ones(3), pictures(), Reach(epsilon=0.2, steps=2))
