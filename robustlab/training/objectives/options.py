"""Checks that the options of several objectives share."""

from robustlab.core.errors import InvalidInput
from robustlab.training.examples import Reach


def at_least(field: str, value: int, least: int) -> None:
    """Refuse a number that is too small to count anything."""
    if value < least:
        raise InvalidInput(field, f"must be at least {least}, got {value}")


def not_negative(field: str, value: float) -> None:
    """Refuse a price that would be paid out."""
    if not value >= 0:
        raise InvalidInput(field, f"must not be negative, got {value}")


def positive_or_none(field: str, value: float | None) -> None:
    """Refuse a sharpness of softplus that is none."""
    if value is not None and not value > 0:
        raise InvalidInput(field, f"must be above 0, got {value}")


def starts_elsewhere(reach: Reach) -> None:
    """Refuse a search from the image itself, for a gain that is least and flat there."""
    if not reach.random_start:
        raise InvalidInput(
            "random_start",
            "what is maximised is 0 and flat at the image itself, so the search would stay there",
            "leave it on",
        )
