"""Who says that it draws random numbers does, and who says that it does not, does not."""

import pytest
import torch

from robustlab.explainers import EXPLAINERS, build
from robustlab.explainers.draws import other_draws
from tests.explainers.nets import TARGETS
from tests.explainers.test_battery import ALL_NETS, HOME, IMAGES, VARIANTS
from tests.nets import pictures

CHOICES = {"baseline", "infill", "of"}  # what decides it
DRAWN = [
    *((net, name, options) for name, (net, options) in HOME.items()),
    *(variant for variant in VARIANTS if CHOICES & set(variant[2])),
    ("relu", "integrated_gradients", {"baseline": "uniform"}),
    ("relu", "occlusion", {"infill": "noise"}),
    ("relu", "meaningful_perturbation", {"steps": 2, "jitter": 0.3}),
    ("relu", "smooth_grad_cam_pp", {"samples": 2, "sigma": 0.5}),
    ("relu", "aggregate", {"of": ("gradient", ("smooth_grad", (("samples", 3),)))}),
]
NAMES = [name for name in EXPLAINERS if build(name).about.scope == "local" and name != "fixed_map"]


@pytest.mark.parametrize("name", NAMES)
def test_maps_differ_by_the_draws_or_there_are_none(name):
    moved = []
    for where, _, options in (variant for variant in DRAWN if variant[1] == name):
        explainer = build(name, **options)
        other = other_draws(explainer)
        first = maps(where, explainer)
        assert torch.equal(first, maps(where, explainer))
        if other is not None:
            assert type(other) is type(explainer)
            moved.append(not torch.equal(first, maps(where, other)))
        elif hasattr(explainer, "seed"):  # nothing depends on it
            assert torch.equal(first, maps(where, build(name, **{**options, "seed": 7})))
    assert any(moved) or not moved


def maps(where, explainer):
    net = ALL_NETS.get(where, next(iter(ALL_NETS.values())))()
    images = IMAGES.get(where, pictures)()
    return explainer.explain(net, images, TARGETS, ids=tuple(map(str, range(len(images)))))


def test_what_draws_and_what_does_not():
    drawing = {name for name in EXPLAINERS if other_draws(build(name)) is not None}
    assert {"smooth_grad", "rise", "lime", "kernel_shap", "fido", "expected_gradients"} <= drawing
    assert not {"gradient", "lrp", "grad_cam", "integrated_gradients", "fixed_map"} & drawing
