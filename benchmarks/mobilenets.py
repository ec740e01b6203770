"""MobileNet V1 to V3 and EfficientNet-Lite0 as published, written out so that no model zoo is needed.

Random weights: they are for latency and instruction counts, never for accuracy. Architectures:
V1 arXiv:1704.04861 table 1, V2 arXiv:1801.04381 table 2, V3 arXiv:1905.02244 table 1; EfficientNet-Lite0 is
EfficientNet-B0 (arXiv:1905.11946 table 1) with ReLU6 and without squeeze-excite.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn


def _width(channels: float, divisor: int = 8) -> int:
    """Channels after a width multiplier, rounded as the published code does."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def conv(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, act: type[nn.Module] | None,
    dilation: int = 1,
) -> nn.Sequential:  # fmt: skip
    """A convolution of "same" size, its normalisation and its activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 * dilation, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


class _Classifier(nn.Module):
    def __init__(self, features: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) → (N, classes)."""
        # Kept dimensions: the form that XNNPACK's delegate takes as global average pooling.
        return self.head(self.features(image).mean((2, 3), keepdim=True).flatten(1))


def mobilenet_v1(width: float = 1.0, classes: int = 1001) -> nn.Module:
    """MobileNet V1: depthwise and pointwise pairs with ReLU6."""
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    channels = _width(32 * width)
    layers = [conv(3, channels, 3, 2, 1, nn.ReLU6)]
    for outputs, stride in plan:
        wide = _width(outputs * width)
        layers.append(conv(channels, channels, 3, stride, channels, nn.ReLU6))
        layers.append(conv(channels, wide, 1, 1, 1, nn.ReLU6))
        channels = wide
    return _Classifier(nn.Sequential(*layers), nn.Sequential(nn.Linear(channels, classes))).eval()


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _width(channels / 4)
        self.scale = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale(x.mean((2, 3), keepdim=True))


class InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, expanded: int, outputs: int, *, kernel: int, stride: int, act: type[nn.Module],
        excite: bool = False, dilation: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(conv(inputs, expanded, 1, 1, 1, act))
        layers.append(conv(expanded, expanded, kernel, stride, expanded, act, dilation))
        if excite:
            layers.append(_SqueezeExcite(expanded))
        layers.append(conv(expanded, outputs, 1, 1, 1, None))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet_v2(width: float = 1.0, classes: int = 1001) -> nn.Module:
    """MobileNet V2: inverted residuals with ReLU6."""
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
            (6, 320, 1, 1)]  # fmt: skip
    channels = _width(32 * width)
    layers: list[nn.Module] = [conv(3, channels, 3, 2, 1, nn.ReLU6)]
    for expand, outputs, repeat, stride in plan:
        for index in range(repeat):
            wide = _width(outputs * width)
            layers.append(
                InvertedResidual(
                    channels, channels * expand, wide, kernel=3, stride=stride if index == 0 else 1,
                    act=nn.ReLU6,
                )
            )  # fmt: skip
            channels = wide
    last = _width(1280 * max(width, 1.0))
    layers.append(conv(channels, last, 1, 1, 1, nn.ReLU6))
    return _Classifier(nn.Sequential(*layers), nn.Sequential(nn.Linear(last, classes))).eval()


def v3_large_plan(*, minimalistic: bool = False) -> list[tuple[int, int, int, bool, type[nn.Module], int]]:
    """MobileNet V3-Large's blocks: kernel, expanded, outputs, excite, activation, stride."""
    swish: type[nn.Module] = nn.ReLU if minimalistic else nn.Hardswish
    five = 3 if minimalistic else 5
    return [
        (3, 16, 16, False, nn.ReLU, 1), (3, 64, 24, False, nn.ReLU, 2), (3, 72, 24, False, nn.ReLU, 1),
        (five, 72, 40, True, nn.ReLU, 2), (five, 120, 40, True, nn.ReLU, 1), (five, 120, 40, True, nn.ReLU, 1),
        (3, 240, 80, False, swish, 2), (3, 200, 80, False, swish, 1), (3, 184, 80, False, swish, 1),
        (3, 184, 80, False, swish, 1), (3, 480, 112, True, swish, 1), (3, 672, 112, True, swish, 1),
        (five, 672, 160, True, swish, 2), (five, 960, 160, True, swish, 1), (five, 960, 160, True, swish, 1),
    ]  # fmt: skip


def mobilenet_v3_large(width: float = 1.0, classes: int = 1001, *, minimalistic: bool = False) -> nn.Module:
    """MobileNet V3-Large; ``minimalistic`` without squeeze-excite, hard-swish and 5×5 kernels."""
    swish: type[nn.Module] = nn.ReLU if minimalistic else nn.Hardswish
    plan = v3_large_plan(minimalistic=minimalistic)
    scaled = partial(lambda channels: _width(channels * width))
    channels = scaled(16)
    layers: list[nn.Module] = [conv(3, channels, 3, 2, 1, swish)]
    for kernel, expanded, outputs, excite, act, stride in plan:
        layers.append(
            InvertedResidual(
                channels, scaled(expanded), scaled(outputs), kernel=kernel, stride=stride, act=act,
                excite=excite and not minimalistic,
            )
        )  # fmt: skip
        channels = scaled(outputs)
    layers.append(conv(channels, scaled(960), 1, 1, 1, swish))
    last = _width(1280 * max(width, 1.0))
    head = nn.Sequential(nn.Linear(scaled(960), last), swish(), nn.Linear(last, classes))
    return _Classifier(nn.Sequential(*layers), head).eval()


def efficientnet_lite0(classes: int = 1000) -> nn.Module:
    """EfficientNet-Lite0: B0's stages with ReLU6 and without squeeze-excite."""
    plan = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
            (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]  # fmt: skip
    channels = 32
    layers: list[nn.Module] = [conv(3, channels, 3, 2, 1, nn.ReLU6)]
    for expand, outputs, repeat, stride, kernel in plan:
        for index in range(repeat):
            layers.append(
                InvertedResidual(
                    channels, channels * expand, outputs, kernel=kernel, stride=stride if index == 0 else 1,
                    act=nn.ReLU6,
                )
            )  # fmt: skip
            channels = outputs
    layers.append(conv(channels, 1280, 1, 1, 1, nn.ReLU6))
    return _Classifier(nn.Sequential(*layers), nn.Sequential(nn.Linear(1280, classes))).eval()
