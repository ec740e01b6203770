"""Models whose bundles become apps: two inputs, outputs of two kinds, names that no compiler takes."""

from __future__ import annotations

import torch
from torch import nn


class Pair(nn.Module):
    """A small convolution on a picture, scaled by a second input; scores, and the class as a whole number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, image: torch.Tensor, default: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.head(self.conv(image).relu().mean((2, 3))) * default
        return {"class scores": scores, "int": scores.argmax(1)}


def pair() -> nn.Module:
    return Pair().eval()


def example_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, 12, 12, generator=generator), torch.rand(1, 3, generator=generator) + 0.5


class Rows(nn.Module):
    """Takes any number of rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.body(rows)


def rows() -> nn.Module:
    return Rows().eval()
