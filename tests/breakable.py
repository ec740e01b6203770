"""A digit classifier built to break under plain int8: one channel of an activation carries 1000 times the others.

The scaling changes nothing in float: what the first layer multiplies, the second divides again, and ReLU lets a
positive factor through.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn

FACTOR = 1000.0


class DigitNet(nn.Module):
    """8×8 digits: two cheap layers, then three that hold most of the work."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.mix = nn.Conv2d(16, 16, 1)
        self.body = nn.ModuleList(
            [
                nn.Conv2d(16, 32, 3, padding=1),
                nn.Conv2d(32, 32, 3, padding=1),
                nn.Conv2d(32, 32, 3, padding=1),
            ]
        )
        self.head = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.mix(torch.relu(self.stem(image))))
        for layer in self.body:
            features = torch.relu(layer(features))
        return self.head(features.amax((2, 3)))


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images and labels to train on, and 450 of each to test on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images.astype(np.float32) / 16.0)[:, None]
    labels = torch.from_numpy(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    return images[450:], labels[450:], images[:450], labels[:450]


@cache
def _trained() -> DigitNet:
    torch.manual_seed(0)
    net = DigitNet()
    images, labels, _, _ = digits()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(20):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()


def healthy() -> nn.Module:
    return _trained()


def broken() -> nn.Module:
    net = DigitNet()
    net.load_state_dict(_trained().state_dict())
    with torch.no_grad():
        active = torch.relu(net.stem(digits()[0][:64])).mean((0, 2, 3)).argmax()
        net.stem.weight[active] *= FACTOR
        net.stem.bias[active] *= FACTOR
        net.mix.weight[:, active] /= FACTOR
    return net.eval()


def example_inputs() -> torch.Tensor:
    return digits()[2][:1]


def calibration() -> list[torch.Tensor]:
    return list(digits()[0][:32].split(1))


def evaluate(predict) -> dict[str, float]:
    _, _, images, labels = digits()
    found = predict(images.numpy()).argmax(1)
    return {"accuracy": float((found == labels.numpy()).mean()), "samples": len(labels)}
