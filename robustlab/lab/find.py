"""Experiments by name: a path, then the checkout's folder, then the copy in the wheel."""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import robustlab
from robustlab.core.errors import InvalidInput, nearest


def find_experiment(name: str, others: Iterable[str] = ()) -> Path:
    """The YAML file of an experiment. ``others`` are names that would have done as well.

    Raises:
        InvalidInput: neither a file nor a known name; lists the nearest.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise InvalidInput("experiment", f"there is no file {name!r}")
        return path
    known = experiments()
    if name not in known:
        raise InvalidInput("experiment", f"unknown name {name!r}", nearest(name, [*known, *others]))
    return known[name]


def experiments() -> dict[str, Path]:
    """Every shipped experiment: name → file. The checkout comes before the installed copy,
    because an editable install copies once and then goes stale.
    """
    package = Path(str(files(robustlab)))
    for folder in (package.parent / "experiments", package / "_experiments"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}
