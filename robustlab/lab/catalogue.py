"""What there is, as plain data: the tables of every room, for ``robustlab list`` and ``show``."""

import dataclasses
import json
from collections.abc import Mapping
from inspect import cleandoc
from math import isfinite
from typing import Any

import attacks
from robustlab import data, explainers, metrics, models, training
from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.types import Explainer
from robustlab.lab.find import experiments, find_experiment
from robustlab.lab.manifest import summary_of
from robustlab.lab.spec import load_spec
from robustlab.models import zoo

SECTIONS = ("explainers", "attacks", "metrics", "training", "models", "data", "experiments")


def tables() -> dict[str, Mapping[str, type]]:
    """Section → name → class."""
    return {
        "explainers": explainers.EXPLAINERS,
        "attacks": {**attacks.ATTACKS, **attacks.MODEL_ATTACKS},
        "metrics": metrics.METRICS,
        "training": training.TRAINING,
        "models": models.MODELS,
        "data": data.DATASETS,
    }


def catalogue(section: str) -> list[dict[str, Any]]:
    """The entries of one section, each with ``name`` and ``summary``.

    Raises:
        InvalidInput: no such section.
    """
    if section not in SECTIONS:
        raise InvalidInput("section", f"unknown {section!r}", nearest(section, SECTIONS))
    if section == "experiments":
        return [
            {"name": name, "section": section, "summary": load_spec(path).question}
            for name, path in experiments().items()
        ]
    entries = [card(section, name, cls) for name, cls in tables()[section].items()]
    return [*entries, *_zoo()] if section == "models" else entries


def _zoo() -> list[dict[str, Any]]:
    """The networks of the zoo, each with what its card says."""
    return [
        {
            "name": f"zoo:{name}",
            "section": "models",
            "summary": f"{made['model']} on {made['data']}, {made['objective']['name']}, "
            f"{100 * made['accuracy']:.1f} % right.",
            "options": {},
            "card": made,
        }
        for name, made in ((name, zoo.card(name)) for name in zoo.zoo())
    ]


def card(section: str, name: str, cls: type) -> dict[str, Any]:
    """One component: what it is, its options with their defaults, and its promises."""
    entry: dict[str, Any] = {"name": name, "section": section, "summary": summary_of(cls)}
    entry["options"] = _options(cls)
    for promise in ("differentiable", "higher_is_more_stable"):
        if hasattr(cls, promise):
            entry[promise] = getattr(cls, promise)
    if hasattr(cls, "bounds"):  # JSON has no infinity: null where there is no bound
        entry["bounds"] = [b if isfinite(b) else None for b in cls.bounds]
    if section == "explainers":
        entry |= _comparison(cls)
    return entry


def _comparison(cls: type[Explainer]) -> dict[str, Any]:
    """An explainer's row in the survey's comparison table; cost is that of its defaults."""
    explainer = cls()
    passes = explainer.cost()
    return {
        **dataclasses.asdict(cls.about),
        "attacked_by": _attack_path(explainer),
        "passes": {"forward": passes.forward, "backward": passes.backward},
    }


def _attack_path(explainer: Explainer) -> str:
    """The best gradient path that an attack on its map has; black_box where there is none."""
    if explainer.about.scope == "global":
        return "none: it does not explain an image"
    path = attacks.TopK().gradient_path(explainer)
    return "black_box" if path == "impossible" else path


def describe(name: str) -> tuple[str, str]:
    """(title, text) of a component or experiment, wherever the name is found first.

    Any ``torchvision:...`` or ``timm:...`` is told by its family.

    Raises:
        InvalidInput: nothing has that name.
    """
    for section, table in tables().items():
        if name in table:
            return f"{section}: {name}", _text(table[name])
    if name.removeprefix("zoo:") in zoo.zoo():
        return f"models: {name}", json.dumps(zoo.card(name.removeprefix("zoo:")), indent=2)
    if name in experiments() or name.endswith((".yaml", ".yml")):
        path = find_experiment(name)
        return f"experiment: {path}", path.read_text(encoding="utf-8").strip()
    family, colon, _ = name.partition(":")
    if colon and family in ("torchvision", "timm"):
        return describe(f"{family}:NAME")
    known = {n for table in tables().values() for n in table} | set(experiments())
    known |= {f"zoo:{net}" for net in zoo.zoo()}
    raise InvalidInput("name", f"nothing is called {name!r}", nearest(name, known))


def _text(cls: type) -> str:
    """What a component says of itself, what it shares with others, and its defaults."""
    shared = (vars(base)["__doc__"] for base in cls.__mro__[1:] if _has_options(base))
    parts = [cleandoc(doc) for doc in (cls.__doc__ or "", *shared)]
    if options := _options(cls):
        lines = (f"    {key}: {_yaml(value)}" for key, value in options.items())
        parts.append("\n".join(["Defaults:", *lines]))
    return "\n\n".join(parts)


def _has_options(base: type) -> bool:
    """Whether a dataclass describes options of its own."""
    return "__dataclass_params__" in vars(base) and "\n" in (vars(base)["__doc__"] or "")


def _yaml(value: Any) -> str:
    """As an experiment's file would have it."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _options(cls: Any) -> dict[str, Any]:
    """Option → default, as plain data."""
    return {f.name: _default(f) for f in dataclasses.fields(cls) if f.init}


def _default(option: dataclasses.Field[Any]) -> Any:
    if option.default_factory is not dataclasses.MISSING:
        made = option.default_factory()
        plain = dataclasses.is_dataclass(made) and not isinstance(made, type)
        return dataclasses.asdict(made) if plain else made
    return "required" if option.default is dataclasses.MISSING else option.default
