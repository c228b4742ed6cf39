"""From a name and a few options to a frozen dataclass: how every room's ``build`` works."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from robustlab.core.errors import InvalidInput, nearest

T = TypeVar("T")


def build(table: Mapping[str, type[T]], kind: str, name: str, options: Mapping[str, Any]) -> T:
    """Look ``name`` up in ``table`` and construct it from ``options``.

    The dataclass itself is the schema: unknown options are refused with the nearest
    spelling, each value is checked against (and coerced to) the field's type.

    Raises:
        InvalidInput: unknown name or option, or a value of the wrong type or range, NaN and
            infinity among them.
    """
    if name not in table:
        raise InvalidInput(kind, f"unknown name {name!r}", nearest(str(name), table))
    cls = table[name]
    hints = _hints(cls)  # type: ignore[arg-type]
    values = {}
    for key, value in options.items():
        if key not in hints:
            remedy = nearest(str(key), hints) if hints else "it takes no options"
            raise InvalidInput(f"{name}.{key}", f"{kind} {name!r} has no such option", remedy)
        values[key] = _checked(f"{name}.{key}", hints[key], value)
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.init
        and f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InvalidInput(f"{name}.{missing[0]}", f"{kind} {name!r} needs this option")
    try:
        made = cls(**values)
        for key, value in values.items():  # only now: the class may say it better
            check_finite(key, value)
    except InvalidInput as error:
        raise error.within(name) from None
    return made


def check_finite(field: str, value: Any) -> None:
    """Refuse NaN and infinity, also inside a list; whatever is no float passes.

    Comparisons let one or the other through: ``nan <= 0`` is false and ``inf > 0`` is true.

    Raises:
        InvalidInput: naming ``field``.
    """
    if isinstance(value, list | tuple):
        for part in value:
            check_finite(field, part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(field, f"must be finite, got {value}")


def check_choice(field: str, value: object, known: Sequence[str]) -> None:
    """Refuse what is not one of the known words.

    Raises:
        InvalidInput: naming ``field`` and the nearest word.
    """
    if value not in known:
        raise InvalidInput(field, f"unknown value {value!r}", nearest(str(value), known))


def options_of(item: object) -> dict[str, Any]:
    """The options that rebuild ``item``: its dataclass fields, plain values only."""
    if not dataclasses.is_dataclass(item) or isinstance(item, type):
        raise TypeError(f"{item!r} is not a dataclass instance")
    return dataclasses.asdict(item)


@cache
def _hints(cls: type) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls) if f.init}
    return {k: v for k, v in get_type_hints(cls).items() if k in names}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    """Protocols among the hints (an attack inside an attack) are checked by isinstance."""
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a dataclass brings its own config
        return TypeAdapter(hint)


def _checked(field: str, hint: Any, value: Any) -> Any:
    wanted = (hint, *get_args(hint))
    if isinstance(value, bool) and bool not in wanted and {int, float} & {*wanted}:
        # True would silently become 1
        raise InvalidInput(field, f"expected a number, got {value!r}")
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        raise InvalidInput(field, f"{error.errors()[0]['msg']}, got {value!r}") from None
