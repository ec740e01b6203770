"""The models of methods_table.py, with their data beside them as ``edgeopt export`` finds it.

``mnist`` and ``fashion`` are a depthwise-separable CNN of 7k parameters, ``*_learner`` the same untrained, ``*_student``
a tenth of it, ``*_teacher`` a plain CNN of 111k, ``*_outliers`` the first one with outlier channels. ``python benchmarks/method_models.py`` trains
what isn't trained yet.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import image_sets

SETS = ("mnist", "fashion")
STUDENT_SEEDS = 5
_EPOCHS = {"": 4, "_teacher": 3}


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Separable(nn.Module):
    """Depthwise-separable CNN: 10 logits for an image [N, 1, 28, 28]."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(1, widths[0], 3, 2)]
        for inputs, outputs, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [conv(inputs, inputs, 3, stride, inputs), conv(inputs, outputs, 1)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(image).mean((2, 3)))
        return logits


def _plain() -> nn.Module:
    return nn.Sequential(
        conv(1, 32, 3, 2), conv(32, 64, 3, 1), conv(64, 128, 3, 2), conv(128, 128, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def build(kind: str, seed: int = 0) -> nn.Module:
    """An untrained model: ``""``, ``_student`` or ``_teacher``."""
    torch.manual_seed(seed)
    if kind == "_teacher":
        return _plain()
    return Separable((8, 16, 16), (2, 1)) if kind == "_student" else Separable((16, 32, 48, 64), (1, 2, 1))


def trained(name: str, kind: str) -> nn.Module:
    """The trained model from the user's cache, in evaluation mode."""
    model = build(kind)
    model.load_state_dict(torch.load(_file(name, kind), weights_only=True))
    return model.eval()


def outliers(name: str) -> nn.Module:
    """The same function as the base model, built to break in int8: four channels are 400 times as large as the rest
    between the first two layers, whose weights make up for it (ReLU lets a positive factor through)."""
    model = trained(name, "")
    normalised, following = model.features[0][1], model.features[1][0]
    factors = torch.ones(normalised.num_features)
    factors[::4] = 400.0
    with torch.no_grad():
        normalised.weight.mul_(factors)
        normalised.bias.mul_(factors)
        following.weight.div_(factors[:, None, None, None])
    return model


def _file(name: str, kind: str) -> Path:
    return image_sets.folder() / f"{name}{kind}.pt"


def train(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, rate: float, seed: int
) -> None:
    """AdamW and one cosine: what "trained alone" means in the table."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    steps = epochs * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def accuracy(model: nn.Module, name: str) -> float:
    """Top-1 accuracy on the 10,000 test images."""
    images, labels = image_sets.load(name, "test")
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in images.split(500)])
    return float((found == labels).float().mean())


def main() -> None:
    """Train the base models and the teachers."""
    torch.set_num_threads(1)
    for name in SETS:
        for kind, epochs in _EPOCHS.items():
            if not _file(name, kind).is_file():
                model = build(kind)
                train(model, *image_sets.load(name, "train"), epochs, 5e-3, 0)
                torch.save(model.state_dict(), _file(name, kind))
            model = trained(name, kind)
            count = sum(p.numel() for p in model.parameters())
            print(f"{name}{kind}: {count:,} parameters, {accuracy(model, name):.2%}", flush=True)


def _example(name: str) -> torch.Tensor:
    return image_sets.load(name, "test")[0][:1]


def _calibration(name: str) -> list[torch.Tensor]:
    return list(image_sets.load(name, "train")[0][:128].split(1))


def _few(name: str, count: int) -> tuple[torch.Tensor, ...]:
    return tuple(part[:count] for part in image_sets.load(name, "train"))


def _unlabelled(name: str) -> torch.Tensor:
    return image_sets.load(name, "train")[0][:5000]


def _evaluate(name: str, predict: Callable[..., Any]) -> dict[str, float]:
    images, labels = image_sets.load(name, "test")
    found = np.asarray(predict(images.numpy())).argmax(1)
    return {"accuracy": float((found == labels.numpy()).mean()), "samples": len(labels)}


# The names that edgeopt finds: mnist, mnist_teacher, mnist_training, mnist_calibration, mnist_evaluate, ...
for _name in SETS:
    for _kind in ("", "_teacher"):
        globals()[f"{_name}{_kind}"] = functools.partial(trained, _name, _kind)
    globals()[f"{_name}_outliers"] = functools.partial(outliers, _name)
    for _seed in range(STUDENT_SEEDS):
        globals()[f"{_name}_student{_seed or ''}"] = functools.partial(build, "_student", _seed)
        globals()[f"{_name}_learner{_seed or ''}"] = functools.partial(build, "", _seed)
    globals()[f"{_name}_example"] = functools.partial(_example, _name)
    globals()[f"{_name}_training"] = functools.partial(image_sets.load, _name, "train")
    globals()[f"{_name}_500"] = functools.partial(_few, _name, 500)
    globals()[f"{_name}_unlabelled"] = functools.partial(_unlabelled, _name)
    globals()[f"{_name}_2000"] = functools.partial(_few, _name, 2000)
    globals()[f"{_name}_calibration"] = functools.partial(_calibration, _name)
    globals()[f"{_name}_evaluate"] = functools.partial(_evaluate, _name)

if __name__ == "__main__":
    main()
