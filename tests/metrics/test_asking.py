"""The battery over all metrics that ask the model, and some broken on purpose."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch

from robustlab.core.tables import options_of
from robustlab.core.types import ExplainerMetric, MapMetric, ModelMetric, Passes, RegionMetric
from robustlab.metrics import METRICS, build
from robustlab.metrics.faithfulness import Deletion
from robustlab.metrics.infidelity import Infidelity
from robustlab.metrics.road import Road
from tests.metrics.asking import IDS, TARGETS, Confident, check_asking, some_maps
from tests.metrics.battery import ASKING
from tests.nets import pictures

SETTINGS = [
    ("deletion", {"steps": 5}),
    ("deletion", {"steps": 50, "baseline": "blur", "blur": 0.2}),
    ("insertion", {"steps": 5}),
    ("pixel_flipping", {"steps": 5}),
    ("road", {}),
    ("road", {"percentages": (25, 60), "order": "lerf", "noise": 0.05}),
    ("road", {"percentages": (20, 45, 70), "reads": "accuracy", "noise": 0.5}),
    ("infidelity", {"samples": 12}),
    ("infidelity", {"samples": 12, "normalise": False, "score": "prob", "sigma": 0.05}),
    ("infidelity", {"samples": 12, "perturbation": "square"}),
    ("infidelity", {"samples": 12, "perturbation": "square", "contributions": True, "side": 0.5}),
]


@pytest.mark.parametrize(
    ("name", "options"), SETTINGS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(SETTINGS)]
)
def test_metric_keeps_its_promises(name, options, monkeypatch):
    if options.get("reads") == "accuracy":
        # noise moves few answers over the border: what names do is seen in test_road.py
        monkeypatch.setattr("tests.metrics.asking.check_names", lambda *_: None)
    check_asking(build(name, **options), monkeypatch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("name", "options"), SETTINGS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(SETTINGS)]
)
def test_cuda_agrees_with_the_cpu(name, options):
    metric, net = build(name, **options), Confident().eval()
    given = pictures(), TARGETS, some_maps()
    expected = metric.assess(net, *given, IDS)
    value = metric.assess(net.cuda(), *(t.cuda() for t in given), IDS)
    assert value.is_cuda
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-8, atol=1e-8)


def test_every_metric_that_asks_is_in_the_battery():
    assert {name for name, _ in SETTINGS} == set(ASKING)


@pytest.mark.parametrize("name", ASKING)
def test_class_describes_and_rebuilds_itself(name):
    cls = METRICS[name]
    options = next(options for known, options in SETTINGS if known == name)
    metric = cls(**options)
    assert cls.name == name
    assert build(name, **options_of(metric)) == metric
    assert hash(build(name, **options_of(metric))) == hash(metric)
    assert all(f.kw_only for f in dataclasses.fields(cls))
    words = ("[B,H,W]", "float64", "Ties", "constant", "Chance", "Cost", "Source:")
    assert all(word in cls.__doc__ for word in words)


def test_every_metric_is_of_one_kind():
    for name, cls in METRICS.items():
        metric = cls()
        kinds = (RegionMetric, ModelMetric, MapMetric, ExplainerMetric)
        assert sum([callable(metric), *(isinstance(metric, kind) for kind in kinds)]) == 1, name


@dataclass(frozen=True, kw_only=True)
class Cheaper(Deletion):
    def cost(self):
        return Passes(self.steps, 0)


@dataclass(frozen=True, kw_only=True)
class ReadsValues(Deletion):
    """Removes by distance from 0, which is no matter of order."""

    def assess(self, model, images, targets, maps, ids):
        return super().assess(model, images, targets, maps.abs(), ids)


@dataclass(frozen=True, kw_only=True)
class DrawsByPlace(Road):
    """Gives its random numbers to a place in the batch instead of an image."""

    def assess(self, model, images, targets, maps, ids):
        return super().assess(model, images, targets, maps, [str(i) for i in range(len(images))])


@dataclass(frozen=True, kw_only=True)
class DrawsFromTheProgram(Infidelity):
    def _perturbed(self, visible, ids, j):
        grey = self.sigma * torch.randn_like(visible[:, :1])
        return grey.expand_as(visible), grey[:, 0]


@dataclass(frozen=True, kw_only=True)
class MixesImages(Deletion):
    def assess(self, model, images, targets, maps, ids):
        value = super().assess(model, images, targets, maps, ids)
        return value if len(value) == 0 else (value + value.mean()) / 2


@pytest.mark.parametrize(
    ("broken", "breach"),
    [
        (Cheaper(steps=5), "another cost"),
        (ReadsValues(steps=5), "not only the order"),
        (DrawsByPlace(percentages=(40,)), "not that of the image's name"),
        (DrawsFromTheProgram(samples=4), "second call differs"),
        (MixesImages(steps=5), "mixes the images"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_battery_rejects_a_broken_metric(broken, breach, monkeypatch):
    with pytest.raises(AssertionError, match=breach):
        check_asking(broken, monkeypatch)
