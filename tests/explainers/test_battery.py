"""The battery over all explainers and kinds of nets, and agreement in float32."""

import dataclasses
import importlib
import pkgutil

import pytest
import torch

import robustlab.explainers
from robustlab.core.errors import InvalidInput
from robustlab.core.tables import options_of
from robustlab.explainers import EXPLAINERS, build
from tests.explainers.battery import check_declaration, check_explainer
from tests.nets import (
    Convolutions,
    Functional,
    Normalised,
    ResNetLike,
    Softplus,
    VGGLike,
    pictures,
    seeded,
)

TARGETS = torch.tensor([1, 3, 0])
NETS = {
    "vgg": lambda: seeded(VGGLike),
    "functional": lambda: Functional(seeded(VGGLike)).eval(),
    "resnet": lambda: seeded(ResNetLike),
    "normalised": lambda: seeded(lambda: Normalised(VGGLike())),
    "softplus": lambda: seeded(Softplus),
    "convolutions": lambda: seeded(Convolutions),
}
# A count of whole-model passes cannot see half a pass (Grad-CAM goes back to its layer only)
# nor the convolutions of LRP's rules, which test_lrp counts one by one.
CLAIMS = {"lrp": {"exact_cost": False}, "grad_cam": {"exact_cost": False}}
# few passes, for speed; every name of the table must be here
EVERYWHERE = [
    ("gradient", {}),
    ("input_x_gradient", {}),
    ("guided_backprop", {}),
    ("smooth_grad", {"samples": 2}),
    ("integrated_gradients", {"steps": 2}),
    ("lrp", {}),
    ("grad_cam", {}),
]
# on the net with batch-norm, residual additions and in-place operations
OPTIONS = [
    ("gradient", {"score": "prob"}),
    ("gradient", {"score": "margin"}),
    ("gradient", {"score": "neg_ce", "post": "max_abs"}),
    ("gradient", {"beta": 3.0}),
    ("input_x_gradient", {"score": "logprob"}),
    ("guided_backprop", {"score": "prob"}),
    ("smooth_grad", {"samples": 3, "sigma": 0.05, "seed": 7, "score": "prob"}),
    ("integrated_gradients", {"steps": 3, "rule": "left", "baseline": 0.5}),
    ("integrated_gradients", {"steps": 2, "rule": "middle", "score": "prob"}),
    ("integrated_gradients", {"steps": 3, "rule": "trapezoid"}),
    ("grad_cam", {"layer": "block1", "score": "prob"}),
    ("grad_cam", {"layer": "stem.0", "relu": False}),
    ("lrp", {"bias": False}),
]
# with a visible ε: second derivatives of R/(z + ε) near z = 0 defeat finite differences
LRP = [
    {"rule": "epsilon", "epsilon": 0.02},
    {"rule": "gamma", "gamma": 0.4},
    {"rule": "z_plus"},
    {"rule": "alpha_beta", "alpha": 3.0, "beta": 2.0},
    {"rule": "w_square"},
    {"rule": "flat"},
    {"rule": "z_box", "epsilon": 0.02},
    {"composite": "epsilon_plus", "epsilon": 0.02, "bias": False},
    {"composite": "epsilon_gamma_box"},
    {"composite": "epsilon_alpha2_beta1"},
]
VARIANTS = [
    *((net, name, options) for net in NETS for name, options in EVERYWHERE),
    *(("resnet", name, options) for name, options in OPTIONS),
    *(("resnet", "lrp", options) for options in LRP),
    ("normalised", "lrp", {"rule": "z_box", "epsilon": 0.02}),  # the box goes through the model's
    ("normalised", "lrp", {"composite": "epsilon_gamma_box"}),  # own normalisation
]


def readable(variant: tuple[str, str, dict[str, object]]) -> str:
    net, name, options = variant
    return "-".join([net, name, *(f"{key}={value}" for key, value in options.items())])


@pytest.mark.parametrize("variant", VARIANTS, ids=readable)
def test_explainer_keeps_its_promises(variant):
    net, name, options = variant
    check_explainer(
        build(name, **options), NETS[net](), pictures(), TARGETS, **CLAIMS.get(name, {})
    )


def test_every_explainer_is_in_the_battery():
    assert {name for name, _ in EVERYWHERE} == set(EXPLAINERS)


def test_the_table_holds_exactly_the_rooms_explainers():
    found = set()
    for file in pkgutil.iter_modules(robustlab.explainers.__path__):
        module = importlib.import_module(f"robustlab.explainers.{file.name}")
        found |= {
            value
            for key, value in vars(module).items()
            if isinstance(value, type)
            and value.__module__ == module.__name__
            and hasattr(value, "explain")
            and key[0] != "_"
        }
    assert found == set(EXPLAINERS.values())
    assert len(EXPLAINERS) == len(found), "one name per class"


@pytest.mark.parametrize("name", EXPLAINERS)
def test_class_describes_and_rebuilds_itself(name):
    cls = EXPLAINERS[name]
    check_declaration(cls())
    assert build(name, **options_of(cls())) == cls() == build(name)
    assert hash(build(name)) == hash(cls())
    text = cls.__doc__
    assert all(word in text for word in ("Raw shape", "Cost:", "Source")), "says what users ask"
    assert dataclasses.replace(cls(), post="minmax") == build(name, post="minmax") != cls()


@pytest.mark.parametrize(
    ("name", "options", "field", "words"),
    [
        ("gradeint", {}, "explainer", "did you mean 'gradient'"),
        ("lrp", {"composit": "epsilon_plus"}, "lrp.composit", "did you mean 'composite'"),
        ("gradient", {"score": "logits"}, "gradient.score", "'logit'"),
        ("gradient", {"post": "abs"}, "gradient.post", "'abs_sum'"),
        ("gradient", {"beta": 0}, "gradient.beta", "above 0"),
        ("smooth_grad", {"samples": 0}, "smooth_grad.samples", "at least 1"),
        ("smooth_grad", {"samples": True}, "smooth_grad.samples", "expected a number"),
        ("smooth_grad", {"sigma": -0.1}, "smooth_grad.sigma", "at least 0"),
        ("smooth_grad", {"sigma": float("nan")}, "smooth_grad.sigma", "nan"),
        ("integrated_gradients", {"steps": 0}, "integrated_gradients.steps", "too few"),
        (
            "integrated_gradients",
            {"steps": 1, "rule": "trapezoid"},
            "integrated_gradients.steps",
            "too few for the trapezoid",
        ),
        ("integrated_gradients", {"rule": "simpson"}, "integrated_gradients.rule", "'right'"),
        ("lrp", {"rule": "epsilon", "composite": "epsilon_plus"}, "lrp.rule", "not both"),
        ("lrp", {"rule": "zplus"}, "lrp.rule", "'z_plus'"),
        ("lrp", {"epsilon": 0}, "lrp.epsilon", "above 0"),
        ("lrp", {"gamma": -1}, "lrp.gamma", "at least 0"),
        ("lrp", {"rule": "alpha_beta", "alpha": 2, "beta": 2}, "lrp.alpha", "must be 1"),
        ("lrp", {"rule": "alpha_beta", "alpha": 0.5, "beta": -0.5}, "lrp.alpha", "negative"),
        ("grad_cam", {"layer": 3}, "grad_cam.layer", "string"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(name, options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build(name, **options)
    assert caught.value.field == field


@pytest.mark.parametrize("name", EXPLAINERS)
def test_targets_are_checked(name):
    net, images = seeded(VGGLike), pictures()
    for targets in (torch.tensor([0, 1, 5]), torch.tensor([0, -1, 2]), torch.tensor([0, 1])):
        with pytest.raises(InvalidInput) as caught:
            build(name).explain(net, images, targets)
        assert caught.value.field == "targets"


# --- in float32, as in use ------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    ("name", "options"),
    [*EVERYWHERE, ("lrp", {"composite": "epsilon_gamma_box"}), ("lrp", {"rule": "w_square"})],
    ids=str,
)
def test_the_batch_does_not_matter_in_float32(net, name, options):
    model, images = NETS[net]().float(), pictures(8).float()
    targets = torch.arange(8) % 4
    ids = [f"image {i}" for i in range(8)]
    explainer = build(name, **options)
    whole = explainer.explain(model, images, targets, ids=ids)
    assert whole.dtype == torch.float32
    scale = whole.flatten(1).abs().amax(1).clamp(min=1e-30).view(-1, 1, 1, 1)
    for size in (1, 3):
        parts = torch.cat(
            [
                explainer.explain(model, images[i : i + size], targets[i : i + size],
                                  ids=ids[i : i + size])
                for i in range(0, 8, size)
            ]
        )  # fmt: skip
        assert ((parts - whole).abs() / scale).max() <= 1e-5, f"batches of {size}"
