"""From options to frozen dataclasses: what is coerced, and how each mistake is named."""

import math
import pickle
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from robustlab.core.errors import InvalidInput, MissingDependency, RobustlabError, nearest
from robustlab.core.tables import build, options_of


@dataclass(frozen=True, kw_only=True)
class Kettle:
    unit: ClassVar[str] = "litre"
    size: float = 1.5
    cups: int = 4
    colour: Literal["red", "blue"] = "red"
    lid: bool = True
    weight: float | None = None
    reach: float | tuple[float, float] | None = None
    sizes: tuple[int, ...] = ()
    made: str = field(init=False, default="here")

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise InvalidInput("size", f"must be above 0, got {self.size}", "try 1.5")


@dataclass(frozen=True, kw_only=True)
class Pan:
    width: int


@dataclass(frozen=True)
class Spoon:
    pass


TABLE = {"kettle": Kettle, "pan": Pan, "spoon": Spoon}


def make(name: str, **options: object) -> object:
    return build(TABLE, "tool", name, options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Kettle()),
        ({"size": 2}, Kettle(size=2.0)),
        ({"size": "2.5"}, Kettle(size=2.5)),
        ({"cups": 6.0}, Kettle(cups=6)),
        ({"lid": False}, Kettle(lid=False)),
        ({"weight": None}, Kettle(weight=None)),
        ({"reach": [1, 2]}, Kettle(reach=(1.0, 2.0))),
        ({"sizes": [1, 2, 3]}, Kettle(sizes=(1, 2, 3))),
    ],
    ids=str,
)
def test_values_from_yaml_get_the_fields_type(given, expected):
    found = make("kettle", **given)
    assert found == expected and hash(found) == hash(expected)
    assert repr(found) == repr(expected), "6.0 and 6 are equal but must not be told apart later"
    if "size" in given:
        assert type(found.size) is float


@pytest.mark.parametrize(
    ("name", "options", "field", "words"),
    [
        ("kettel", {}, "tool", "did you mean 'kettle'"),
        ("xyz", {}, "tool", "known: kettle, pan, spoon"),
        ("kettle", {"sise": 1}, "kettle.sise", "did you mean 'size'"),
        ("kettle", {"unit": "pint"}, "kettle.unit", "no such option"),
        ("kettle", {"made": "there"}, "kettle.made", "no such option"),
        ("spoon", {"size": 1}, "spoon.size", "takes no options"),
        ("kettle", {"cups": 2.5}, "kettle.cups", "2.5"),
        ("kettle", {"cups": "many"}, "kettle.cups", "'many'"),
        ("kettle", {"cups": None}, "kettle.cups", "None"),
        ("kettle", {"cups": True}, "kettle.cups", "expected a number, got True"),
        ("kettle", {"size": True}, "kettle.size", "expected a number, got True"),
        ("kettle", {"weight": True}, "kettle.weight", "expected a number, got True"),
        ("kettle", {"reach": False}, "kettle.reach", "expected a number, got False"),
        ("kettle", {"colour": "green"}, "kettle.colour", "'red' or 'blue'"),
        ("kettle", {"lid": "perhaps"}, "kettle.lid", "'perhaps'"),
        ("kettle", {"size": -1}, "kettle.size", "must be above 0, got -1.0; try 1.5"),
        ("kettle", {"size": math.nan}, "kettle.size", "must be finite, got nan"),
        ("kettle", {"size": math.inf}, "kettle.size", "must be finite, got inf"),
        ("kettle", {"size": -math.inf}, "kettle.size", "must be above 0, got -inf; try 1.5"),
        ("kettle", {"size": "nan"}, "kettle.size", "must be finite, got nan"),
        ("kettle", {"cups": math.inf}, "kettle.cups", "finite number, got inf"),
        ("kettle", {"weight": math.inf}, "kettle.weight", "must be finite, got inf"),
        ("kettle", {"reach": math.nan}, "kettle.reach", "must be finite, got nan"),
        ("kettle", {"reach": [1, math.inf]}, "kettle.reach", "must be finite, got inf"),
        ("pan", {}, "pan.width", "needs this option"),
    ],
    ids=str,
)
def test_mistakes_are_named(name, options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        make(name, **options)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    "item", [Kettle(reach=(1.0, 2.0), colour="blue"), Pan(width=3), Spoon()], ids=str
)
def test_options_rebuild_the_item(item):
    name = type(item).__name__.lower()
    options = {k: v for k, v in options_of(item).items() if k != "made"}
    assert make(name, **options) == item


@pytest.mark.parametrize("thing", [Kettle, 3, {"a": 1}], ids=["class", "number", "dict"])
def test_options_of_something_else(thing):
    with pytest.raises(TypeError, match="not a dataclass instance"):
        options_of(thing)


def test_errors_cross_process_borders():
    error = InvalidInput("a", "is wrong", "try b").within("c")
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(twin) is InvalidInput and str(twin) == str(error) == "c.a: is wrong; try b"
    assert (twin.field, twin.problem, twin.remedy) == ("c.a", "is wrong", "try b")
    assert isinstance(error, ValueError) and isinstance(error, RobustlabError)
    assert issubclass(MissingDependency, RobustlabError)


def test_nearest_lists_what_is_known():
    assert (
        nearest("gradeint", ["lrp", "gradient"]) == "did you mean 'gradient'? known: gradient, lrp"
    )
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
