"""What every explainer must keep: one function that raises on the first breach.

All numbers are float64, so that a disagreement is a mistake and not rounding.
"""

import copy
import dataclasses
import json
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustlab.core import streaming
from robustlab.core.maps import Post, to_maps
from robustlab.core.tables import build, options_of
from robustlab.core.types import Differentiable, Explainer, HessianVector, Passes, Resolvable
from robustlab.core.untouched import frozen
from robustlab.core.wrapping import Counted, Smoothed, Wrapper

IDS = ("ada", "bob", "cyd")
SMOOTH_BETA = 5.0
PROBE = 1e-5  # small enough that the error of central differences is far below PRODUCT
AGREE, PRODUCT = 1e-10, 1e-4


def check_explainer(
    explainer: Explainer,
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    exact_cost: bool = True,
) -> None:
    """Raise AssertionError where ``explainer`` breaks its promises on three images.

    Args:
        net: float64, in eval mode; may have kinks, its softplus surrogate is made here.
        exact_cost: cost() counts whole-model passes and nothing else. Otherwise it may
            state more than a count of whole passes can see (a rule's own convolutions).
    """
    check_declaration(explainer)
    check_purity(explainer, net, images, targets)  # first: later, the damage may be done
    check_raw(explainer, net, images, targets)
    check_batches(explainer, net, images, targets)
    check_contexts(explainer, net, images, targets)
    if is_control(explainer):
        check_blindness(explainer, net, images, targets)
    else:
        check_failures(explainer, net, images, targets)
    check_cost(explainer, net, images, targets, exact_cost)
    smooth = Smoothed(net, SMOOTH_BETA)
    if explainer.differentiable != "none":
        check_graph(explainer, net, images, targets)
    if explainer.differentiable == "exact":
        for each in (net, smooth):
            check_derivative(explainer, each, images, targets)
    if isinstance(explainer, HessianVector):
        check_products(explainer, smooth, images, targets)


def is_control(explainer: Explainer) -> bool:
    """Does it say that it explains nothing?"""
    return explainer.about.family == "control"


# --- what it says of itself ------------------------------------------------------------------


def check_declaration(explainer: Explainer) -> None:
    assert dataclasses.is_dataclass(explainer), "not a dataclass"
    assert type(explainer).__dataclass_params__.frozen, "not frozen"
    assert all(f.kw_only for f in dataclasses.fields(explainer)), "options have an order"
    assert explainer.differentiable in get_args(Differentiable), "unknown differentiability"
    assert explainer.post in get_args(Post), "unknown post-processing"
    passes = explainer.cost()
    assert isinstance(passes, Passes), "cost is not a Passes"
    least = 0 if is_control(explainer) else 1
    assert passes.forward >= least and passes.backward >= 0, "cost is not a number of passes"
    try:
        hash(explainer)
    except TypeError as error:
        raise AssertionError(f"not hashable: {error}") from None
    options = options_of(explainer)
    table = {"it": type(explainer)}
    for twin in (
        copy.deepcopy(explainer),
        pickle.loads(pickle.dumps(explainer)),  # noqa: S301
        build(table, "explainer", "it", options),
        build(table, "explainer", "it", json.loads(json.dumps(options))),
    ):
        assert twin == explainer and hash(twin) == hash(explainer), "a copy is not equal"
        assert repr(twin) == repr(explainer), "a copy looks different"
    assert all(f"{name}=" in repr(explainer) for name in options), "repr hides an option"


# --- what it returns -------------------------------------------------------------------------


def check_raw(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    raw = explainer.explain(net, images, targets, ids=IDS)
    count, _, height, width = images.shape
    assert raw.ndim == 4 and raw.shape[0] == count, "not [B,C,h,w]"
    one_channel = raw.shape[1] == 1 and raw.shape[2] <= height and raw.shape[3] <= width
    assert raw.shape == images.shape or one_channel, "neither [B,C,H,W] nor [B,1,h,w]"
    assert raw.dtype == images.dtype, "another dtype"
    assert raw.device == images.device, "another device"
    assert torch.isfinite(raw).all(), "not finite"
    assert raw.abs().amax() > 0, "nothing attributed: the battery needs a map to judge"
    assert to_maps(raw, explainer.post, (height, width)).shape == (count, height, width)


def check_batches(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    def explain(where: list[int], ids: Sequence[str] | None) -> Tensor:
        names = None if ids is None else [ids[i] for i in where]
        return explainer.explain(net, images[where], targets[where], ids=names)

    every = list(range(len(images)))
    for ids in (None, IDS):
        whole = explainer.explain(net, images, targets, ids=ids)
        singles = torch.cat([explain([i], ids) for i in every])
        close(singles, whole, "mixes the images of a batch")
        order = every[-1:] + every[:-1]
        close(explain(order, ids), whole[order], "depends on the order of images")
    with micro_batches_of(2, images):
        close(explain(every, IDS), whole, "depends on the size of a micro-batch")
    twins = explainer.explain(net, images[:1].repeat(2, 1, 1, 1), targets[:1].repeat(2))
    close(twins[0:1], twins[1:2], "without ids, equal images get different noise")


# --- what it leaves behind -------------------------------------------------------------------


def check_purity(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    with untouched(net, images, targets):
        first = explainer.explain(net, images, targets, ids=IDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        second = explainer.explain(net, images, targets, ids=IDS)
    assert torch.equal(first, second), "a second call differs"
    with untouched(net, images, targets):
        if isinstance(explainer, Resolvable):
            explainer.resolved(net, images)
        if explainer.differentiable != "none":
            explainer.explain(net, images, targets, ids=IDS, create_graph=True)
        if isinstance(explainer, HessianVector):
            explainer.transpose_product(net, images, targets, images, step=0.01, ids=IDS)


def check_contexts(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    expected = explainer.explain(net, images, targets, ids=IDS)
    with torch.no_grad():
        with untouched(net, images, targets):
            inside = explainer.explain(net, images, targets, ids=IDS)
        close(inside, expected, "differs inside no_grad")
        if isinstance(explainer, HessianVector):
            explainer.transpose_product(net, images, targets, images, step=0.01, ids=IDS)
    with frozen(net), untouched(net, images, targets):
        without = explainer.explain(net, images, targets, ids=IDS)
    close(without, expected, "differs when the parameters are frozen")
    leaf = images.clone().requires_grad_()
    with untouched(net, leaf, targets):
        tracked = explainer.explain(net, leaf, targets, ids=IDS)
    close(tracked, expected, "differs when the images want a gradient")
    for raw in (expected, inside, without, tracked):
        assert not raw.requires_grad, "carries a graph that nobody asked for"
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    for laid_out in (strided, images.contiguous(memory_format=torch.channels_last)):
        with untouched(net, laid_out, targets):
            again = explainer.explain(net, laid_out, targets, ids=IDS)
        close(again, expected, "depends on strides")


class Boom(Exception):
    """Raised by the sabotaged nets below, and by nothing else."""


class _Bomb(torch.autograd.Function):
    """The identity, until its gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise Boom


class FailsAtCall(Wrapper):
    """Works until its ``number``-th forward pass."""

    def __init__(self, inner: nn.Module, number: int) -> None:
        super().__init__(inner)
        self.number, self.calls = number, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.number:
            raise Boom
        return self.inner(images)


def check_failures(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """An exception in the middle must come out, and nothing else must be left of it."""
    leaves = [name for name, module in net.named_modules() if not list(module.children())]
    for name in (leaves[0], leaves[len(leaves) // 2], leaves[-1]):
        broken = copy.deepcopy(net)
        broken.get_submodule(name).forward = _raise
        _fails_cleanly(explainer, broken, images, targets)
    if explainer.cost().backward:
        broken = copy.deepcopy(net)
        _explode_backwards(broken.get_submodule(leaves[-1]))
        _fails_cleanly(explainer, broken, images, targets)
    with micro_batches_of(1, images):
        for number in (1, 2, 3):
            _fails_cleanly(explainer, FailsAtCall(net, number), images, targets)


def check_blindness(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """A control's map is the same for another picture, class, name and model: no attack on any
    of them has a slope to follow, which is what ``differentiable = "none"`` says of it.
    """
    assert explainer.differentiable == "none", "a control with a gradient"
    expected = explainer.explain(net, images, targets, ids=IDS)
    for other in (
        explainer.explain(FailsAtCall(net, 1), images, targets, ids=IDS),
        explainer.explain(net, 1 - images, targets, ids=IDS),
        explainer.explain(net, images, targets.roll(1), ids=IDS),
        explainer.explain(net, images, targets, ids=IDS[::-1]),
        explainer.explain(net, images, targets),
    ):
        assert torch.equal(other, expected), "a control looks at something"
    assert torch.equal(expected[:1].expand_as(expected), expected), "images get different pictures"


def _raise(*_: object) -> Tensor:
    raise Boom


def _explode_backwards(module: nn.Module) -> None:
    forward = module.forward
    module.forward = lambda *inputs: _Bomb.apply(forward(*inputs))


def _fails_cleanly(
    explainer: Explainer, broken: nn.Module, images: Tensor, targets: Tensor
) -> None:
    if isinstance(broken, FailsAtCall):
        inner, number = broken.inner, broken.number
        fresh: Callable[[], nn.Module] = lambda: FailsAtCall(inner, number)  # noqa: E731
    else:
        fresh = lambda: broken  # noqa: E731
    calls: list[Callable[[nn.Module], object]] = [
        lambda net: explainer.explain(net, images, targets, ids=IDS)
    ]
    if explainer.differentiable != "none":
        calls.append(
            lambda net: explainer.explain(net, images, targets, ids=IDS, create_graph=True)
        )
    if isinstance(explainer, HessianVector):
        product = explainer.transpose_product
        calls.append(lambda net: product(net, images, targets, images, step=0.01, ids=IDS))
    for call in calls:
        net = fresh()
        with untouched(net, images, targets, after="an exception"), pytest.raises(Boom):
            call(net)


# --- what it costs ---------------------------------------------------------------------------


def check_cost(
    explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor, exact: bool
) -> None:
    if isinstance(explainer, Resolvable):
        explainer = explainer.resolved(net, images)
    stated, count = explainer.cost(), len(images)
    counted = Counted(net)
    explainer.explain(counted, images, targets, ids=IDS)
    found = Passes(counted.forwards / count, counted.backwards / count)
    if exact:
        assert found == stated, f"costs {found}, states {stated}"
    else:
        cheap = found.forward <= stated.forward and found.backward <= stated.backward
        assert cheap, f"costs {found}, more than stated {stated}"
    if isinstance(explainer, HessianVector):
        counted = Counted(net)
        explainer.transpose_product(counted, images, targets, images, step=0.01, ids=IDS)
        probes = Passes(counted.forwards / count, counted.backwards / count)
        twice = Passes(2 * stated.forward, 2 * stated.backward)
        assert probes == twice, f"a product costs {probes}, not two explanations"


# --- whether it can be attacked --------------------------------------------------------------


def check_graph(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """``create_graph`` gives the same numbers, with a graph."""
    plain = explainer.explain(net, images, targets, ids=IDS)
    leaf = images.clone().requires_grad_()
    raw = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    close(raw.detach(), plain, "create_graph changes the numbers")
    assert raw.requires_grad, "create_graph gives no graph"
    learnt = nn.Parameter(images.clone())  # an image that is being optimised is still an image
    raised = explainer.explain(net, 1 * learnt, targets, ids=IDS, create_graph=True)
    close(raised.detach(), plain, "takes an image made of a parameter for a weight")
    # A batch of one has its own strides, and frozen weights may take another path.
    with micro_batches_of(1, images):
        parts = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    with frozen(net):
        constant = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    whole, split, fixed = (_pulled_back(out, leaf) for out in (raw, parts, constant))
    close(split, whole, "the derivative depends on the size of a micro-batch")
    close(fixed, whole, "the derivative depends on which parameters are trainable")


def _pulled_back(raw: Tensor, leaf: Tensor) -> Tensor:
    """A vector-Jacobian product; zero where the map does not depend on the images."""
    found = None
    if raw.requires_grad:
        (found,) = torch.autograd.grad(raw, leaf, noise(raw, 1), allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def check_derivative(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    """The vector-Jacobian product of the graph equals central differences of the raw map.

    In the images, for attacks, and in the model's weights, for manipulated models. Piecewise
    smooth nets are no exception: the kinks have measure zero.
    """
    weights = [w for w in net.parameters() if w.requires_grad]
    leaf = images.clone().requires_grad_()
    raw = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    cotangent = noise(raw, 1)
    gradients = [
        torch.zeros_like(x) if g is None else g
        for x, g in zip(
            (leaf, *weights),
            torch.autograd.grad(raw, (leaf, *weights), cotangent, allow_unused=True),
            strict=True,
        )
    ]

    def projected(images: Tensor) -> float:
        found = explainer.explain(net, images, targets, ids=IDS)
        return float((found.detach() * cotangent).sum())

    for seed in (2, 3):
        direction = noise(images, seed)
        _equals_slope(
            [gradients[0]],
            [direction],
            lambda t, d=direction: projected(images + t * d),
            "create_graph is not the exact derivative in the images",
        )
    directions = [noise(w, 4 + i) for i, w in enumerate(weights)]

    def reweighted(t: float) -> float:
        with shifted(weights, directions, t):
            return projected(images)

    _equals_slope(
        gradients[1:],
        directions,
        reweighted,
        "create_graph is not the exact derivative in the weights",
    )


def _equals_slope(
    gradients: list[Tensor], directions: list[Tensor], value: Callable[[float], float], breach: str
) -> None:
    """Σ gradient·direction is the slope of ``value`` at 0, for at least one probe length."""
    products = torch.cat([(g * d).flatten() for g, d in zip(gradients, directions, strict=True)])
    claimed = float(products.sum())
    scale = float(products.norm()) + abs(claimed)
    here, gaps = abs(value(0.0)), []
    for h in (1e-6, 1e-5, 1e-7):  # a kink or a steep place may spoil one of them
        slope = (value(h) - value(-h)) / (2 * h)
        gaps.append((abs(slope - claimed), 1e-5 * scale + 1e-14 * here / h))
        if gaps[-1][0] <= gaps[-1][1]:
            return
    raise AssertionError(f"{breach}: off by {gaps[0][0]:.3g} where {claimed:.6g} is claimed")


def check_products(
    explainer: HessianVector, net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    """On a smooth net a product with a small step is the exact vector-Jacobian product."""
    leaf = images.clone().requires_grad_()
    raw = explainer.explain(net, leaf, targets, ids=IDS, create_graph=True)
    cotangent = noise(raw, 1)
    (exact,) = torch.autograd.grad(raw, leaf, cotangent)
    for given in (images, leaf):
        product = explainer.transpose_product(net, given, targets, cotangent, step=PROBE, ids=IDS)
        assert not product.requires_grad, "carries a graph that nobody asked for"
        close(product, exact, "transpose_product is not the vector-Jacobian product", PRODUCT)
    nothing = explainer.transpose_product(
        net, images, targets, torch.zeros_like(cotangent), step=PROBE, ids=IDS
    )
    assert not nothing.any(), "transpose_product of nothing is something"


# --- tools -----------------------------------------------------------------------------------


def noise(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def close(got: Tensor, expected: Tensor, breach: str, tolerance: float = AGREE) -> None:
    """Equal up to ``tolerance`` times the largest value of each image."""
    assert got.shape == expected.shape, f"{breach}: shape {got.shape} against {expected.shape}"
    scale = expected.flatten(1).abs().amax(1)
    gap = (got - expected).flatten(1).abs().amax(1)
    worst = float((gap / scale.clamp(min=1e-300)).max())
    assert worst <= tolerance, f"{breach}: off by {worst:.3g} of the largest value"


def micro_batches_of(count: int, images: Tensor) -> Any:
    """Force micro-batches of at most ``count`` images of this size."""
    pixels = count * images.shape[-1] * images.shape[-2]
    return mock.patch.object(streaming, "PIXELS_PER_MICRO_BATCH", pixels)


@contextmanager
def shifted(weights: list[Tensor], directions: list[Tensor], t: float) -> Iterator[None]:
    """The weights moved by ``t`` times the directions; restored bit for bit."""
    kept = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w, d in zip(weights, directions, strict=True):
            w.add_(d, alpha=t)
    try:
        yield
    finally:
        with torch.no_grad():
            for w, before in zip(weights, kept, strict=True):
                w.copy_(before)


@contextmanager
def untouched(
    net: nn.Module, images: Tensor, targets: Tensor, after: str = "a call"
) -> Iterator[None]:
    """Net, inputs and torch's global state are the same afterwards."""
    before = snapshot(net, images, targets)
    yield
    now = snapshot(net, images, targets)
    changed = [key for key in {**before, **now} if not _same(before.get(key), now.get(key))]
    assert not changed, f"left behind after {after}: {', '.join(changed)}"


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def snapshot(net: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Any]:
    """Everything that an explainer could forget to put back, by a name a reader understands."""
    state: dict[str, Any] = {
        "the global random numbers of torch": torch.get_rng_state(),
        "the global random numbers of numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "the global random numbers of python": random.getstate(),
        "a torch function mode": torch._C._len_torch_function_stack(),
        "a torch dispatch mode": torch._C._len_torch_dispatch_stack(),
        "the grad mode": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "a global hook": sum(
            len(hooks)
            for name, hooks in vars(nn.modules.module).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        ),
    }
    tensors = {"the images": images, "the targets": targets}
    tensors |= {f"parameter {name}": p for name, p in net.named_parameters()}
    tensors |= {f"buffer {name}": b for name, b in net.named_buffers()}
    for name, tensor in tensors.items():
        state[f"value of {name}"] = tensor.detach().clone()
        state[f".grad of {name}"] = None if tensor.grad is None else tensor.grad.clone()
        state[f"requires_grad of {name}"] = tensor.requires_grad
        state[f"a hook on {name}"] = len(tensor._backward_hooks or ())
    for name, module in {"(itself)": net, **dict(net.named_modules())}.items():
        state[f"training flag of module {name}"] = module.training
        state[f"type of module {name}"] = type(module)
        state[f"an attribute of module {name}"] = sorted(vars(module))
        for hooks in _HOOKS:
            state[f"{hooks} of module {name}"] = list(getattr(module, hooks))
    return state


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and a == b
