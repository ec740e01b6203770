"""More architectures for calibration_check.py, chosen on 2026-11-27 before anything was measured or estimated of them.

As in calibration_models.py: configurations of the transformers package, or written as published, with random weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from wrapped_models import Logits, Text


def conv(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """A convolution with a batch normalisation and, but for None, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, act()) if act else nn.Sequential(*layers)


def _shuffle(x: torch.Tensor) -> torch.Tensor:
    """Channels of two groups in turns."""
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


class _ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        taken = inputs if stride > 1 else half
        self.right = nn.Sequential(
            conv(taken, half, 1), conv(half, half, 3, stride, groups=half, act=None), conv(half, half, 1)
        )
        self.left = (
            nn.Sequential(conv(inputs, inputs, 3, 2, groups=inputs, act=None), conv(inputs, half, 1))
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C', H / stride, W / stride)."""
        left, right = (x, x) if self.stride > 1 else x.chunk(2, 1)
        return _shuffle(torch.cat([self.left(left), self.right(right)], 1))


def _shufflenet_v2() -> nn.Module:
    """ShuffleNet V2 1.0× (Ma et al., 2018)."""
    layers: list[nn.Module] = [conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    width = 24
    for outputs, repeats in ((116, 4), (232, 8), (464, 4)):
        for i in range(repeats):
            layers.append(_ShuffleUnit(width, outputs, 2 if i == 0 else 1))
            width = outputs
    head = [conv(464, 1024, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)]
    return nn.Sequential(*layers, *head)


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.BatchNorm2d(inputs), conv(inputs, 128, 1)
        self.grow = nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C + 32, H, W)."""
        return torch.cat([x, self.grow(self.inner(torch.relu(self.norm(x))))], 1)


def _densenet_121() -> nn.Module:
    """DenseNet-121 (Huang et al., 2017)."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    width = 64
    for stage, repeats in enumerate((6, 12, 24, 16)):
        for _ in range(repeats):
            layers.append(_DenseLayer(width))
            width += 32
        if stage < 3:
            layers += [
                nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2),
            ]  # fmt: skip
            width //= 2
    head = [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)]
    return nn.Sequential(*layers, *head)


def _ds_cnn() -> nn.Module:
    """Keyword spotting of MLPerf Tiny: DS-CNN of 49 × 10 MFCCs (Banbury et al., 2021)."""
    blocks = [layer for _ in range(4) for layer in (conv(64, 64, 3, groups=64), conv(64, 64, 1))]
    stem = nn.Sequential(nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))


class _UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015), an eighth as wide, with padding and batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 16, 32, 64, 128)
        double = lambda a, b: nn.Sequential(conv(a, b, 3), conv(b, b, 3))  # noqa: E731
        self.down = nn.ModuleList(double(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * b, b, 2, 2) for b in widths[-2::-1])
        self.join = nn.ModuleList(double(2 * b, b) for b in widths[-2::-1])
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) → (N, 2, H, W)."""
        kept = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        found: torch.Tensor = self.head(x)
        return found


def _poolformer_s12() -> nn.Module:
    from transformers import PoolFormerConfig, PoolFormerForImageClassification

    config = PoolFormerConfig(
        depths=[2, 2, 6, 2], hidden_sizes=[64, 128, 320, 512], num_labels=1000, layer_scale_init_value=0.5
    )
    return Logits(PoolFormerForImageClassification(config))


def _pvt_v2_b0() -> nn.Module:
    from transformers import PvtV2Config, PvtV2ForImageClassification

    return Logits(PvtV2ForImageClassification(PvtV2Config(num_labels=1000)))


def _minilm_l6() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        attn_implementation="eager",
    )  # fmt: skip
    return Text(BertModel(config))


IMAGE = (1, 3, 224, 224)
LATER: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "shufflenet_v2": (_shufflenet_v2, IMAGE),
    "densenet_121": (_densenet_121, IMAGE),
    "ds_cnn": (_ds_cnn, (1, 1, 49, 10)),
    "unet_small": (_UNet, (1, 3, 128, 128)),
    "poolformer_s12": (_poolformer_s12, IMAGE),
    "pvt_v2_b0": (_pvt_v2_b0, IMAGE),
    "minilm_l6": (_minilm_l6, (1, 128)),
}
