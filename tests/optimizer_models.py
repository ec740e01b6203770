"""A small convolutional net on scikit-learn's 8×8 digits, with its data beside it, and variants that break."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

TRAIN_COUNT = 1257


@functools.cache
def _data() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(digits.images.astype(np.float32) / 16.0)[:, None], torch.from_numpy(digits.target)


def _conv(inputs: int, outputs: int, groups: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Digits(nn.Module):
    """10 logits for an image [N, 1, 8, 8]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = _conv(1, width)
        self.depthwise = _conv(width, width, groups=width)
        self.body = _conv(width, 2 * width, stride=2)
        self.last = _conv(2 * width, 2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.last(self.body(self.depthwise(self.stem(image))))
        logits: torch.Tensor = self.head(features.mean((2, 3)))
        return logits


def fresh(width: int = 16, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Digits(width)


@functools.cache
def _trained(width: int) -> dict[str, torch.Tensor]:
    model = fresh(width)
    images, labels = training()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(10):
        for rows in torch.randperm(len(images), generator=generator).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval().state_dict()


def net(width: int = 16) -> nn.Module:
    """The trained model: about 97% of the test images."""
    model = Digits(width)
    model.load_state_dict(_trained(width))
    return model.eval()


def student() -> nn.Module:
    return fresh(4, seed=1).eval()


def outliers(channels: int = 2, factor: float = 300.0, width: int = 16) -> nn.Module:
    """The same function as ``net`` in float; in int8 one stem activation drowns the others' values.

    Channels of the stem are made larger and made smaller again by what takes them.
    """
    model = net(width)
    with torch.no_grad():
        for channel in range(channels):
            model.stem[1].weight[channel] *= factor
            model.stem[1].bias[channel] *= factor
            model.depthwise[0].weight[channel] /= factor
    return model


class Text(nn.Module):
    """Token ids [N, 12] -> 4 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(500, 64)
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)
        self.norm = nn.LayerNorm(64)
        self.odd, self.head = nn.Linear(64, 40), nn.Linear(40, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = self.table(ids)
        found = self.norm(found + self.down(torch.relu(self.up(found))))
        logits: torch.Tensor = self.head(torch.relu(self.odd(found.mean(1))))
        return logits


def text() -> nn.Module:
    torch.manual_seed(0)
    return Text().eval()


def text_example_inputs() -> torch.Tensor:
    return torch.randint(0, 500, (1, 12), generator=torch.Generator().manual_seed(1))


def text_calibration() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 500, (1, 12), generator=generator) for _ in range(8)]


def training() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = _data()
    return images[:TRAIN_COUNT], labels[:TRAIN_COUNT]


def unlabelled() -> torch.Tensor:
    return training()[0]


def killing() -> Any:
    """The training data as a data set whose reader dies once, some epochs in, when a file says so."""

    class Killing(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.read = 0

        def __len__(self) -> int:
            return 320

        def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
            images, labels = training()
            self.read += 1
            trap = os.environ.get("EDGEOPT_TEST_TRAP")
            if trap and self.read > 1500 and Path(trap).exists():
                Path(trap).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return images[row], labels[row]

    return Killing()


def example_inputs() -> torch.Tensor:
    return _data()[0][:1]


def calibration() -> list[torch.Tensor]:
    return list(_data()[0][:64].split(1))


def evaluate(predict: Callable[..., Any]) -> dict[str, float]:
    images, labels = _data()
    found = np.asarray(predict(images[TRAIN_COUNT:].numpy())).argmax(1)
    return {"accuracy": float((found == labels[TRAIN_COUNT:].numpy()).mean()), "samples": len(found)}


def accuracy(module: nn.Module) -> float:
    with torch.no_grad():
        return evaluate(lambda images: module(torch.from_numpy(images)).numpy())["accuracy"]
