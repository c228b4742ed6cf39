"""Reading a JSON object field by field, with errors that name the field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

K = TypeVar("K", bound=str)


@dataclass(frozen=True)
class Fields:
    """One JSON object and where it stands in its file.

    Every method returns the field with its type checked or raises ValueError with a
    message such as ``images[2].radius: expected a number, got 'x'``.
    """

    data: Mapping[str, Any]
    where: str = ""

    @classmethod
    def of(cls, value: Any, where: str = "") -> "Fields":
        if not isinstance(value, Mapping):
            raise ValueError(f"{where or 'file'}: expected an object, got {_short(value)}")
        return cls(value, where)

    def path(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def get(self, key: str) -> Any:
        if key not in self.data:
            raise ValueError(f"{self.path(key)}: missing")
        return self.data[key]

    def version(self, known: int) -> int:
        """The file's schema, which has to be the one that this version of the lab reads."""
        schema = self.whole("schema")
        if schema != known:
            raise ValueError(f"schema: this version reads {known}, the file has {schema}")
        return schema

    def refuse_others(self, known: Sequence[str]) -> None:
        """A misspelt or newer field must not be dropped in silence."""
        others = sorted(set(self.data) - set(known))
        if others:
            raise ValueError(f"{self.path(others[0])}: unknown field")

    def text(self, key: str) -> str:
        value = self.get(key)
        return value if isinstance(value, str) else self._wrong(key, "text", value)

    def optional_text(self, key: str) -> str | None:
        return None if self.get(key) is None else self.text(key)

    def one_of(self, key: str, known: Sequence[K]) -> K:
        value = self.get(key)
        for name in known:
            if name == value:
                return name
        return self._wrong(key, " or ".join(known), value)

    def whole(self, key: str) -> int:
        value = self.get(key)
        good = isinstance(value, int) and not isinstance(value, bool)
        return value if good else self._wrong(key, "a whole number", value)

    def flag(self, key: str) -> bool:
        value = self.get(key)
        return value if isinstance(value, bool) else self._wrong(key, "true or false", value)

    def number(self, key: str) -> float:
        return _number(self.get(key), self.path(key))

    def optional_number(self, key: str) -> float | None:
        value = self.get(key)
        return None if value is None else _number(value, self.path(key))

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.items(key)
        for value in values:
            if not isinstance(value, str):
                self._wrong(key, "a list of texts", value)
        return values

    def items(self, key: str) -> tuple[Any, ...]:
        value = self.get(key)
        return (
            tuple(value) if isinstance(value, list | tuple) else self._wrong(key, "a list", value)
        )

    def object(self, key: str) -> "Fields":
        return Fields.of(self.get(key), self.path(key))

    def numbers(self) -> dict[str, float | None]:
        """This object as name → number or null."""
        return {key: self.optional_number(key) for key in self.data}

    def _wrong(self, key: str, expected: str, value: Any) -> Any:
        raise ValueError(f"{self.path(key)}: expected {expected}, got {_short(value)}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: expected a number, got {_short(value)}")
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
