"""Each post-processing by hand on a 2x2 attribution of two channels."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post, shares, to_maps

RAW = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]], [[-4.0, 1.0], [0.0, 2.0]]]], dtype=torch.float64)
# per channel: mean 0.5 and deviation √3.25; mean −0.25 and deviation √5.1875
D1, D2 = 3.25**0.5 + 1e-5, 5.1875**0.5 + 1e-5
BY_HAND = {
    "signed": [[-3, -1], [3, 2]],
    "abs_sum": [[5, 3], [3, 2]],
    "positive": [[0, 0], [3, 2]],
    "max_abs": [[4, 2], [3, 2]],
    "mean_abs": [[2.5, 1.5], [1.5, 1]],
    "ghorbani": [[20 / 13, 12 / 13], [12 / 13, 8 / 13]],
    "dombrowski": [[5 / 13, 3 / 13], [3 / 13, 2 / 13]],
    "minmax": [[1, 1 / 3], [1 / 3, 0]],
    "std": [[0.5 / D1, 1.25 / D2], [2.5 / D1, 2.25 / D2]],
}
# of the constant attribution −0.5 in both channels
CONSTANT = {
    "signed": -1,
    "abs_sum": 1,
    "positive": 0,
    "max_abs": 0.5,
    "mean_abs": 0.5,
    "ghorbani": 1,
    "dombrowski": 1 / 4,
    "minmax": 0,
    "std": 0,
}


def test_every_post_processing_has_an_example():
    assert set(BY_HAND) == set(CONSTANT) == set(get_args(Post))


@pytest.mark.parametrize("post", BY_HAND)
def test_by_hand(post):
    expected = torch.tensor([BY_HAND[post]], dtype=torch.float64)
    torch.testing.assert_close(to_maps(RAW, post, (2, 2)), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("post", CONSTANT)
def test_constant_and_zero_maps_stay_finite(post):
    constant = to_maps(torch.full_like(RAW, -0.5), post, (2, 2))
    torch.testing.assert_close(constant, torch.full_like(constant, CONSTANT[post]))
    assert not to_maps(torch.zeros_like(RAW), post, (2, 2)).any()


@pytest.mark.parametrize("post", BY_HAND)
def test_images_of_a_batch_do_not_meet(post):
    batch = torch.cat([RAW, 100 * RAW.flip(3), torch.zeros_like(RAW)])
    whole = to_maps(batch, post, (2, 2))
    for i in range(3):
        assert torch.equal(to_maps(batch[i : i + 1], post, (2, 2)), whole[i : i + 1])


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1.0, 1e20])
@pytest.mark.parametrize("post", ["ghorbani", "dombrowski", "minmax"])
def test_normalised_maps_do_not_know_the_scale(post, scale):
    """A saturated softmax leaves gradients of 1e-20, and their map is a map all the same."""
    expected = to_maps(RAW, post, (2, 2))
    torch.testing.assert_close(to_maps(scale * RAW, post, (2, 2)), expected)


@pytest.mark.parametrize("post", BY_HAND)
def test_maps_can_be_differentiated(post):
    def post_processed(raw: Tensor) -> Tensor:
        return to_maps(raw, post, (2, 2))

    away_from_kinks = (RAW + torch.linspace(0.1, 0.3, 8).view_as(RAW)).requires_grad_()
    assert torch.autograd.gradcheck(post_processed, away_from_kinks)


def test_small_attributions_are_upsampled_bilinearly_first():
    row = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    fine = to_maps(row, "signed", (1, 4))
    assert fine.flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
    single = torch.full((1, 1, 1, 1), 3.0)
    torch.testing.assert_close(to_maps(single, "signed", (3, 5)), torch.full((1, 3, 5), 3.0))
    signs = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
    assert to_maps(signs, "abs_sum", (1, 4)).flatten().tolist() == [1.0, 0.5, 0.5, 1.0]


def test_shares_sum_to_the_number_of_pixels():
    maps = torch.rand(3, 4, 5, dtype=torch.float64) - 0.3
    maps[1] = 0
    total = shares(maps).abs().sum((1, 2))
    torch.testing.assert_close(total, torch.tensor([20.0, 0.0, 20.0], dtype=torch.float64))


@pytest.mark.parametrize(("typo", "meant"), [("abs_sums", "abs_sum"), ("min_max", "minmax")])
def test_a_misspelt_name_gets_the_nearest(typo, meant):
    with pytest.raises(InvalidInput, match=f"did you mean '{meant}'") as caught:
        to_maps(RAW, typo, (2, 2))
    assert caught.value.field == "post"
