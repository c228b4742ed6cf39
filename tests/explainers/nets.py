"""The kinds of nets that every explainer must cope with."""

import torch

from tests.nets import (
    Convolutions,
    Functional,
    Normalised,
    ResNetLike,
    Softplus,
    VGGLike,
    seeded,
)

TARGETS = torch.tensor([1, 3, 0])
NETS = {
    "vgg": lambda: seeded(VGGLike),
    "functional": lambda: Functional(seeded(VGGLike)).eval(),
    "resnet": lambda: seeded(ResNetLike),
    "normalised": lambda: seeded(lambda: Normalised(VGGLike())),
    "softplus": lambda: seeded(Softplus),
    "convolutions": lambda: seeded(Convolutions),
}
