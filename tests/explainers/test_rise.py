"""RISE against an einsum over the same masks and against its exact expectation."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.randomness import uniform
from robustlab.core.score import score_of
from robustlab.explainers import build
from tests.nets import ResNetLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
IDS = ("ada", "bob", "cyd")
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def enlarged_and_cropped(grid: Tensor, size: tuple[int, int], down: int, right: int) -> Tensor:
    """One mask as the paper makes it: all of the enlarged grid, then the crop."""
    cells = len(grid)
    steps = [math.ceil(side / cells) for side in size]
    full = F.interpolate(
        grid[None, None], [(cells + 1) * s for s in steps], mode="bilinear", align_corners=False
    )[0, 0]
    return full[down : down + size[0], right : right + size[1]]


def same_masks(images: Tensor, ids: tuple[str, ...], count: int, cells: int, keep: float) -> Tensor:
    """``[N,B,H,W]``, from the draws that the docstring promises: seed, id and purpose."""
    size = tuple(images.shape[-2:])
    like = torch.empty(len(ids), count, cells, cells)
    grids = ((uniform(like, ids, 0, "rise/grid") + 1) / 2 < keep).double()
    offsets = (uniform(like[..., 0, :2], ids, 0, "rise/offset") + 1) / 2
    steps = torch.tensor([math.ceil(side / cells) for side in size])
    corners = (offsets * steps).floor().int()
    return torch.stack(
        [
            torch.stack(
                [enlarged_and_cropped(grids[b, j], size, *corners[b, j]) for b in range(len(ids))]
            )
            for j in range(count)
        ]
    )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("norm", ["expected", "coverage", "centred"])
@pytest.mark.parametrize(("cells", "width"), [(3, 12), (5, 9), (7, 12)])
def test_rise_equals_an_einsum_over_the_same_masks(
    norm: str, shared: bool, cells: int, width: int
) -> None:
    net, images, count, keep = seeded(ResNetLike), pictures()[..., :width], 9, 0.4
    masks = same_masks(images, ("",) * 3 if shared else IDS, count, cells, keep)
    with torch.no_grad():
        scores = torch.stack(
            [score_of(net(mask.unsqueeze(1) * images), TARGETS, "prob") for mask in masks]
        )
    if norm == "centred":
        scores -= scores.mean(0)
    expected = torch.einsum("jb,jbhw->bhw", scores, masks)
    expected /= masks.sum(0) if norm == "coverage" else count * keep
    explainer = build("rise", masks=count, cells=cells, keep=keep, norm=norm, shared=shared)
    mine = explainer.explain(net, images, TARGETS, ids=IDS)
    torch.testing.assert_close(mine, expected.unsqueeze(1), **EXACT)


def test_infill_is_seen_through_the_holes() -> None:
    net, images = seeded(ResNetLike), pictures()
    masks = same_masks(images, IDS, 4, 3, 0.5)
    mean = images.mean((2, 3), keepdim=True)
    seen = [m.unsqueeze(1) * images + (1 - m.unsqueeze(1)) * mean for m in masks]
    scores = torch.stack([score_of(net(s), TARGETS, "prob") for s in seen]).detach()
    expected = torch.einsum("jb,jbhw->bhw", scores, masks) / (4 * 0.5)
    mine = build("rise", masks=4, cells=3, infill="mean").explain(net, images, TARGETS, ids=IDS)
    torch.testing.assert_close(mine.squeeze(1), expected, **EXACT)


def every_mask(size: int, cells: int, keep: float) -> tuple[Tensor, Tensor]:
    """All grids at all offsets ``[K,H,W]`` and the probability of each."""
    step = math.ceil(size / cells)
    masks, weights = [], []
    for bits in itertools.product((0.0, 1.0), repeat=cells * cells):
        grid = torch.tensor(bits, dtype=torch.float64).view(cells, cells)
        weight = math.prod(keep if bit else 1 - keep for bit in bits) / step**2
        for down, right in itertools.product(range(step), repeat=2):
            masks.append(enlarged_and_cropped(grid, (size, size), down, right))
            weights.append(weight)
    return torch.stack(masks), torch.tensor(weights, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["expected", "coverage", "centred"])
def test_many_masks_come_to_the_exact_expectation_on_a_linear_model(norm: str) -> None:
    """E[s(x ⊙ M) M(u)] over all 2⁴ grids and 9 offsets; the standard error says how near."""
    count, keep, size = 20_000, 0.3, 6
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 2)).double()
    image, target = pictures(1, size, channels=1), torch.tensor([1])
    masks, chance = every_mask(size, 2, keep)
    mean = torch.einsum("k,khw->hw", chance, masks)
    torch.testing.assert_close(mean, torch.full_like(mean, keep), **EXACT)
    scores = net(masks.unsqueeze(1) * image)[:, 1].detach()
    if norm == "centred":
        scores -= (chance * scores).sum()
    terms = scores.view(-1, 1, 1) * masks / keep
    exact = torch.einsum("k,khw->hw", chance, terms)
    if norm == "coverage":  # a ratio: to first order, its error is that of this term
        terms = (scores.view(-1, 1, 1) - exact) * masks / keep
    spread = torch.einsum("k,khw->hw", chance, terms.square()) - (
        exact.square() if norm != "coverage" else 0
    )
    explainer = build("rise", masks=count, cells=2, keep=keep, norm=norm, score="logit")
    mine = explainer.explain(net, image, target)[0, 0]
    error = (mine - exact) / (spread / count).sqrt()
    assert error.abs().max() < 4.5, "more standard errors than chance allows"
    assert (exact / (spread / count).sqrt()).abs().max() > 20, "the expectation must stand out"


def test_masks_belong_to_the_seed_and_the_image() -> None:
    net, image = seeded(ResNetLike), pictures(1)

    def explain(image_id: str, **options: object) -> Tensor:
        explainer = build("rise", masks=4, cells=3, **options)
        return explainer.explain(net, image, TARGETS[:1], ids=[image_id])

    assert not torch.equal(explain("a"), explain("b"))
    assert not torch.equal(explain("a"), explain("a", seed=1))
    assert torch.equal(explain("a", shared=True), explain("b", shared=True))
