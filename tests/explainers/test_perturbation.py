"""What the perturbation family shares: streamed blends, infills, masks that are learnt."""

import numpy as np
import pytest
import torch
from skimage.restoration import inpaint_biharmonic
from torch import Tensor, nn

from robustlab.core import streaming
from robustlab.core.blur import gaussian_blur
from robustlab.core.score import score_of
from robustlab.explainers.perturbation.blends import blended_scores
from robustlab.explainers.perturbation.infill import diffused, infill_of
from robustlab.explainers.perturbation.masks import Adam, cell_grid, slope
from tests.nets import Recorder, Softplus, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-10, "atol": 1e-12}
COUNT = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- scores of blends -------------------------------------------------------------------------

KEEP = torch.rand(COUNT, 3, 1, 12, 12, generator=generator(), dtype=torch.float64)


def keep(js: range, where: slice) -> Tensor:
    return KEEP[js.start : js.stop, where]


def naive_scores(net: nn.Module, images: Tensor, infill: Tensor) -> Tensor:
    blends = (mask * images + (1 - mask) * infill for mask in KEEP)
    return torch.stack([score_of(net(blend), TARGETS, "prob") for blend in blends])


def streamed_scores(net: nn.Module, images: Tensor, infill: Tensor) -> Tensor:
    return blended_scores(
        net, images, infill, TARGETS, COUNT, keep, score="prob", create_graph=True
    )


@pytest.mark.parametrize("size", [1, 2, 4, 100])
def test_blended_scores_and_their_derivatives_equal_a_naive_loop(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PIXELS_PER_MICRO_BATCH", size * 12 * 12)
    net = seeded(VGGLike)
    leaves = [pictures().requires_grad_(), pictures(seed=2).requires_grad_(), *net.parameters()]
    recorder = Recorder(net)
    streamed = streamed_scores(recorder, *leaves[:2])
    naive = naive_scores(net, *leaves[:2])
    torch.testing.assert_close(streamed, naive, **EXACT)
    cotangent = torch.randn(COUNT, 3, generator=generator(1), dtype=torch.float64)
    found = torch.autograd.grad(streamed, leaves, cotangent)
    for mine, oracle in zip(found, torch.autograd.grad(naive, leaves, cotangent), strict=True):
        torch.testing.assert_close(mine, oracle, **EXACT)
    assert max(recorder.sizes) <= size, "more than a micro-batch at a time"
    assert sum(recorder.sizes) == 2 * COUNT * 3, "one pass for the values, one for the gradient"


def test_a_graph_of_blends_holds_no_activations() -> None:
    net, images = seeded(VGGLike), pictures().requires_grad_()
    kept: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        streamed_scores(net, images, 0 * images)
        assert sum(kept) == 2 * images.numel() + sum(p.numel() for p in net.parameters())
        kept.clear()
        naive_scores(net, images, 0 * images)
        assert sum(kept) > 50 * images.numel(), "the counter must see a graph"


def test_weights_changed_before_the_backward_pass_are_noticed() -> None:
    net, images = seeded(VGGLike), pictures().requires_grad_()
    scores = streamed_scores(net, images, 0 * images)
    with torch.no_grad():
        net.head[2].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        scores.sum().backward()


def test_a_second_derivative_is_exact_too() -> None:
    net, infill = seeded(Softplus), pictures(seed=2)
    second = []
    for scores_of in (naive_scores, streamed_scores):
        images = pictures().requires_grad_()
        scores = scores_of(net, images, infill)
        (first,) = torch.autograd.grad(scores.square().sum(), images, create_graph=True)
        second.append(torch.autograd.grad(first.pow(3).sum(), (images, net.conv.weight)))
    for mine, oracle in zip(*reversed(second), strict=True):
        torch.testing.assert_close(mine, oracle, **EXACT)


# --- infills ----------------------------------------------------------------------------------


def infill(images: Tensor, kind: str | float, ids: tuple[str, ...] | None = None) -> Tensor:
    return infill_of(images, kind, blur=0.2, ids=ids, seed=4, purpose="test")


def test_constant_mean_and_blur() -> None:
    images = pictures(2)[..., :9]
    assert torch.equal(infill(images, 0.3), torch.full_like(images, 0.3))
    assert torch.equal(infill(images, "blur"), gaussian_blur(images, 0.2 * 9))
    colour = infill(images, "mean")[1, 2]
    torch.testing.assert_close(colour, images[1, 2].mean().expand(12, 9), **EXACT)


def test_noise_is_speckle_about_a_colour_that_belongs_to_the_image() -> None:
    images = torch.zeros(2, 3, 64, 64, dtype=torch.float64)
    noise = infill(images, "noise", ("a", "b"))
    assert noise.min() >= 0 and noise.max() <= 1
    assert torch.equal(infill(images[1:], "noise", ("b",)), noise[1:])
    colour = noise.mean((2, 3), keepdim=True)
    assert (colour[0] - colour[1]).abs().max() > 0.05
    speckle = noise - colour
    assert torch.corrcoef(speckle.flatten(1))[0, 1].abs() < 0.1, "and so does the speckle"
    assert torch.equal(*infill(images, "noise"))
    middle = (noise.mean((2, 3)) - 0.5).abs().argmin()  # where hardly anything is clipped
    assert noise.flatten(0, 1)[middle].std() == pytest.approx(0.2, abs=0.02)


def smooth_scene(size: int = 32) -> Tensor:
    y, x = torch.meshgrid(*(torch.linspace(0, 1, size, dtype=torch.float64),) * 2, indexing="ij")
    return torch.stack([0.2 + 0.6 * x, y, 0.5 + 0.4 * torch.sin(3 * x + 2 * y)]).unsqueeze(0)


def test_diffusion_fills_a_hole_nearly_as_a_biharmonic_inpainting_does() -> None:
    image = smooth_scene()
    keep = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    keep[..., 9:20, 12:25] = 0
    keep[..., 25:30, 2:9] = 0
    hole = keep.expand_as(image) == 0
    filled = diffused(image, keep)
    reference = inpaint_biharmonic(
        image[0].permute(1, 2, 0).numpy(), keep[0, 0].numpy() == 0, channel_axis=-1
    )
    oracle = torch.from_numpy(np.moveaxis(reference, -1, 0)).unsqueeze(0)
    error = (filled - oracle)[hole].square().mean().sqrt()
    flat = (image.mean((2, 3), keepdim=True) - oracle)[hole].square().mean().sqrt()
    assert error < 0.05 and error < flat / 4


def test_diffusion_keeps_what_is_known_and_sees_nothing_of_what_is_hidden() -> None:
    keep = (torch.rand(3, 1, 12, 12, generator=generator(), dtype=torch.float64) < 0.3).double()
    images = pictures().requires_grad_()
    filled = diffused(images, keep)
    known = (keep == 1).expand_as(images)
    assert torch.equal(filled[known], images[known])
    (influence,) = torch.autograd.grad(filled.square().sum(), images)
    assert not influence[~known].any() and influence[known].all()
    flat = torch.full_like(images, 0.7)
    torch.testing.assert_close(diffused(flat, keep), flat, **EXACT)
    assert (diffused(flat, 0 * keep) == 0.5).all(), "nothing kept: mid-grey"
    odd = diffused(images[..., :7, :5], keep[..., :7, :5])
    assert odd.shape == (3, 3, 7, 5) and odd.isfinite().all()


# --- masks that are learnt --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "shape", "expected"),
    [(7, (28, 28), (7, 7)), (7, (28, 42), (7, 10)), (50, (12, 9), (12, 9)), (1, (8, 24), (1, 3))],
)
def test_cells_are_nearly_square_and_at_least_a_pixel(cells, shape, expected) -> None:
    assert cell_grid(cells, torch.zeros(1, 1, *shape)) == expected


def test_adam_is_torchs() -> None:
    gradients = torch.randn(6, 2, 3, generator=generator(), dtype=torch.float64)
    oracle = torch.ones(2, 3, dtype=torch.float64)
    optimiser = torch.optim.Adam([oracle], lr=0.1)
    mine, adam = oracle.clone(), Adam(0.1)
    for gradient in gradients:
        oracle.grad = gradient
        optimiser.step()
        mine = adam(mine, gradient)
        torch.testing.assert_close(mine, oracle, **EXACT)


def test_slope_is_the_gradient_through_mask_and_model() -> None:
    net, images = seeded(VGGLike), pictures()
    point = torch.rand(3, 1, 12, 12, generator=generator(), dtype=torch.float64)
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def game(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return mask.square() * images, weight, mask.pow(3).sum()

    leaf = point.clone().requires_grad_()
    scores = score_of(net(leaf.square() * images), TARGETS, "logprob")
    (oracle,) = torch.autograd.grad((weight * scores).sum() + leaf.pow(3).sum(), leaf)
    mine = slope(net, point, TARGETS, game, "logprob")
    torch.testing.assert_close(mine, oracle, **EXACT)
    assert not point.requires_grad
