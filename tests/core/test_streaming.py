"""Micro-batches against naive loops, and Hessian products against a known Hessian."""

import pytest
import torch
from torch import Tensor, nn

from robustlab.core import streaming
from robustlab.core.errors import InvalidInput
from robustlab.core.score import score_of
from robustlab.core.streaming import (
    copies,
    each_micro_batch,
    explained_logit,
    fast_layout,
    hessian_vector,
    input_gradient,
    logits_of,
    micro_batch,
    run_model,
    sum_of_gradients,
)
from robustlab.explainers import build
from tests.nets import Quadratic, Recorder, ResNetLike, Softplus, VGGLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(params=[1, 2, 4, 100])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Forces micro-batches of that many 12x12 images."""
    monkeypatch.setattr(streaming, "PIXELS_PER_MICRO_BATCH", request.param * 12 * 12)
    return request.param


OFFSETS = torch.linspace(-0.1, 0.1, 3, dtype=torch.float64).view(-1, 1, 1, 1)


def alter(part: Tensor, j: int, where: slice) -> Tensor:
    """Depends on the copy and on the image's place in the batch: neither may be mixed up."""
    return part * (1 + j) + OFFSETS[: TARGETS.numel()][where] * j


def weight(j: int) -> float:
    return 0.5 + j


def naive(net: nn.Module, images: Tensor, count: int) -> Tensor:
    """One image and one copy at a time."""
    sums = []
    for i in range(len(images)):
        where = slice(i, i + 1)
        total = torch.zeros_like(images[where])
        for j in range(count):
            copy = alter(images[where], j, where)
            if not copy.requires_grad:
                copy.requires_grad_()
            score = score_of(net(copy), TARGETS[where])
            total = total + weight(j) * torch.autograd.grad(score, copy, create_graph=True)[0]
        sums.append(total)
    return torch.cat(sums)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("images", [1, 3])
def test_sum_of_gradients_equals_a_naive_loop(size, count, images):
    net, x = seeded(ResNetLike), pictures(images)
    found = sum_of_gradients(net, x, TARGETS[:images], count, alter, weight)
    torch.testing.assert_close(found, naive(net, x, count).detach(), **EXACT)
    assert not found.requires_grad


@pytest.mark.parametrize("count", [1, 3])
def test_sum_of_gradients_is_differentiable_like_a_naive_loop(size, count):
    net, cotangent = seeded(Softplus), pictures(seed=5)
    derivatives = []
    for method in ("ours", "naive"):
        leaf = pictures().requires_grad_()
        if method == "ours":
            sums = sum_of_gradients(net, leaf, TARGETS, count, alter, weight, create_graph=True)
        else:
            sums = naive(net, leaf, count)
        derivatives.append(torch.autograd.grad(sums, (leaf, *net.parameters()), cotangent,
                                               allow_unused=True)[:-1])  # fmt: skip
    for ours, theirs in zip(*derivatives, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("images", [1, 3, 5])
def test_copies_cover_everything_once_and_in_order(size, count, images):
    x = torch.arange(images, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 12, 12)
    seen: dict[int, list[int]] = {i: [] for i in range(images)}
    for js, where, stack in copies(x, count, lambda part, j, _: part + 1000 * j):
        assert len(stack) <= max(1, size)
        assert len(stack) == len(js) * len(x[where])
        pairs = [(j, i) for j in js for i in range(where.start, where.stop)]
        for (j, i), image in zip(pairs, stack, strict=True):
            assert (image == i + 1000 * j).all(), "copy-major order"
            seen[i].append(j)
    assert all(js == list(range(count)) for js in seen.values())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gradient", {}),
        ("input_x_gradient", {}),
        ("guided_backprop", {}),
        ("smooth_grad", {"samples": 20}),
        ("integrated_gradients", {"steps": 20}),
        ("lrp", {}),
        ("grad_cam", {}),
    ],
)
def test_memory_does_not_grow_with_the_number_of_copies(monkeypatch, name, options):
    monkeypatch.setattr(streaming, "PIXELS_PER_MICRO_BATCH", 2 * 12 * 12)
    net, explainer = Recorder(seeded(VGGLike)), build(name, **options)
    images, targets = pictures(5), torch.tensor([0, 1, 2, 3, 4])
    explainer.explain(net, images, targets)
    assert max(net.sizes) == 2, "a pass holds one micro-batch"
    assert sum(net.sizes) <= 5 * explainer.cost().forward + 1, "no image is computed twice"
    if hasattr(explainer, "transpose_product"):
        net.sizes.clear()
        explainer.transpose_product(net, images, targets, images, step=0.01)
        assert max(net.sizes) == 2
        assert sum(net.sizes) == 2 * 5 * explainer.cost().forward


def test_logits_come_in_micro_batches_without_a_graph(size):
    net, images = Recorder(seeded(VGGLike)), pictures(5).requires_grad_()
    logits = logits_of(net, images)
    assert max(net.sizes) == min(size, 5) and sum(net.sizes) == 5
    assert not logits.requires_grad
    torch.testing.assert_close(logits, net.net(images).detach(), **EXACT)


@pytest.mark.parametrize(
    ("side", "expected"), [(224, 8), (448, 2), (1000, 1), (28, 512), (1, 512), (112, 32)]
)
def test_micro_batch_by_image_size(side, expected):
    assert micro_batch(torch.empty(0, 3, side, side)) == expected


def test_each_micro_batch_hands_out_matching_slices(size):
    images, targets = pictures(5), torch.arange(5)

    def run(part: Tensor, labels: Tensor, where: slice) -> Tensor:
        assert torch.equal(part, images[where]) and torch.equal(labels, targets[where])
        assert len(part) <= size
        return part * 2

    assert torch.equal(each_micro_batch(images, targets, run), images * 2)


# --- Hessian products -----------------------------------------------------------------------


@pytest.fixture
def quadratic() -> Quadratic:
    return seeded(lambda: Quadratic(3 * 4 * 4, classes=4))


@pytest.mark.parametrize("step", [1e-3, 0.1, 10.0])
def test_products_with_a_quadratic_nets_hessian_are_exact(size, quadratic, step):
    x, v = pictures(size=4), pictures(size=4, seed=2) - 0.5
    v[1] *= 1e-6  # each image has its own probe length
    v[2] *= 1e6
    product, gradient = hessian_vector(quadratic, x, TARGETS, v, step=step)
    hessians = quadratic.a.detach()[TARGETS]
    expected = torch.einsum("bij,bj->bi", hessians, v.flatten(1)).view_as(v)
    slope = torch.einsum("bij,bj->bi", hessians, x.flatten(1)) + quadratic.b.detach()[TARGETS]
    for i in range(3):
        torch.testing.assert_close(product[i], expected[i], rtol=1e-8, atol=1e-8 * v[i].abs().max())
    torch.testing.assert_close(gradient, slope.view_as(x), rtol=1e-8, atol=1e-8)


def test_probes_are_as_long_as_they_say():
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return x.flatten(1).square()

    x, v = pictures(2, size=4), 7 * pictures(2, size=4, seed=2)
    hessian_vector(Spy(), x, TARGETS[:2], v, step=0.03)
    plus, minus = torch.cat(seen).chunk(2)
    assert (plus - x).flatten(1).abs().amax(1).tolist() == pytest.approx([0.03, 0.03])
    torch.testing.assert_close(plus - x, x - minus)


def test_the_product_with_zero_is_zero(quadratic):
    x = pictures(size=4)
    for dtype in (torch.float64, torch.float32):
        net, images = quadratic.to(dtype), x.to(dtype)
        product, gradient = hessian_vector(net, images, TARGETS, 0 * images, step=0.1)
        assert not product.any()
        torch.testing.assert_close(gradient, input_gradient(net, images, TARGETS))


@pytest.mark.parametrize("score", ["logit", "prob", "logprob", "margin"])
def test_products_equal_autograds_on_a_smooth_net(score):
    net, v = seeded(Softplus), pictures(seed=2) - 0.5
    leaf = pictures().requires_grad_()
    gradient = input_gradient(net, leaf, TARGETS, score=score, create_graph=True)
    (exact,) = torch.autograd.grad(gradient, leaf, v)
    product, middle = hessian_vector(net, pictures(), TARGETS, v, step=1e-4, score=score)
    torch.testing.assert_close(product, exact, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(middle, gradient.detach(), rtol=1e-6, atol=1e-9)


# --- one pass -------------------------------------------------------------------------------


def test_relevance_may_start_with_the_score():
    net, x = seeded(VGGLike), pictures()
    plain = input_gradient(net, x, TARGETS)
    scored = input_gradient(net, x, TARGETS, start=explained_logit)
    scores = score_of(logits_of(net, x), TARGETS)
    torch.testing.assert_close(scored, plain * scores.view(-1, 1, 1, 1), **EXACT)


class EditsAndFlattens(nn.Module):
    """Works in place on the images, and flattens in a way that channels-last memory forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(400, 5)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2.0).sub_(1.0)
        return self.fc(self.conv(x).view(len(x), -1))


def test_a_model_that_works_in_place_does_not_reach_the_callers_images():
    net, x = seeded(EditsAndFlattens), pictures()
    before = x.clone()
    for _ in range(2):  # the second time the engine knows that the model needs plain memory
        logits_of(net, x)
        assert torch.equal(x, before)


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 5)


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum((1, 2, 3))


def test_models_without_a_gradient_or_logits_are_refused():
    with pytest.raises(InvalidInput, match="does not depend on the image") as caught:
        input_gradient(Constant(), pictures(), TARGETS)
    assert caught.value.field == "model"
    with pytest.raises(InvalidInput, match="expected logits"):
        logits_of(Flat(), pictures())
    with pytest.raises(InvalidInput, match="expected logits"):
        input_gradient(Flat(), pictures(), TARGETS)


class EditsItsInput(nn.Module):
    """Normalises in place, as some published models do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(0.2)
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_model_that_edits_its_input_does_not_edit_the_callers(channels, layout):
    net = seeded(lambda: EditsItsInput(channels))
    images = pictures(channels=channels).contiguous(memory_format=layout)
    before = images.clone()
    logits = logits_of(net, images)
    assert torch.equal(images, before)
    torch.testing.assert_close(logits, net(images.clone()).detach(), **EXACT)
    for name in ("gradient", "guided_backprop", "smooth_grad", "lrp", "grad_cam"):
        raw = build(name).explain(net, images, TARGETS)
        assert torch.equal(images, before), name
        assert torch.isfinite(raw).all() and raw.any(), name


def test_fast_layout_is_a_copy_of_the_same_numbers():
    for images in (pictures(), pictures(channels=1), pictures()[0]):
        fast = fast_layout(images)
        assert torch.equal(fast, images) and fast.data_ptr() != images.data_ptr()
    assert fast_layout(pictures()).is_contiguous(memory_format=torch.channels_last)


class Viewing(torch.nn.Module):
    """Flattens with ``view``, as much older code does: channels-last memory makes that fail."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4 * 10 * 10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).view(len(x), -1))


def test_a_model_that_needs_plain_memory_gets_it():
    net, images = seeded(Viewing), pictures()
    with pytest.raises(RuntimeError, match="view size"):
        net(fast_layout(images))
    for name in ("lrp", "grad_cam", "smooth_grad"):  # each meets the model for the first time
        assert build(name).explain(seeded(Viewing), images, TARGETS).isfinite().all()
    assert torch.equal(logits_of(net, images), net(images))
    leaf = images.clone().requires_grad_()
    (plain,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(input_gradient(net, images, torch.ones(3).long()), plain)


def test_a_model_that_breaks_for_another_reason_is_not_called_again():
    calls = []

    class Breaking(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(x)
            raise RuntimeError("the accelerator is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        run_model(Breaking(), pictures())
    assert len(calls) == 1
