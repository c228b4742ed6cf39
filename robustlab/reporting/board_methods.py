"""How the leaderboard's numbers were measured, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Accuracy, Robustness, Threat
from robustlab.reporting.comparison import METRICS, leading, part
from robustlab.reporting.wording import norm_name, radius

Methods = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
"""What was measured; each way of doing so, and the models, where not all were measured so."""


def methods(cards: Sequence[Scorecard]) -> Methods:
    """Each way of measuring, and who was measured so: one entry where all agree."""
    found: dict[str, dict[str, list[str]]] = {}
    for card in cards:
        for what, way in dict.fromkeys(_ways(card)):
            found.setdefault(what, {}).setdefault(way, []).append(card.model.label)
    return tuple(
        (what, tuple((way, "" if len(ways) == 1 else ", ".join(who)) for way, who in ways.items()))
        for what, ways in found.items()
    )


def threats(card: Scorecard) -> dict[str, Threat]:
    """The attacks behind a card, by what they are for."""
    found: dict[str, Accuracy | Robustness | None] = {
        "Adversarial accuracy": card.adversarial,
        "Published protocol": card.published,
        "Stricter protocol": leading(card.strict),
    }
    return {k: v.attack for k, v in found.items() if v is not None and v.attack is not None}


def ball(threat: Threat) -> str:
    """``L∞ ε = 0.1``."""
    return f"{norm_name(threat.norm)} ε = {radius(threat.norm, threat.epsilon)}"


def settings(options: Mapping[str, Any]) -> str:
    """``epsilon 0.1, steps 7``; options within options stand flat."""
    said = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            said += [settings(value)] if value else []
        elif value is not None:
            said.append(f"{key} {_shown(value)}")
    return ", ".join(said)


def _ways(card: Scorecard) -> Iterator[tuple[str, str]]:
    """What was measured of one model, and how."""
    for what, threat in threats(card).items():
        yield what, f"{_named(threat.name, threat.options)}; {ball(threat)}"
    for one in [card.published, *card.strict]:
        for metric in METRICS:
            if stability := part(one, metric):
                yield metric, _named(stability.label, stability.options)
        if one and one.deletion:
            yield "Deletion", _named(one.deletion.label, one.deletion.options)


def _named(name: str, options: Mapping[str, Any]) -> str:
    told = settings(options)
    return f"{name} ({told})" if told else name


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(_shown(item) for item in value)
    return str(value)
