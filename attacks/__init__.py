"""Attack generators: each proposes disturbed images within a budget and never grades itself.

An attack is a frozen dataclass with ``propose(problem, budget) -> images``; what it achieved
is for `robustlab.core.judge` to say.
"""

from collections.abc import Mapping
from typing import Any, Final

from attacks.control import NoAttack, RandomNoise, RandomSign
from attacks.explanation.fragility import MassCenter, TargetRegion, TopK
from attacks.explanation.target_map import TargetMap
from attacks.prediction import FGSM, PGD
from robustlab.core.tables import build as _build
from robustlab.core.types import Attack

ATTACKS: Final[Mapping[str, type[Attack]]] = {
    "none": NoAttack,
    "random_sign": RandomSign,
    "random_noise": RandomNoise,
    "fgsm": FGSM,
    "pgd": PGD,
    "top_k": TopK,
    "mass_center": MassCenter,
    "target_region": TargetRegion,
    "target_map": TargetMap,
}


def build(name: str, **options: Any) -> Attack:
    """The attack of that name; unknown names and options get the nearest spelling."""
    return _build(ATTACKS, "attack", name, options)


__all__ = [
    "ATTACKS",
    "FGSM",
    "PGD",
    "MassCenter",
    "NoAttack",
    "RandomNoise",
    "RandomSign",
    "TargetMap",
    "TargetRegion",
    "TopK",
    "build",
]
