"""Networks whose biases are hard to find, for FullGrad and its completeness."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bent(nn.Module):
    """Gates, leaky and hard activations, constants on either side, quotients, products."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=2)
        self.bn = nn.BatchNorm2d(6)
        self.squeeze, self.excite = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.shift = nn.Parameter(torch.randn(1, 6, 1, 1))
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = 1.0 - (x - 0.4) / 0.3
        x = F.hardswish(self.bn(self.conv(x)))
        gate = torch.sigmoid(self.excite(F.leaky_relu(self.squeeze(x.mean((2, 3), True)), 0.2)))
        x = self.shift - F.gelu(self.conv2(x * gate)) + self.shift
        x = F.max_pool2d(x + F.silu(x) + 1, 2) / (2 + F.relu6(x[..., ::2, ::2]))
        x = x + torch.div(self.shift, 3 + torch.sigmoid(x))
        return self.fc(torch.clamp(x, -0.5, 4.0).mean((2, 3))) - 0.3


class Modern(nn.Module):
    """Other normalisations, transposed convolutions, channels last, products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 4, 2, 2), nn.ConvTranspose2d(4, 4, 2, 2)
        self.group, self.layer = nn.GroupNorm(2, 4), nn.LayerNorm(4)
        self.wide, self.thin = nn.Linear(4, 8), nn.Linear(8, 4)
        self.fc = nn.Linear(16, 5)
        for norm in (self.group, self.layer):
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(F.silu(self.group(self.stem(x))))
        last = x.permute(0, 2, 3, 1)
        x = x + self.thin(F.gelu(self.wide(self.layer(last)))).permute(0, 3, 1, 2)
        tokens = F.normalize(x.flatten(2), dim=1)
        mixed = torch.softmax(tokens, 2) @ tokens.transpose(1, 2)
        return self.fc(mixed.flatten(1))


class Instance(nn.Module):
    """Instance-norm with an offset. (Kept apart from channels last: with a gradient in that
    order, torch 2.13's own instance-norm is wrong for a batch of one.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True)
        self.fc = nn.Linear(4, 5)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.silu(self.norm(self.conv(x))).mean((2, 3)))
