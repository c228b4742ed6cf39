"""Small networks with known structure for the tests, random but fixed weights, eval mode."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A float64 network in eval mode; batch-norm statistics are not the trivial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return net.double().eval()


def linear(features: int, classes: int) -> nn.Module:
    """Logits linear in the pixels: its gradient is the same everywhere."""
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(features, classes)))


class VGGLike(nn.Module):
    """Convolutions, ReLU modules, max-pooling, two dense layers: what captum and zennit expect."""

    def __init__(self, channels: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1, bias=bias),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Linear(8 * 6 * 6, 16, bias=bias), nn.ReLU(), nn.Linear(16, 5, bias=bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.features(x), 1))


class Functional(nn.Module):
    """The same network with functional activations, some in place with the result ignored."""

    def __init__(self, twin: VGGLike) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = twin.features[0], twin.features[2], twin.features[5]
        self.d1, self.d2 = twin.head[0], twin.head[2]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.c1(x))
        x = self.c2(x)
        x.relu_()  # the result is ignored: the meaning must survive
        x = F.max_pool2d(x, 2)
        x = F.relu(self.c3(x), inplace=True)
        x = x.flatten(1)
        return self.d2(torch.relu(self.d1(x)))


class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.short = (
            nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.short(x)
        return F.relu6(out)


class ResNetLike(nn.Module):
    """Residual additions, batch-norm, ReLU6, functional activations, global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6(True))
        self.block1, self.block2 = Block(6, 6, 1), Block(6, 8, 2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block2(self.block1(self.stem(x))).mean((2, 3)))


class Normalised(nn.Module):
    """A network with pixel normalisation inside, as the lab's classifiers have."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor([0.45, 0.5, 0.4]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.25, 0.2, 0.3]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.mean) / self.std)


class Softplus(nn.Module):
    """A smooth network: its second derivatives exist everywhere."""

    def __init__(self, beta: float = 3.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6, 4)
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        x = F.softplus(self.conv(x), beta=self.beta)
        x = F.softplus(self.conv2(x), beta=self.beta)
        return self.fc(x.mean((2, 3)))


class Quadratic(nn.Module):
    """f_c(x) = ½ xᵀ A_c x + b_cᵀ x: the gradient map is linear in x, so optima are known."""

    def __init__(self, pixels: int, classes: int = 2) -> None:
        super().__init__()
        a = torch.randn(classes, pixels, pixels) / pixels**0.5
        self.a = nn.Parameter(a + a.transpose(1, 2))
        self.b = nn.Parameter(torch.randn(classes, pixels) * 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return 0.5 * torch.einsum("bi,cij,bj->bc", flat, self.a, flat) + flat @ self.b.T


def pictures(count: int = 3, size: int = 12, channels: int = 3, seed: int = 1) -> Tensor:
    """Random images in [0, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, size, size, generator=generator, dtype=torch.float64)


class Spelled(nn.Module):
    """Two convolutions and a matrix with ``activate`` in between, however that is written."""

    def __init__(self, activate: Callable[[Tensor], Tensor], scale: float = 12.0) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 6, 3, stride=2)
        self.fc = nn.Linear(6, 5)
        self.activate, self.scale = activate, scale  # scale: some values pass the 6 of ReLU6

    def forward(self, x: Tensor) -> Tensor:
        x = self.activate(self.conv1(self.scale * x))
        x = self.activate(self.scale * self.conv2(x))
        return self.fc(x.mean((2, 3)))


class Recorder(nn.Module):
    """Behaves like ``net`` and remembers the size of every batch that it sees."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.net(x)


class Convolutions(nn.Module):
    """Every way to convolve: groups, depthwise, dilation, lopsided "same" padding, strides."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, (2, 4), padding="same"),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=(2, 1), dilation=(2, 1), groups=6, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU6(),
            nn.Conv2d(6, 8, 3, stride=(2, 1), padding="valid", groups=2),
            nn.ReLU(),
            nn.Conv2d(8, 6, 2, stride=2, padding=1, padding_mode="reflect"),
        )
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.body(x)).mean(dim=(2, 3)))
