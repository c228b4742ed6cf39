"""Attack generators: each proposes disturbed images within a budget and never grades itself.

An attack is a frozen dataclass with ``propose(problem, budget) -> images``; what it achieved
is for `robustlab.core.judge` to say.
"""

from collections.abc import Mapping
from typing import Any, Final

from attacks.control import NoAttack, RandomNoise, RandomSign
from attacks.explanation.black_box import BlackBox
from attacks.explanation.dual import Dual
from attacks.explanation.ensemble import Ensemble
from attacks.explanation.fragility import MassCenter, TargetRegion, TopK
from attacks.explanation.map_distance import MapDistance
from attacks.explanation.patch import Patch
from attacks.explanation.target_map import TargetMap
from attacks.explanation.universal import Universal
from attacks.explanation.worst_case import WorstCase
from attacks.model.active_fooling import ActiveFooling
from attacks.model.backdoor import Backdoor
from attacks.model.concealment import Concealment
from attacks.model.constant_shift import ConstantShift
from attacks.model.dead_pixels import DeadPixels
from attacks.model.fairwashing import Fairwashing
from attacks.model.grad_cam_gadget import GradCAMGadget
from attacks.model.logit_shift import LogitShift
from attacks.model.passive_fooling import CenterMassFooling, LocationFooling, TopKFooling
from attacks.model.randomisation import OtherWeights, RandomWeights
from attacks.prediction import FGSM, MIFGSM, PGD, CarliniWagner, DeepFool
from robustlab.core.tables import build as _build
from robustlab.core.types import Attack, ModelAttack

ATTACKS: Final[Mapping[str, type[Attack]]] = {
    "none": NoAttack,
    "random_sign": RandomSign,
    "random_noise": RandomNoise,
    "fgsm": FGSM,
    "pgd": PGD,
    "mi_fgsm": MIFGSM,
    "carlini_wagner": CarliniWagner,
    "deep_fool": DeepFool,
    "top_k": TopK,
    "mass_center": MassCenter,
    "target_region": TargetRegion,
    "target_map": TargetMap,
    "dual": Dual,
    "patch": Patch,
    "map_distance": MapDistance,
    "ensemble": Ensemble,
    "universal": Universal,
    "black_box": BlackBox,
    "worst_case": WorstCase,
}
# these disturb the model and leave its images alone
MODEL_ATTACKS: Final[Mapping[str, type[ModelAttack]]] = {
    "location_fooling": LocationFooling,
    "top_k_fooling": TopKFooling,
    "center_mass_fooling": CenterMassFooling,
    "active_fooling": ActiveFooling,
    "fairwashing": Fairwashing,
    "concealment": Concealment,
    "backdoor": Backdoor,
    "random_weights": RandomWeights,
    "other_weights": OtherWeights,
    "constant_shift": ConstantShift,
    "logit_shift": LogitShift,
    "dead_pixels": DeadPixels,
    "grad_cam_gadget": GradCAMGadget,
}


def build(name: str, **options: Any) -> Attack | ModelAttack:
    """The attack of that name; unknown names and options get the nearest spelling."""
    tables: Mapping[str, type[Attack | ModelAttack]] = {**ATTACKS, **MODEL_ATTACKS}
    return _build(tables, "attack", name, options)


__all__ = [
    "ATTACKS",
    "FGSM",
    "MIFGSM",
    "MODEL_ATTACKS",
    "PGD",
    "ActiveFooling",
    "Backdoor",
    "BlackBox",
    "CarliniWagner",
    "CenterMassFooling",
    "Concealment",
    "ConstantShift",
    "DeadPixels",
    "DeepFool",
    "Dual",
    "Ensemble",
    "Fairwashing",
    "GradCAMGadget",
    "LocationFooling",
    "LogitShift",
    "MapDistance",
    "MassCenter",
    "NoAttack",
    "OtherWeights",
    "Patch",
    "RandomNoise",
    "RandomSign",
    "RandomWeights",
    "TargetMap",
    "TargetRegion",
    "TopK",
    "TopKFooling",
    "Universal",
    "WorstCase",
    "build",
]
