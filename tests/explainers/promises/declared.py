"""What an explainer says of itself: options, equality, derivatives, cost."""

import copy
import dataclasses
import json
import pickle
from typing import get_args

from torch import Tensor, nn

from robustlab.core.maps import Post
from robustlab.core.tables import build, options_of
from robustlab.core.types import Differentiable, Explainer, HessianVector, Passes, Resolvable
from robustlab.core.wrapping import Counted
from tests.explainers.promises.comparing import IDS


def is_control(explainer: Explainer) -> bool:
    """Does it say that it explains nothing?"""
    return explainer.about.family == "control"


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
