"""Occlusion against captum, a naive loop over windows, and a closed form."""

import captum.attr
import pytest
import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.score import score_of
from robustlab.core.wrapping import Counted
from robustlab.explainers import build
from robustlab.explainers.perturbation.infill import infill_of
from tests.nets import ResNetLike, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-12}
SINGLE = {"rtol": 1e-6, "atol": 1e-9}  # captum divides by the number of windows in float32


def ours(net: nn.Module, images: Tensor, **options: object) -> Tensor:
    return build("occlusion", **options).explain(net, images, TARGETS)


def captums(net: nn.Module, images: Tensor, window: int, stride: int, infill: object) -> Tensor:
    raw = captum.attr.Occlusion(net).attribute(
        images,
        target=TARGETS,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        baselines=infill,
    )
    assert torch.equal(raw, raw[:, :1].expand_as(raw)), "the same for all channels"
    return raw[:, :1].double()


@pytest.mark.parametrize(
    ("window", "stride"), [(3, 3), (4, 3), (5, 4), (5, 2), (2, 2), (12, 1), (7, 6)]
)
@pytest.mark.parametrize("infill", [0.0, 0.4])
def test_pixel_windows_equal_captum(window: int, stride: int, infill: float) -> None:
    net, images = seeded(ResNetLike), pictures()
    mine = ours(net, images, window=window, stride=stride, infill=infill)
    torch.testing.assert_close(mine, captums(net, images, window, stride, infill), **SINGLE)


@pytest.mark.parametrize("infill", ["mean", "blur", "noise"])
def test_infills_equal_captum_with_the_same_baseline(infill: str) -> None:
    net, images = seeded(VGGLike), pictures()
    baseline = infill_of(images, infill, blur=0.15, ids=None, seed=0, purpose="occlusion")
    mine = ours(net, images, window=4, stride=2, infill=infill)
    torch.testing.assert_close(mine, captums(net, images, 4, 2, baseline), **SINGLE)


def test_a_grid_whose_windows_are_evenly_spaced_equals_captum() -> None:
    net, images = seeded(ResNetLike), pictures()
    oracle = captums(net, images, 3, 3, 0.2)
    torch.testing.assert_close(ours(net, images, grid=4, window=0.25, infill=0.2), oracle, **SINGLE)
    torch.testing.assert_close(ours(net, images, grid=4, window=3, infill=0.2), oracle, **SINGLE)


def by_hand(net: nn.Module, images: Tensor, rows: list[slice], columns: list[slice]) -> Tensor:
    """One window at a time; black infill."""
    total = torch.zeros_like(images[:, :1])
    count = torch.zeros_like(images[:1, :1])
    whole = score_of(net(images), TARGETS)
    for row in rows:
        for column in columns:
            occluded = images.clone()
            occluded[..., row, column] = 0
            lost = whole - score_of(net(occluded), TARGETS)
            total[..., row, column] += lost.view(-1, 1, 1, 1)
            count[..., row, column] += 1
    return (total / count).detach()


def test_a_grid_is_spread_from_border_to_border() -> None:
    net, images = seeded(ResNetLike), pictures()[..., :10]
    rows = [slice(i, i + 5) for i in (0, 2, 5, 7)]  # 0, 7/3, 14/3, 7
    columns = [slice(i, i + 4) for i in (0, 3, 6)]
    mine = ours(net, images, grid=(4, 3), window=0.4, infill=0.0)
    torch.testing.assert_close(mine, by_hand(net, images, rows, columns), **EXACT)


def test_the_last_window_is_cut_off_and_not_moved_back() -> None:
    net, images = seeded(ResNetLike), pictures()
    mine = ours(net, images, window=5, stride=4, infill=0.0)
    cut = [slice(0, 5), slice(4, 9), slice(8, 12)]
    torch.testing.assert_close(mine, by_hand(net, images, cut, cut), **EXACT)
    moved = [*cut[:2], slice(7, 12)]
    assert not torch.allclose(mine, by_hand(net, images, moved, moved))


def test_closed_form_on_a_linear_model() -> None:
    """A window's loss is the sum of its pixels' own contributions w (x − mean colour)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)).double()
    images = pictures(size=8)
    weights = net[1].weight[TARGETS].view_as(images)
    mean = images.mean((2, 3), keepdim=True)
    own = (weights * (images - mean)).sum(1, keepdim=True)
    blocks = torch.nn.functional.avg_pool2d(own, 2, divisor_override=1)
    expected = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)
    mine = ours(net, images, grid=4, window=0.25)
    torch.testing.assert_close(mine, expected.detach(), **EXACT)


@pytest.mark.parametrize("size", [4, 12, 28, 224])
def test_the_defaults_fit_any_image_at_the_same_cost(size: int) -> None:
    net = Counted(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)))
    images = pictures(1, size).float()
    raw = build("occlusion").explain(net, images, TARGETS[:1])
    assert raw.shape == (1, 1, size, size) and raw.isfinite().all()
    assert (net.forwards, net.backwards) == (build("occlusion").cost().forward, 0) == (101, 0)


def test_resolved_counts_windows_given_in_pixels() -> None:
    net, images = seeded(ResNetLike), pictures()[..., :10]
    resolved = build("occlusion", window=4, stride=3).resolved(net, images)
    assert resolved.grid == (4, 3) and resolved.cost().forward == 13
    assert build("occlusion").resolved(net, images) == build("occlusion")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 13, "stride": 2}, "13 pixels do not fit into 12"),
        ({"window": 2, "grid": 5}, "5 windows of 2 pixels leave gaps on a side of 12"),
        ({"window": 0.3, "stride": 5}, "3 windows of 4 pixels leave gaps"),
    ],
)
def test_windows_that_do_not_fit_are_refused(options: dict[str, object], words: str) -> None:
    explainer = build("occlusion", **options)
    for refused in (explainer.resolved, lambda *given: explainer.explain(*given, TARGETS)):
        with pytest.raises(InvalidInput, match=words) as caught:
            refused(seeded(ResNetLike), pictures())
        assert caught.value.field == "window"


def test_in_float32_a_batch_matters_by_the_last_bits_of_the_score_only() -> None:
    net, images = seeded(VGGLike).float(), pictures().float()
    explainer = build("occlusion", grid=3, window=0.4)
    whole = explainer.explain(net, images, TARGETS)
    parts = [explainer.explain(net, images[i : i + 1], TARGETS[i : i + 1]) for i in range(3)]
    score = score_of(net(images), TARGETS).abs().max().item()
    assert (torch.cat(parts) - whole).abs().max() <= 4 * torch.finfo(torch.float32).eps * score
