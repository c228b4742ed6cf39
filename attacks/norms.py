"""Which budgets an attack can use; the one place that refuses the others."""

from typing import Final

from robustlab.core.budget import Budget, Norm
from robustlab.core.errors import InvalidInput

BALLS: Final[tuple[Norm, ...]] = ("linf", "l2")
_INSTEAD: Final[dict[Norm, str]] = {
    "linf": "pgd, mi_fgsm, deep_fool and the attacks on explanations take linf",
    "l2": "pgd, mi_fgsm, deep_fool, carlini_wagner and the attacks on explanations take l2",
    "patch": "the attack named patch takes patch",
}


def check_norm(budget: Budget, fitting: tuple[Norm, ...], attack: str) -> None:
    """Refuse a budget whose norm ``attack`` was not made for.

    Raises:
        InvalidInput: naming the norms that fit, and the attacks that fit this norm.
    """
    if budget.norm not in fitting:
        raise InvalidInput(
            "norm",
            f"{attack} cannot use a budget of norm {budget.norm}",
            f"give it a budget of norm {' or '.join(fitting)}; {_INSTEAD[budget.norm]}",
        )
