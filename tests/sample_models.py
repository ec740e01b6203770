"""Small models that the tests export: what a user's own package would look like."""

from __future__ import annotations

import os

import torch
from torch import nn


class TinyNet(nn.Module):
    """Two convolutions with batch norm and a classifier; 10 logits and a scalar in a nested output."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(16, classes)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(image)
        return {"logits": self.head(features), "norm": features.norm(dim=1)}


def _randomise(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return model.eval()


def net() -> nn.Module:
    torch.manual_seed(0)
    return _randomise(TinyNet())


def example_inputs() -> torch.Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def calibration() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(1, 3, 16, 16, generator=generator) for _ in range(8)]


def evaluate(predict) -> dict[str, float]:
    """A metric that falls as soon as the outputs differ: agreement of the logits' signs with the source."""
    data = torch.cat(calibration())
    with torch.no_grad():
        wanted = net()(data)["logits"].argmax(1).numpy()
    found = predict(data.numpy())["logits"].argmax(1)
    return {"accuracy": float((found == wanted).mean()), "samples": len(wanted)}


def always_worse(predict) -> float:
    """A metric that is 1 in the process the tests run in and 0 in any other, where files are checked."""
    return 1.0 if os.getpid() == _MAIN else 0.0


_MAIN = os.getpid()


def training() -> nn.Module:
    return net().train()


def nan_weights() -> nn.Module:
    model = net()
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    return model


def huge_weight() -> nn.Module:
    model = net()
    with torch.no_grad():
        model.head.weight[0, 0] = 1e6
    return model


def not_a_module() -> int:
    return 42


def factory(classes: int) -> nn.Module:
    return _randomise(TinyNet(classes))


def breaks() -> nn.Module:
    raise RuntimeError("no weights here")


class Branching(nn.Module):
    """Control flow that depends on the data."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.sum() > 0:
            return image + 1
        return image - 1


def branching() -> nn.Module:
    return Branching().eval()


class InNumpy(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(image.numpy() * 2)


def in_numpy() -> nn.Module:
    return InNumpy().eval()


def no_photos() -> nn.Module:
    return net()


def no_photos_calibration() -> list[torch.Tensor]:
    raise FileNotFoundError("photos/0.png")


class Noisy(nn.Module):
    """Forgets training=self.training, so that its dropout stays on."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(image, 0.5)


def noisy() -> nn.Module:
    return Noisy()


class Counting(nn.Module):
    """Keeps its state where no capture finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return image * self.calls


def counting() -> nn.Module:
    return Counting()


def no_images() -> torch.Tensor:
    return torch.zeros(0, 3, 16, 16)


def with_inputs() -> tuple[nn.Module, torch.Tensor]:
    return net(), example_inputs()


def few_readings() -> nn.Module:
    """So little work that converting to int8 and back takes longer than it saves."""
    torch.manual_seed(0)
    return nn.Linear(8, 4).eval()


def few_readings_example_inputs() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 8)


def few_readings_calibration() -> list[torch.Tensor]:
    torch.manual_seed(2)
    return [torch.randn(1, 8) for _ in range(8)]


def lazy() -> nn.Module:
    return nn.LazyLinear(5)


NUMBER = 3


STATE = {"head.weight": torch.zeros(2, 4)}


def quantized_by_torch() -> nn.Module:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    return torch.ao.quantization.quantize_dynamic(layers, {nn.Linear})
