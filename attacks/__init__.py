"""Attack generators: each proposes disturbed images within a budget and never grades itself.

An attack is a frozen dataclass with ``propose(problem, budget) -> images``; what it achieved
is for `robustlab.core.judge` to say.
"""

from collections.abc import Mapping
from typing import Any, Final

from attacks.control import NoAttack, RandomNoise, RandomSign
from attacks.explanation.black_box import BlackBox
from attacks.explanation.fragility import MassCenter, TargetRegion, TopK
from attacks.explanation.target_map import TargetMap
from attacks.model.randomisation import OtherWeights, RandomWeights
from attacks.prediction import FGSM, PGD
from robustlab.core.tables import build as _build
from robustlab.core.types import Attack, ModelAttack

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
    "black_box": BlackBox,
}
# these disturb the model and leave its images alone
MODEL_ATTACKS: Final[Mapping[str, type[ModelAttack]]] = {
    "random_weights": RandomWeights,
    "other_weights": OtherWeights,
}


def build(name: str, **options: Any) -> Attack | ModelAttack:
    """The attack of that name; unknown names and options get the nearest spelling."""
    tables: Mapping[str, type[Attack | ModelAttack]] = {**ATTACKS, **MODEL_ATTACKS}
    return _build(tables, "attack", name, options)


__all__ = [
    "ATTACKS",
    "FGSM",
    "MODEL_ATTACKS",
    "PGD",
    "BlackBox",
    "MassCenter",
    "NoAttack",
    "OtherWeights",
    "RandomNoise",
    "RandomSign",
    "RandomWeights",
    "TargetMap",
    "TargetRegion",
    "TopK",
    "build",
]
