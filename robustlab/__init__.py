"""robustlab: can this explanation be trusted under attack?

::

    import robustlab as rl, attacks

    model = rl.models.load("efficientnet_lite0")
    batch = rl.data.load("photos").batch()
    gradient = rl.explainers.build("gradient")
    maps = rl.explain(model, gradient, batch)                        # [B, H, W]
    result = rl.attack(model, gradient, attacks.build("top_k", steps=20), batch,
                       rl.Budget("linf", 0.5 / 255))
    result.drift("top_k_intersection", k=1000)                       # [B]
    rl.examine(model, gradient, batch, rl.metrics.build("max_sensitivity"))  # [B]

On Linux ``rl.keep_memory()`` beforehand makes all of this quicker, in a process that is your own:
freed memory is kept for the next pass (the command ``robustlab`` does so itself).

Rooms are imported when they are first used, so ``import robustlab`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustlab import data, explainers, metrics, models, training
    from robustlab.core.batch import Batch
    from robustlab.core.budget import Budget
    from robustlab.core.memory import keep_memory
    from robustlab.lab.api import AttackResult, attack, examine, explain

__version__ = "0.1.0"

_ROOMS = (
    "core",
    "data",
    "explainers",
    "lab",
    "metrics",
    "models",
    "records",
    "reporting",
    "training",
)
_HOMES = {
    "Batch": "robustlab.core.batch",
    "Budget": "robustlab.core.budget",
    "AttackResult": "robustlab.lab.api",
    "attack": "robustlab.lab.api",
    "examine": "robustlab.lab.api",
    "explain": "robustlab.lab.api",
    "keep_memory": "robustlab.core.memory",
}

__all__ = [
    "AttackResult",
    "Batch",
    "Budget",
    "__version__",
    "attack",
    "data",
    "examine",
    "explain",
    "explainers",
    "keep_memory",
    "metrics",
    "models",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"robustlab.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'robustlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
