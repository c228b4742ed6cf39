"""Every draw belongs to (seed, image, purpose): no batch, no order, no global generator."""

import random

import numpy as np
import pytest
import torch

from robustlab.core import randomness

DRAWS = [randomness.normal, randomness.uniform, randomness.signs]
LIKE = torch.zeros(4, 2, 5, 5)
IDS = ("a", "b", "c", "d")


@pytest.mark.parametrize("draw", DRAWS)
def test_an_image_gets_the_same_numbers_in_any_batch(draw):
    whole = draw(LIKE, IDS, 3, "noise")
    for i, name in enumerate(IDS):
        assert torch.equal(draw(LIKE[:1], (name,), 3, "noise")[0], whole[i])
    order = [2, 0, 3, 1]
    moved = draw(LIKE, [IDS[i] for i in order], 3, "noise")
    assert torch.equal(moved, whole[order])
    assert torch.equal(draw(LIKE, IDS, 3, "noise"), whole), "a second call draws the same"


@pytest.mark.parametrize("draw", DRAWS)
def test_images_seeds_and_purposes_draw_apart(draw):
    noise = {
        (seed, purpose, name): draw(LIKE[:1], (name,), seed, purpose)
        for seed in (0, 1, -1, 10**20)
        for purpose in ("noise", "start", "noise/1")
        for name in ("a", "b", "", "a/1")
    }
    keys = list(noise)
    for i, one in enumerate(keys):
        for other in keys[:i]:
            assert not torch.equal(noise[one], noise[other]), (one, other)


@pytest.mark.parametrize("draw", DRAWS)
def test_without_ids_every_image_draws_the_same(draw):
    noise = draw(LIKE, None, 0, "noise")
    assert all(torch.equal(noise[0], other) for other in noise[1:])
    assert torch.equal(noise[:1], draw(LIKE[:1], None, 0, "noise"))


@pytest.mark.parametrize("draw", DRAWS)
def test_global_state_is_neither_used_nor_changed(draw):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
        first = draw(LIKE, IDS, 0, "noise")
        after = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
        torch.manual_seed(2)
        second = draw(LIKE, IDS, 0, "noise")
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert torch.equal(first, second)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_global_default_dtype_changes_nothing(draw):
    expected = draw(LIKE, IDS, 0, "noise")
    torch.set_default_dtype(torch.float64)
    try:
        found = draw(LIKE, IDS, 0, "noise")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_noise_takes_shape_and_dtype_of_its_model(draw, dtype):
    noise = draw(LIKE.to(dtype), IDS, 0, "noise")
    assert noise.shape == LIKE.shape and noise.dtype == dtype
    torch.testing.assert_close(noise.float(), draw(LIKE, IDS, 0, "noise"), rtol=1e-3, atol=1e-3)


def test_distributions_are_what_their_names_say():
    like = torch.zeros(1, 1, 200, 200)
    normal = randomness.normal(like, ("a",), 0, "x")
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    uniform = randomness.uniform(like, ("a",), 0, "x")
    assert uniform.min() >= -1 and uniform.max() <= 1
    assert abs(uniform.mean()) < 0.02 and abs(uniform.square().mean() - 1 / 3) < 0.02
    signs = randomness.signs(like, ("a",), 0, "x")
    assert set(signs.flatten().tolist()) == {-1.0, 1.0} and abs(signs.mean()) < 0.02


def test_streams_never_change():
    """Stored results name a seed, so these numbers are part of the format."""
    assert randomness.generator(0, "camera", "start").initial_seed() == 9132865786328602429
    first = randomness.normal(torch.zeros(1, 1, 1, 3), ("camera",), 0, "start")
    torch.testing.assert_close(first.flatten(), torch.tensor([1.5130038, -1.0941162, 1.2210364]))
