"""Two convolutions and two linear layers: the papers' small network for digits."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.models.classifier import Classifier, at_least
from robustlab.models.seeding import seeded
from robustlab.models.shipped import give_weights


class SmallCnnNet(nn.Module):
    """conv 4×4/2 (16), conv 4×4/2 (32), linear (100), linear (classes); ReLU modules.

    No batch norm and no pooling, so that closed forms and other people's LRP apply; every
    ReLU is a module of its own, because hook-based tools miss functional or shared ones. With
    ``beta`` they are softplus_β instead, and the network is smooth. 0.6 million multiplications
    for a digit.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 10,
        image_size: int = 28,
        beta: float | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, kernel_size=4, stride=2, padding=1)
        self.relu1 = _activation(beta)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=4, stride=2, padding=1)
        self.relu2 = _activation(beta)
        self.fc1 = nn.Linear(32 * (image_size // 4) ** 2, 100)
        self.relu3 = _activation(beta)
        self.fc2 = nn.Linear(100, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of ``[B, in_channels, image_size, image_size]``."""
        features = self.relu1(self.conv1(images))
        features = self.relu2(self.conv2(features))
        return self.fc2(self.relu3(self.fc1(features.flatten(1))))


def _activation(beta: float | None) -> nn.Module:
    return nn.ReLU() if beta is None else nn.Softplus(beta)


@dataclass(frozen=True)
class SmallCnn:
    """Two convolutions and two linear layers, the papers' small network for digits.

    ``SmallCnnNet`` without normalisation.

    Attributes:
        weights: "mnist_5k" (shipped), "none" (random) or a .safetensors or .pth file.
        seed: of random weights.
        in_channels, classes: shape of the network.
        image_size: side of its images, a multiple of 4.
        beta: None for ReLU; softplus_β = log(1 + e^{βx})/β instead, as Dombrowski et al. 2022
            train and deploy it. With weights that were trained for ReLU it is their β-smoothing.
    """

    weights: str | Path = "mnist_5k"
    seed: int = 0
    in_channels: int = 1
    classes: int = 10
    image_size: int = 28
    beta: float | None = None

    def __post_init__(self) -> None:
        at_least("in_channels", self.in_channels, 1)
        at_least("classes", self.classes, 2)
        if self.image_size < 4 or self.image_size % 4:
            raise InvalidInput("image_size", f"must be a multiple of 4, got {self.image_size}")
        if self.beta is not None and not self.beta > 0:
            raise InvalidInput("beta", f"must be above 0, got {self.beta}")

    def load(self, name: str) -> Classifier:
        """Build it with its weights.

        Raises:
            InvalidInput: weights that are missing or do not fit.
        """
        with seeded(self.seed):
            net = SmallCnnNet(self.in_channels, self.classes, self.image_size, self.beta)
        give_weights(net, "small_cnn", self.weights)
        size = (self.in_channels, self.image_size, self.image_size)
        classes = self.classes
        return Classifier(net, 0, 1, classes, input_size=size, fixed_size=True, name=name).eval()
