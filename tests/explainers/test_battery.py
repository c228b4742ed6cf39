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
from tests.explainers.battery import check_declaration, check_explainer, is_control
from tests.explainers.nets import NETS, TARGETS
from tests.explainers.variants import FAMILIES
from tests.nets import (
    pictures,
)

EVERYWHERE = [variant for family in FAMILIES for variant in family.EVERYWHERE]
OPTIONS = [variant for family in FAMILIES for variant in family.OPTIONS]
REFUSED = [variant for family in FAMILIES for variant in family.REFUSED]
CLAIMS = {k: v for f in FAMILIES for k, v in getattr(f, "CLAIMS", {}).items()}
ALL_NETS = NETS | {k: v for f in FAMILIES for k, v in getattr(f, "NETS", {}).items()}
IMAGES = {k: v for f in FAMILIES for k, v in getattr(f, "IMAGES", {}).items()}
VARIANTS = [*((net, name, options) for net in NETS for name, options in EVERYWHERE), *OPTIONS]
# a net on which each explainer works, and options that it needs there
HOME = {name: (net, options) for net, name, options in reversed(VARIANTS)}


def readable(variant: tuple[str, str, dict[str, object]]) -> str:
    net, name, options = variant
    return "-".join([net, name, *(f"{key}={value}" for key, value in options.items())])


@pytest.mark.parametrize("variant", VARIANTS, ids=readable)
def test_explainer_keeps_its_promises(variant):
    net, name, options = variant
    check_explainer(
        build(name, **options),
        ALL_NETS[net](),
        IMAGES.get(net, pictures)(),
        TARGETS,
        **CLAIMS.get(name, {}),
    )


def test_every_explainer_is_in_the_battery():
    assert set(HOME) == set(EXPLAINERS)


def test_the_table_holds_exactly_the_rooms_explainers():
    found = set()
    for file in pkgutil.walk_packages(robustlab.explainers.__path__, "robustlab.explainers."):
        module = importlib.import_module(file.name)
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


GENERAL = [
    ("gradeint", {}, "explainer", "did you mean 'gradient'"),
]


@pytest.mark.parametrize(("name", "options", "field", "words"), [*GENERAL, *REFUSED], ids=str)
def test_impossible_options_are_refused(name, options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build(name, **options)
    assert caught.value.field == field


@pytest.mark.parametrize("name", EXPLAINERS)
def test_targets_are_checked(name):
    where, options = HOME[name]
    net, images = ALL_NETS[where](), IMAGES.get(where, pictures)()
    wrong = [torch.tensor([0, 1, 99]), torch.tensor([0, -1, 2]), torch.tensor([0, 1])]
    # a control does not ask the model how many classes it has
    for targets in wrong[1:] if is_control(build(name)) else wrong:
        with pytest.raises(InvalidInput) as caught:
            build(name, **options).explain(net, images, targets)
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
    allowed = 1e-5
    if name == "lrp":  # divides by what may nearly vanish: rounding weighs what it weighs there
        exact = explainer.explain(model.double(), images.double(), targets, ids=ids)
        allowed += 3 * float(((whole - exact).abs() / scale).max())
        assert allowed < 0.05
        model.float()
    for size in (1, 3):
        parts = torch.cat(
            [
                explainer.explain(model, images[i : i + size], targets[i : i + size],
                                  ids=ids[i : i + size])
                for i in range(0, 8, size)
            ]
        )  # fmt: skip
        assert ((parts - whole).abs() / scale).max() <= allowed, f"batches of {size}"
