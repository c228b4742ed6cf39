"""Classifiers by name: pixels in [0, 1] in, logits out, normalisation inside."""

from collections.abc import Mapping
from typing import Any, Final

from robustlab.core.errors import InvalidInput
from robustlab.core.tables import build
from robustlab.models.abn_cnn import AbnCnn
from robustlab.models.cbam_cnn import CbamCnn
from robustlab.models.classifier import Classifier, Recipe
from robustlab.models.efficientnet_lite0 import EfficientNetLite0
from robustlab.models.se_cnn import SeCnn
from robustlab.models.small_cnn import SmallCnn
from robustlab.models.small_resnet import SmallResnet
from robustlab.models.small_vit import SmallVit
from robustlab.models.timm_models import TimmModel
from robustlab.models.torchvision_models import TorchvisionModel, torchvision_archs
from robustlab.models.zoo import ZooModel

__all__ = ["MODELS", "Classifier", "load"]

_ANY = "NAME"
MODELS: Final[Mapping[str, type[Recipe]]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "small_cnn": SmallCnn,
    "small_resnet": SmallResnet,
    "se_cnn": SeCnn,
    "cbam_cnn": CbamCnn,
    "abn_cnn": AbnCnn,
    "small_vit": SmallVit,
    f"zoo:{_ANY}": ZooModel,
    f"torchvision:{_ANY}": TorchvisionModel,
    f"timm:{_ANY}": TimmModel,
}


def load(name: str, **options: Any) -> Classifier:
    """Load the classifier ``name`` in evaluation mode, on the CPU.

    Its options are the fields of the table's class; ``torchvision:resnet18`` stands for
    ``torchvision:NAME`` with ``arch="resnet18"``. Nothing is downloaded unless an option
    asks for it, and the global random generators are left as they are.

    Returns:
        A :class:`Classifier`: images ``[B, C, H, W]`` in [0, 1] to logits ``[B, classes]``.

    Raises:
        InvalidInput: unknown name or option (with the nearest spelling), or weights that
            are missing, unsafe, broken or made for another network, with the reason.
        MissingDependency: an optional package is needed; says how to install it.
    """
    recipe = _recipe(name, options)
    try:
        return recipe.load(name)
    except InvalidInput as error:
        raise error.within(name) from error.__cause__


def _recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    family, colon, arch = name.partition(":")
    entry = f"{family}:{_ANY}"
    if not colon and name not in MODELS and name in torchvision_archs():
        remedy = f"did you mean 'torchvision:{name}'? known: {', '.join(sorted(MODELS))}"
        raise InvalidInput("model", f"unknown name {name!r}", remedy)
    if not colon or entry not in MODELS:
        return build(MODELS, "model", name, options)
    if "arch" in options:
        raise InvalidInput(f"{name}.arch", "the architecture is already in the name")
    return build({name: MODELS[entry]}, "model", name, {**options, "arch": arch})
