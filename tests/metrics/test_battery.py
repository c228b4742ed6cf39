"""The battery over all metrics, and metrics broken on purpose that it must reject."""

import dataclasses
import importlib
import pkgutil
from dataclasses import dataclass

import pytest
import torch

import robustlab.metrics
from robustlab.core.tables import options_of
from robustlab.metrics import METRICS, build
from robustlab.metrics.agreement import Cosine, Pearson
from robustlab.metrics.pairs import by_parts
from robustlab.metrics.ranks import Spearman, TopKIntersection
from tests.metrics.battery import EXACT, PAIRWISE, check_metric

# What each metric claims beyond the battery's defaults. Top-k is not positionless: its
# rule for ties is by position.
CLAIMS = {
    "top_k_intersection": {"positionless": False},
    "ssim": {"positionless": False, "float32": 1e-7},
    "center_shift": {"positionless": False},
    "relative_l2": {"symmetric": False},
    "fooling_success_rate": {"symmetric": False, "positionless": False},
    "emd": {"positionless": False},
    "iou": {"positionless": False},
    "lens_recall": {"symmetric": False, "positionless": False},
    "lens_precision": {"symmetric": False, "positionless": False},
    "sign_agreement": {"positionless": False},
    "rank_agreement": {"positionless": False},
}
# What an option gives up, or wins.
CLAIMS_WITH = {
    ("kendall", "within"): {"symmetric": False, "positionless": False},
    ("iou", "threshold"): {"positionless": True},
    ("ssim", "data_range"): {"float32": EXACT},
}
VARIANTS = [
    ("top_k_intersection", {"k": 20}),
    ("top_k_intersection", {"k": 1}),
    ("top_k_intersection", {"k": 156}),
    ("spearman", {}),
    ("kendall", {}),
    ("pearson", {}),
    ("cosine", {}),
    ("ssim", {}),
    ("ssim", {"scale": "none"}),
    ("ssim", {"scale": "none", "data_range": 2.0}),
    ("ssim", {"scale": "none", "data_range": 1e-300}),
    ("mse", {}),
    ("mse", {"scale": "sum"}),
    ("mse", {"scale": "none"}),
    ("relative_l2", {}),
    ("center_shift", {}),
    ("fooling_success_rate", {}),
    ("fooling_success_rate", {"goal": "top_k"}),
    ("fooling_success_rate", {"goal": "center_mass", "low": 0.02}),
    ("kendall", {"within": 20}),
    ("kendall", {"within": 156}),
    ("emd", {}),
    ("emd", {"ground": "city_block"}),
    ("iou", {}),
    ("iou", {"share": 1.0}),
    ("iou", {"threshold": 0.5}),
    ("iou", {"threshold": 1.0}),
    ("lens_recall", {"k": 20}),
    ("lens_recall", {"k": 1, "window": 3}),
    ("lens_recall", {"k": 20, "window": 0}),
    ("lens_precision", {"k": 20}),
    ("lens_precision", {"k": 156, "window": 40}),
    ("sign_agreement", {"k": 20}),
    ("sign_agreement", {"k": 156}),
    ("rank_agreement", {"k": 20}),
    ("rank_agreement", {"k": 156}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_metric_keeps_its_promises(name, options):
    claims = dict(CLAIMS.get(name, {}))
    for option in options:
        claims |= CLAIMS_WITH.get((name, option), {})
    check_metric(build(name, **options), **claims)


def test_every_metric_of_two_maps_is_in_the_battery():
    assert {name for name, _ in VARIANTS} == set(PAIRWISE)


def test_table_holds_exactly_the_rooms_public_classes():
    modules = [
        importlib.import_module(f"robustlab.metrics.{found.name}")
        for found in pkgutil.iter_modules(robustlab.metrics.__path__)
    ]
    public = {
        value
        for module in modules
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and key[0] != "_"
        if hasattr(value, "bounds")  # a metric, and not what metrics share
    }
    assert public == set(METRICS.values())
    assert len(METRICS) == len(public), "one name per class"


@pytest.mark.parametrize("name", PAIRWISE)
def test_class_describes_and_rebuilds_itself(name):
    cls = METRICS[name]
    assert cls.name == name
    assert all(word in cls.__doc__ for word in ("[B,H,W]", "float64", "ies", "Source:"))
    assert "constant" in cls.__doc__.lower()
    assert all(f.kw_only for f in dataclasses.fields(cls))
    metric = cls()
    assert build(name, **options_of(metric)) == metric
    assert hash(metric) == hash(cls())


def checked(clean, perturbed):
    """What metrics refuse, these refuse as well: they are wrong in one way only."""
    by_parts(clean, perturbed, lambda a, b: a.sum((1, 2)))
    return clean.double(), perturbed.double()


@dataclass(frozen=True, kw_only=True)
class Asymmetric(Cosine):
    """Looks only where the clean map is positive."""

    def __call__(self, clean, perturbed):
        a, b = checked(clean, perturbed)
        return super().__call__(a * (a > 0), b * (a > 0))


@dataclass(frozen=True, kw_only=True)
class LyingBounds(Pearson):
    bounds = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class TieBlindRanks(Spearman):
    """Ranks by position among equals, as a double argsort gives them."""

    def __call__(self, clean, perturbed):
        ranks = (
            m.flatten(1).argsort(dim=1, stable=True).argsort(1).view_as(m)
            for m in checked(clean, perturbed)
        )
        return super().__call__(*ranks)


@dataclass(frozen=True, kw_only=True)
class TieBlindTopK(TopKIntersection):
    """Takes everything as high as the k-th value, so that ties make the set too large."""

    def __call__(self, clean, perturbed):
        sets = []
        for m in checked(clean, perturbed):
            flat = m.flatten(1)
            sets.append(flat >= flat.topk(self.k, 1).values[:, -1:])
        return (sets[0] & sets[1]).sum(1).double() / self.k


@dataclass(frozen=True, kw_only=True)
class MixesImages(Spearman):
    def __call__(self, clean, perturbed):
        value = super().__call__(clean, perturbed)
        return value if len(value) == 0 else (value + value.max()) / 2


@dataclass(frozen=True, kw_only=True)
class NotFinite(Pearson):
    def __call__(self, clean, perturbed):
        a, b = (m - m.mean((1, 2), keepdim=True) for m in checked(clean, perturbed))
        lengths = (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt()
        return (a * b).sum((1, 2)) / lengths


@dataclass(frozen=True, kw_only=True)
class Scribbles(Cosine):
    def __call__(self, clean, perturbed):
        value = super().__call__(clean, perturbed)
        clean.data.abs_()
        return value


@dataclass(frozen=True, kw_only=True)
class LetsNanThrough(Cosine):
    def __call__(self, clean, perturbed):
        if isinstance(clean, torch.Tensor):
            clean = torch.nan_to_num(clean)
        return super().__call__(clean, perturbed)


@dataclass(frozen=True, kw_only=True)
class SinglePrecision(Pearson):
    def __call__(self, clean, perturbed):
        return super().__call__(clean, perturbed).float()


@dataclass(frozen=True, kw_only=True)
class SameIsNotBest(Cosine):
    def __call__(self, clean, perturbed):
        return super().__call__(clean, perturbed) * 0.999


@dataclass(frozen=True, kw_only=True)
class ImpossibleChance(Pearson):
    def chance(self, pixels):
        return 1.5


@pytest.mark.parametrize(
    ("broken", "breach"),
    [
        (Asymmetric(), "not symmetric"),
        (LyingBounds(), "outside its bounds"),
        (TieBlindRanks(), "how ties fall"),
        (TieBlindTopK(k=20), "outside its bounds"),
        (MixesImages(), "mixes the images"),
        (NotFinite(), "not finite"),
        (Scribbles(), "changed its input"),
        (LetsNanThrough(), "DID NOT RAISE"),
        (SinglePrecision(), "not float64"),
        (SameIsNotBest(), "is not best"),
        (ImpossibleChance(), "chance outside"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_battery_rejects_a_broken_metric(broken, breach):
    with pytest.raises((AssertionError, pytest.fail.Exception), match=breach):
        check_metric(broken)
