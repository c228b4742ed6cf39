"""What every metric that asks the model must keep: one function that raises on a breach."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from robustlab.core import streaming
from robustlab.core.errors import InvalidInput
from robustlab.core.types import MapMetric, ModelMetric, RegionMetric
from robustlab.core.wrapping import Counted
from tests.nets import ResNetLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
IDS = ("ada", "bob", "cyd")
SIDE = 12  # of the pictures
PIXELS = SIDE * SIDE
EXACT = 1e-12
CAUGHT = "PIXELS_PER_MICRO_BATCH"


def some_maps(seed: int = 0, kind: str = "normal") -> Tensor:
    """Three maps of one kind, the same in every run."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(3, SIDE, SIDE, generator=g, dtype=torch.float64)
    return {
        "normal": normal,
        "tied": torch.randint(-1, 2, normal.shape, generator=g).double(),
        "constant": torch.full_like(normal, 0.3),
        "zero": torch.zeros_like(normal),
        "tiny": 1e-200 * normal,
        "huge": 1.7e308 * (normal / normal.abs().max()),
    }[kind]


class Confident(nn.Module):
    """Answers that go up and down with the picture, so that curves have a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = seeded(ResNetLike)
        self.usual = nn.Parameter(self.inner(pictures()).mean(0).detach())

    def forward(self, x: Tensor) -> Tensor:
        return 25 * (self.inner(x) - self.usual)


def check_asking(metric: ModelMetric, patch: pytest.MonkeyPatch) -> None:
    """Raise AssertionError where ``metric`` breaks its promises."""
    net = Confident().eval()
    check_declaration(metric)
    check_values(metric, net)
    check_order(metric, net)
    check_names(metric, net)
    check_purity(metric, net)
    check_refusals(metric, net)
    with patch.context() as small:
        check_batches(metric, net, small)
    with patch.context() as small:
        check_cost(metric, small)


def ask(metric: ModelMetric, net: nn.Module, maps: Tensor, ids: tuple[str, ...] = IDS) -> Tensor:
    return metric.assess(net, pictures(), TARGETS, maps, ids)


def check_declaration(metric: ModelMetric) -> None:
    assert dataclasses.is_dataclass(metric) and type(metric).__dataclass_params__.frozen
    assert isinstance(metric, ModelMetric), "no metric that asks the model"
    assert not isinstance(metric, RegionMetric | MapMetric) and not callable(metric)
    low, high = metric.bounds
    assert low < high, "empty bounds"


def check_values(metric: ModelMetric, net: nn.Module) -> None:
    low, high = metric.bounds
    for kind in ("normal", "tied", "constant", "zero", "tiny", "huge"):
        value = ask(metric, net, some_maps(kind=kind))
        assert value.shape == (3,) and value.dtype == torch.float64, "not one float64 per image"
        assert torch.isfinite(value).all(), "not finite"
        assert ((low <= value) & (value <= high)).all(), "outside its bounds"
    assert not value.requires_grad and not value.is_inference()


def check_order(metric: ModelMetric, net: nn.Module) -> None:
    maps = some_maps()
    value = ask(metric, net, maps)
    others = [ask(metric, net, m) for m in (7 * maps - 3, maps**3, 1e-200 * maps, maps.exp())]
    same = [torch.equal(value, other) for other in others]
    if metric.only_order:
        assert all(same), "not only the order counts"
    else:
        assert not any(same[i] for i in (0, 1, 3)), "only the order counts"
    assert not torch.equal(ask(metric, net, maps.abs()), value), "the map plays no part"


def check_names(metric: ModelMetric, net: nn.Module) -> None:
    """What is random belongs to an image's name, whatever the program's own generator does."""
    maps = some_maps()
    value = ask(metric, net, maps)
    torch.rand(1)
    assert torch.equal(ask(metric, net, maps), value), "a second call differs"
    renamed = ask(metric, net, maps, ("ada", "eve", "cyd"))
    differs = (renamed != value).tolist()
    if not hasattr(metric, "seed"):
        assert not any(differs), "depends on names, but has no seed"
        return
    assert differs == [False, True, False], "randomness is not that of the image's name"
    reseeded = ask(dataclasses.replace(metric, seed=metric.seed + 1), net, maps)
    assert (reseeded != value).all(), "the seed plays no part"


def check_purity(metric: ModelMetric, net: nn.Module) -> None:
    maps, state = some_maps(), torch.get_rng_state()
    before = [p.detach().clone() for p in net.parameters()]
    leaf = pictures().requires_grad_()
    value = metric.assess(net, leaf, TARGETS, maps.clone().requires_grad_(), IDS)
    assert not value.requires_grad, "carries a gradient"
    assert torch.equal(leaf, pictures()) and torch.equal(maps, some_maps()), "changed its input"
    assert torch.equal(torch.get_rng_state(), state), "drew from the program's generator"
    for now, then in zip(net.parameters(), before, strict=True):
        assert torch.equal(now, then) and now.grad is None, "changed the model"
    single = metric.assess(net.float(), pictures().float(), TARGETS, maps.float(), IDS)
    net.double()
    gap = (single - value).abs() / value.abs().clamp(min=1.0)
    assert (gap < 1e-4).all() and single.dtype == torch.float64, "single precision differs"


def check_refusals(metric: ModelMetric, net: nn.Module) -> None:
    for bad in (float("nan"), float("inf"), -float("inf")):
        broken = some_maps()
        broken[2, 3, 4] = bad
        refuses(metric, net, broken, "maps")
    maps = some_maps()
    for wrong in (maps[:2], maps[:, :-1], maps[0], maps[:, None], maps.to(torch.complex128)):
        refuses(metric, net, wrong, "maps")
    refuses(metric, net, maps, "targets", targets=TARGETS + 3)
    if hasattr(metric, "seed"):
        refuses(metric, net, maps, "ids", ids=IDS[:2])


def refuses(
    metric: ModelMetric,
    net: nn.Module,
    maps: Tensor,
    field: str,
    targets: Tensor = TARGETS,
    ids: tuple[str, ...] = IDS,
) -> None:
    with pytest.raises(InvalidInput) as caught:
        metric.assess(net, pictures(), targets, maps, ids)
    assert caught.value.field == field, f"blames {caught.value.field!r} instead of {field!r}"


def check_batches(metric: ModelMetric, net: nn.Module, small: pytest.MonkeyPatch) -> None:
    images, maps = pictures(7), torch.cat([some_maps(s) for s in range(3)])[:7]
    maps[3] = 0.0
    targets, ids = torch.arange(7) % 5, [str(i) for i in range(7)]
    whole = metric.assess(net, images, targets, maps, ids)
    assert whole.std() > 0
    for size in (1, 3):
        small.setattr(streaming, CAUGHT, size * PIXELS)
        slices = [slice(i, i + size) for i in range(0, 7, size)]
        parts = [metric.assess(net, images[s], targets[s], maps[s], ids[s]) for s in slices]
        for again in (metric.assess(net, images, targets, maps, ids), torch.cat(parts)):
            gap = (again - whole).abs() / whole.abs().clamp(min=1.0)
            assert (gap < EXACT).all(), "mixes the images of a batch"
    assert metric.assess(net, images[:0], targets[:0], maps[:0], ()).shape == (0,)


def check_cost(metric: ModelMetric, small: pytest.MonkeyPatch) -> None:
    small.setattr(streaming, CAUGHT, 4 * PIXELS)
    seen = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Confident().eval()

        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            assert not torch.is_grad_enabled(), "keeps a graph"
            return self.inner(x)

    counted = Counted(Watched())
    ask(metric, counted, some_maps())
    assert max(seen) <= 4, "more than a micro-batch"
    assert metric.cost().backward == counted.backwards == 0
    assert counted.forwards == 3 * metric.cost().forward, "another cost than stated"
