"""What the project's convolutional networks for images of any size have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import nn

from robustlab.models.classifier import Classifier, at_least
from robustlab.models.seeding import seeded
from robustlab.models.shipped import give_weights


@dataclass(frozen=True)
class AnySize:
    """A network of the project without normalisation, for images of any size.

    Attributes:
        weights: "mnist_5k" (shipped), "none" (random) or a .safetensors or .pth file.
        seed: of random weights.
        in_channels, classes: shape of the network.
        image_size: the size it is meant for; other sizes work as well.
    """

    network: ClassVar[type[nn.Module]]
    arch: ClassVar[str]
    """Its name, which files of shipped weights begin with."""

    weights: str | Path = "mnist_5k"
    seed: int = 0
    in_channels: int = 1
    classes: int = 10
    image_size: int = 28

    def __post_init__(self) -> None:
        at_least("in_channels", self.in_channels, 1)
        at_least("classes", self.classes, 2)
        at_least("image_size", self.image_size, 4)

    def load(self, name: str) -> Classifier:
        """Build it with its weights.

        Raises:
            InvalidInput: weights that are missing or do not fit.
        """
        with seeded(self.seed):
            net = self.network(self.in_channels, self.classes)
        give_weights(net, self.arch, self.weights)
        size = (self.in_channels, self.image_size, self.image_size)
        return Classifier(net, 0, 1, self.classes, input_size=size, name=name).eval()
