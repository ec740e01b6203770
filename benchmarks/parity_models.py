"""Three small networks of different kinds, for the emulator's parity table (emulator_parity.py).

Seeded random weights and normalisation statistics: their outputs mean nothing, their arithmetic is real.
"""

from __future__ import annotations

import torch
from torch import nn


class UNet(nn.Module):
    """A small U-Net: one level down, one up again by a transposed convolution, a class for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.leave = nn.Conv2d(32, 4, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, 32, 32) → (1, 4, 32, 32), probabilities over the second axis."""
        fine = self.enter(image)
        return self.leave(torch.cat([fine, self.up(self.down(fine))], 1)).softmax(1)


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))


class _Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.adds = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            _SqueezeExcite(wide),
            nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class Mobile(nn.Module):
    """Inverted residuals with squeeze-excite, as MobileNet V2 and V3 have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.blocks = nn.Sequential(_Inverted(16, 16, 1), _Inverted(16, 24, 2), _Inverted(24, 24, 1))
        self.head = nn.Linear(24, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, 32, 32) → (1, 10) logits."""
        return self.head(self.blocks(self.stem(image)).mean((2, 3), keepdim=True).flatten(1))


class Encoder(nn.Module):
    """Two transformer layers with one head over a short sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_EncoderLayer(32) for _ in range(2))
        self.head = nn.Linear(32, 6)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(1, 16, 32) → (1, 6) logits."""
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(tokens.mean(1))


class _EncoderLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.before(x)).chunk(3, dim=-1)
        x = x + self.out(torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1) @ v)
        return x + self.feed(self.after(x))


def unet() -> nn.Module:
    """The U-Net."""
    return _seeded(UNet)


def mobile() -> nn.Module:
    """The squeeze-excite network."""
    return _seeded(Mobile)


def encoder() -> nn.Module:
    """The transformer."""
    return _seeded(Encoder)


def image() -> torch.Tensor:
    """An example input of unet and mobile."""
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def tokens() -> torch.Tensor:
    """An example input of encoder."""
    return torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(1))


def images() -> list[torch.Tensor]:
    """Calibration samples of unet and mobile."""
    return [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(s)) for s in range(2, 10)]


def sequences() -> list[torch.Tensor]:
    """Calibration samples of encoder."""
    return [torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(s)) for s in range(2, 10)]


def _seeded(make: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()
