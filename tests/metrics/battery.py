"""What every metric of two maps must keep: one function that raises on the first breach."""

import dataclasses

import pytest
import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput
from robustlab.core.types import Metric
from robustlab.metrics import METRICS

HEIGHT, WIDTH = 12, 13  # just above SSIM's window, and not square
EXACT = 1e-12

# The metrics of two maps; those of a map and a region are not called but measure, those
# that ask the model assess, and those of a map alone describe it.
PAIRWISE = [name for name, cls in METRICS.items() if "__call__" in vars(cls)]
ASKING = [name for name, cls in METRICS.items() if "assess" in vars(cls)]
DESCRIBING = [name for name, cls in METRICS.items() if "describe" in vars(cls)]


def maps(kind: str) -> Tensor:
    """Three maps of one kind, the same in every run."""
    g = torch.Generator().manual_seed(11)
    shape = (3, HEIGHT, WIDTH)
    normal = torch.randn(shape, generator=g, dtype=torch.float64)
    return {
        "normal": normal,
        "tied": torch.randint(-1, 2, shape, generator=g).double(),
        "sparse": normal.clamp(min=1.0) - 1.0,
        "one pixel": torch.zeros(shape, dtype=torch.float64).index_fill_(2, torch.tensor(3), 2.0),
        "constant": torch.full(shape, 0.1, dtype=torch.float64),
        "zero": torch.zeros(shape, dtype=torch.float64),
        "nearly constant": 0.1 + 1e-15 * normal,
        "tiny": 1e-200 * normal,
        "subnormal": (4 * normal).round() * 5e-324,
        "huge": 1.7e308 * (normal / normal.abs().max()),
    }[kind]


KINDS = (
    "normal",
    "tied",
    "sparse",
    "one pixel",
    "constant",
    "zero",
    "nearly constant",
    "tiny",
    "subnormal",
    "huge",
)


def check_metric(
    metric: Metric, *, symmetric: bool = True, positionless: bool = True, float32: float = EXACT
) -> None:
    """Raise AssertionError where ``metric`` breaks its promises.

    Args:
        symmetric: claims d(a, b) = d(b, a).
        positionless: claims that moving the pixels of both maps alike changes nothing.
        float32: how far values of float32 maps may be from those of the same maps in float64.
    """
    check_declaration(metric)
    check_values(metric)
    check_identity(metric)
    check_purity(metric, float32)
    check_batches(metric)
    check_refusals(metric)
    if symmetric:
        a, b = pairs()
        close(metric(a, b), metric(b, a), "not symmetric")
    if positionless:
        check_positionless(metric)


def pairs() -> tuple[Tensor, Tensor]:
    """Every kind of map against every kind, never an image against itself, as one batch."""
    both = [(maps(one), maps(other).roll(1, 0)) for one in KINDS for other in KINDS]
    clean, perturbed = zip(*both, strict=True)
    return torch.cat(clean), torch.cat(perturbed)


def check_declaration(metric: Metric) -> None:
    assert dataclasses.is_dataclass(metric), "not a dataclass"
    assert type(metric).__dataclass_params__.frozen, "not frozen"
    low, high = metric.bounds
    assert low < high, "empty bounds"
    for pixels in (1, 100, 50176):
        chance = metric.chance(pixels)
        assert chance is None or low <= chance <= high, "chance outside the bounds"


def check_values(metric: Metric) -> None:
    low, high = metric.bounds
    a, b = pairs()
    value = metric(a, b)
    assert value.shape == (len(a),), "not one number per image"
    assert value.dtype == torch.float64, "not float64"
    assert torch.isfinite(value).all(), "not finite"
    assert ((low <= value) & (value <= high)).all(), "outside its bounds"


def check_identity(metric: Metric) -> None:
    best = metric.bounds[1] if metric.higher_is_more_stable else metric.bounds[0]
    for kind in KINDS:
        a = maps(kind)
        close(metric(a, a.clone()), torch.full((len(a),), best).double(), "d(a, a) is not best")


def check_purity(metric: Metric, float32: float) -> None:
    a, b = maps("normal"), maps("tied")
    value = metric(a, b)
    assert torch.equal(a, maps("normal")) and torch.equal(b, maps("tied")), "changed its input"
    assert torch.equal(metric(a, b), value), "a second call differs"
    a32, b32 = a.float(), b.float()
    exact = metric(a32.double(), b32.double())
    close(metric(a32, b32), exact, "float32 is not computed exactly", float32)
    strided = a.transpose(1, 2).contiguous().transpose(1, 2)
    close(metric(strided, b), value, "depends on strides")
    for one, other in ((a.clone().requires_grad_(), b), (a, b.clone().requires_grad_())):
        assert not metric(one, other).requires_grad, "carries a gradient"


def check_batches(metric: Metric) -> None:
    for one, other in (("normal", "normal"), ("tied", "sparse"), ("sparse", "huge")):
        a, b = maps(one), maps(other).roll(1, 0)
        b[0] = b[0, 0, 0]  # a degenerate image must not spoil its neighbours
        whole = metric(a, b)
        single = torch.cat([metric(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
        close(single, whole, "mixes the images of a batch")
    a, b = maps("constant"), maps("constant")
    b[2] = 0.7
    expected = torch.cat([metric(a[:1], b[:1])] * 3)
    expected[2] = metric(a[2:3], b[2:3])[0]
    close(metric(a, b), expected, "mixes the images of a batch")
    assert metric(a[:0], b[:0]).shape == (0,), "no image in must give no number out"


def check_refusals(metric: Metric) -> None:
    a = maps("normal")
    for bad in (float("nan"), float("inf"), -float("inf")):
        broken = a.clone()
        broken[2, 3, 4] = bad
        refuses(metric, broken, a, "clean")
        refuses(metric, a, broken, "perturbed")
    refuses(metric, a, a[:, :, :-1], "perturbed")
    refuses(metric, a, a[:-1], "perturbed")
    refuses(metric, a[0], a[0], "clean")
    refuses(metric, a[:, None], a[:, None], "clean")
    refuses(metric, a[:, :0], a[:, :0], "clean")
    refuses(metric, a.to(torch.complex128), a, "clean")
    refuses(metric, a.numpy(), a, "clean")


def check_positionless(metric: Metric) -> None:
    order = torch.randperm(HEIGHT * WIDTH, generator=torch.Generator().manual_seed(3))
    for one, other in (("normal", "tied"), ("tied", "tied"), ("sparse", "one pixel")):
        a, b = maps(one), maps(other).roll(1, 0)
        moved = (m.flatten(1)[:, order].view_as(m) for m in (a, b))
        close(metric(*moved), metric(a, b), "depends on where pixels are, or on how ties fall")


def refuses(metric: Metric, clean: object, perturbed: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        metric(clean, perturbed)
    assert caught.value.field == field, f"blames {caught.value.field!r} instead of {field!r}"


def close(got: Tensor, expected: Tensor, breach: str, within: float = EXACT) -> None:
    gap = (got - expected).abs() / expected.abs().clamp(min=1.0)
    assert (gap <= within).all(), f"{breach}: {got.tolist()} against {expected.tolist()}"
