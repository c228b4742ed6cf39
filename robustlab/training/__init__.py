"""Training: one fit loop, the objectives that it descends, and the small networks that ship.

>>> build("adversarial", epsilon=0.1, steps=7).cost()
Passes(forward=8, backward=8)
"""

from collections.abc import Mapping
from typing import Any, Final

from robustlab.core.tables import build as _build
from robustlab.training.objective import TrainingObjective
from robustlab.training.objectives.adversarial import Adversarial
from robustlab.training.objectives.art import Art
from robustlab.training.objectives.curvature import Curvature
from robustlab.training.objectives.far import Far
from robustlab.training.objectives.igr import Igr
from robustlab.training.objectives.natural import Natural
from robustlab.training.objectives.r2et import R2et
from robustlab.training.objectives.rar import RarNorm, RarSumNorm
from robustlab.training.objectives.softplus import Softplus
from robustlab.training.objectives.ssr import Ssr
from robustlab.training.objectives.trades import Trades
from robustlab.training.objectives.weight_decay import WeightDecay

TRAINING: Final[Mapping[str, type[TrainingObjective]]] = {
    "natural": Natural,
    "adversarial": Adversarial,
    "trades": Trades,
    "rar_norm": RarNorm,
    "rar_sum_norm": RarSumNorm,
    "art": Art,
    "igr": Igr,
    "far": Far,
    "curvature": Curvature,
    "ssr": Ssr,
    "r2et": R2et,
    "softplus": Softplus,
    "weight_decay": WeightDecay,
}


def build(name: str, **options: Any) -> TrainingObjective:
    """The training objective of that name; unknown names get the nearest spelling.

    Raises:
        InvalidInput: unknown name or option, or a value of the wrong type or range.
    """
    return _build(TRAINING, "training", name, options)
