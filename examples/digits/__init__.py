"""The demo: a small MobileNetV2 (Sandler et al., 2018) trained on scikit-learn's handwritten digits.

``edgeopt export examples.digits:net --profile pixel7`` finds everything it needs here: the model, and
beside it example inputs, calibration samples and the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

WEIGHTS = Path(__file__).with_name("digits_mobilenet.safetensors")
# Images 0 to 1,257 train the model; it never sees the rest.
TRAIN_COUNT = 1257
# expansion, channels, repeats, stride
BLOCKS = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 2), (4, 48, 1, 1))
STUDENT_BLOCKS = ((1, 16, 1, 1), (4, 24, 1, 2), (4, 32, 1, 2))


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; with a shortcut where the shapes allow one."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [*conv_norm(inputs, hidden, 1)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            *conv_norm(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(features)
        return features + out if self.shortcut else out


def conv_norm(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, ...]:
    """Convolution, batch normalisation, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)


class DigitsMobileNet(nn.Module):
    """10 logits for an image [N, 1, 32, 32] with values in 0..1."""

    def __init__(self, blocks: tuple[tuple[int, int, int, int], ...] = BLOCKS, last: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = [*conv_norm(1, 16, 3, stride=2)]
        channels = 16
        for expansion, outputs, repeats, stride in blocks:
            for index in range(repeats):
                layers.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers, *conv_norm(channels, last, 1))
        self.classifier = nn.Linear(last, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pooled = self.features(image).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(pooled)
        return logits


def net() -> nn.Module:
    """The trained model."""
    from safetensors.torch import load_file

    model = DigitsMobileNet()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def student() -> nn.Module:
    """A smaller net that has learned nothing yet: what ``student.toml`` distils, prunes and trains in int8."""
    torch.manual_seed(0)
    return DigitsMobileNet(STUDENT_BLOCKS, last=64).eval()


def training() -> tuple[torch.Tensor, torch.Tensor]:
    """The training images and their digits, for recipes that train."""
    pixels, digits = images()
    return pixels[:TRAIN_COUNT], digits[:TRAIN_COUNT]


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """All 1,797 images, 8×8 enlarged to [N, 1, 32, 32] in 0..1, and their digits [N]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images.astype(np.float32) / 16.0)[:, None]
    large = nn.functional.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    return large, torch.from_numpy(digits.target)


def example_inputs() -> torch.Tensor:
    """One training image."""
    return images()[0][:1]


def calibration() -> Iterator[torch.Tensor]:
    """64 training images, one at a time."""
    return iter(images()[0][:64].split(1))


def evaluate(predict: Callable[..., Any]) -> dict[str, float]:
    """Top-1 accuracy on the 540 images that training never saw."""
    pixels, digits = images()
    logits = predict(pixels[TRAIN_COUNT:].numpy())
    found = np.asarray(logits).argmax(axis=1)
    return {"accuracy": float(np.mean(found == digits[TRAIN_COUNT:].numpy())), "samples": len(found)}
