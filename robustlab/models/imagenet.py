"""The human names of ImageNet's 1,000 classes."""

from functools import cache

from robustlab.core.torchvision_ops import import_torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def class_names() -> tuple[str, ...]:
    """``("tench", "goldfish", ...)`` in the order of the logits, all distinct."""
    weights = import_torchvision().models.ResNet18_Weights.IMAGENET1K_V1
    return tuple(weights.meta["categories"])
