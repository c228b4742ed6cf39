"""What every perturbation explainer refuses to be built with."""

from collections.abc import Mapping

from robustlab.core.errors import InvalidInput


def check_at_least(explainer: object, bounds: Mapping[str, float]) -> None:
    """Refuse an option below its bound."""
    for field, bound in bounds.items():
        value = getattr(explainer, field)
        if not value >= bound:
            raise InvalidInput(field, f"must be at least {bound}, got {value}")


def check_above_zero(explainer: object, *fields: str) -> None:
    """Refuse an option that must be positive and is not."""
    for field in fields:
        value = getattr(explainer, field)
        if not value > 0:
            raise InvalidInput(field, f"must be above 0, got {value}")


def check_infill(infill: str | float, blur: float) -> None:
    """Refuse a colour outside the box of pixels and a blur without width."""
    if not isinstance(infill, str) and not 0 <= infill <= 1:
        raise InvalidInput("infill", f"pixels lie in [0, 1], got {infill}")
    if not blur > 0:
        raise InvalidInput("blur", f"must be above 0, got {blur}")
