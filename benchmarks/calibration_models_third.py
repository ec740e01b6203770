"""Six more architectures for calibration_check.py, chosen on 2026-11-27 (evening) before anything was measured or
estimated of them: a detector, two mobile backbones, a 1-D network, a recurrent one and a text encoder.

As in calibration_models.py: configurations of the transformers package, or written as published, with random weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from calibration_models_later import conv
from torch import nn


class _Split(nn.Module):
    """YOLOv8's C2f: half of the channels go through bottlenecks, each of which is kept."""

    def __init__(self, inputs: int, outputs: int, repeats: int, *, residual: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.residual = residual
        self.enter = conv(inputs, outputs, 1, act=nn.SiLU)
        self.inner = nn.ModuleList(
            nn.Sequential(conv(half, half, 3, act=nn.SiLU), conv(half, half, 3, act=nn.SiLU))
            for _ in range(repeats)
        )
        self.leave = conv((2 + repeats) * half, outputs, 1, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C', H, W)."""
        kept = list(self.enter(x).chunk(2, 1))
        for block in self.inner:
            kept.append(kept[-1] + block(kept[-1]) if self.residual else block(kept[-1]))
        found: torch.Tensor = self.leave(torch.cat(kept, 1))
        return found


class _YoloNano(nn.Module):
    """YOLOv8n without the decoding of its boxes (Jocher et al., 2023): backbone, two-way pyramid, three heads."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        down = lambda a, b: conv(a, b, 3, 2, act=nn.SiLU)  # noqa: E731
        self.stem = nn.Sequential(down(3, 16), down(16, 32), _Split(32, 32, 1, residual=True))
        self.p3 = nn.Sequential(down(32, 64), _Split(64, 64, 2, residual=True))
        self.p4 = nn.Sequential(down(64, 128), _Split(128, 128, 2, residual=True))
        self.p5 = nn.Sequential(down(128, 256), _Split(256, 256, 1, residual=True))
        self.spp_in, self.spp_out = conv(256, 128, 1, act=nn.SiLU), conv(512, 256, 1, act=nn.SiLU)
        self.up4, self.up3 = _Split(384, 128, 1, residual=False), _Split(192, 64, 1, residual=False)
        self.down3, self.down4 = down(64, 64), down(128, 128)
        self.low4, self.low5 = _Split(192, 128, 1, residual=False), _Split(384, 256, 1, residual=False)
        head = lambda width, inner, out: nn.Sequential(  # noqa: E731
            conv(width, inner, 3, act=nn.SiLU), conv(inner, inner, 3, act=nn.SiLU), nn.Conv2d(inner, out, 1)
        )
        self.boxes = nn.ModuleList(head(width, 64, 64) for width in (64, 128, 256))
        self.classes = nn.ModuleList(head(width, 80, classes) for width in (64, 128, 256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) → (N, 64 + classes, positions)."""
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        pools = [self.spp_in(self.p5(p4))]
        for _ in range(3):
            pools.append(nn.functional.max_pool2d(pools[-1], 5, 1, 2))
        p5 = self.spp_out(torch.cat(pools, 1))
        wider = lambda each: nn.functional.interpolate(each, scale_factor=2.0, mode="nearest")  # noqa: E731
        p4 = self.up4(torch.cat([wider(p5), p4], 1))
        p3 = self.up3(torch.cat([wider(p4), p3], 1))
        p4 = self.low4(torch.cat([self.down3(p3), p4], 1))
        p5 = self.low5(torch.cat([self.down4(p4), p5], 1))
        levels = [
            torch.cat([box(level), kind(level)], 1).flatten(2)
            for box, kind, level in zip(self.boxes, self.classes, (p3, p4, p5), strict=True)
        ]
        return torch.cat(levels, 2)


class _Ghost(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, act: bool) -> None:
        super().__init__()
        kind = nn.ReLU if act else None
        self.first = conv(inputs, outputs // 2, 1, act=kind)
        self.cheap = conv(outputs // 2, outputs // 2, 3, groups=outputs // 2, act=kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C', H, W)."""
        first = self.first(x)
        return torch.cat([first, self.cheap(first)], 1)


class _Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = (width // 4 + 4) // 8 * 8
        self.down, self.up = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return x * nn.functional.hardsigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class _GhostBlock(nn.Module):
    def __init__(
        self, inputs: int, inner: int, outputs: int, kernel: int, stride: int, *, gate: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [_Ghost(inputs, inner, act=True)]
        if stride > 1:
            layers.append(conv(inner, inner, kernel, stride, groups=inner, act=None))
        if gate:
            layers.append(_Gate(inner))
        self.inner = nn.Sequential(*layers, _Ghost(inner, outputs, act=False))
        same = stride == 1 and inputs == outputs
        self.beside = (
            nn.Identity()
            if same
            else nn.Sequential(
                conv(inputs, inputs, kernel, stride, groups=inputs, act=None),
                conv(inputs, outputs, 1, act=None),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C', H / stride, W / stride)."""
        found: torch.Tensor = self.inner(x) + self.beside(x)
        return found


def _ghostnet() -> nn.Module:
    """GhostNet 1.0× (Han et al., 2020), table 1."""
    rows = (
        (3, 16, 16, 0, 1), (3, 48, 24, 0, 2), (3, 72, 24, 0, 1), (5, 72, 40, 1, 2), (5, 120, 40, 1, 1),
        (3, 240, 80, 0, 2), (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 1, 1),
        (3, 672, 112, 1, 1), (5, 672, 160, 1, 2), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1), (5, 960, 160, 0, 1),
        (5, 960, 160, 1, 1),
    )  # fmt: skip
    layers: list[nn.Module] = [conv(3, 16, 3, 2)]
    width = 16
    for kernel, inner, outputs, gate, stride in rows:
        layers.append(_GhostBlock(width, inner, outputs, kernel, stride, gate=bool(gate)))
        width = outputs
    head = [
        conv(160, 960, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(960, 1280, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(1280, 1000),
    ]  # fmt: skip
    return nn.Sequential(*layers, *head)


class _Inverted(nn.Module):
    """MobileNetV4's universal inverted bottleneck: depthwise filters before and between, each of which may be absent."""

    def __init__(
        self, inputs: int, outputs: int, start: int, middle: int, stride: int, expansion: float
    ) -> None:
        super().__init__()
        inner = int(inputs * expansion)
        layers: list[nn.Module] = []
        if start:
            first = stride if not middle else 1
            layers.append(conv(inputs, inputs, start, first, groups=inputs, act=None))
        layers.append(conv(inputs, inner, 1))
        if middle:
            layers.append(conv(inner, inner, middle, stride, groups=inner))
        self.inner = nn.Sequential(*layers, conv(inner, outputs, 1, act=None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C', H / stride, W / stride)."""
        found: torch.Tensor = self.inner(x)
        return x + found if self.residual else found


def _mobilenet_v4_conv_small() -> nn.Module:
    """MobileNetV4-Conv-Small (Qin et al., 2024), its table of the architecture."""
    layers: list[nn.Module] = [
        conv(3, 32, 3, 2), conv(32, 32, 3, 2), conv(32, 32, 1), conv(32, 96, 3, 2), conv(96, 64, 1),
    ]  # fmt: skip
    width = 64
    for start, middle, outputs, stride, expansion in (
        (5, 5, 96, 2, 3.0), (0, 3, 96, 1, 2.0), (0, 3, 96, 1, 2.0), (0, 3, 96, 1, 2.0), (0, 3, 96, 1, 2.0),
        (3, 0, 96, 1, 4.0), (3, 3, 128, 2, 6.0), (5, 5, 128, 1, 4.0), (0, 5, 128, 1, 4.0), (0, 5, 128, 1, 3.0),
        (0, 3, 128, 1, 4.0), (0, 3, 128, 1, 4.0),
    ):  # fmt: skip
        layers.append(_Inverted(width, outputs, start, middle, stride, expansion))
        width = outputs
    head = [
        conv(128, 960, 1),
        nn.AdaptiveAvgPool2d(1),
        conv(960, 1280, 1),
        nn.Flatten(),
        nn.Linear(1280, 1000),
    ]
    return nn.Sequential(*layers, *head)


class _Temporal(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv1d(inputs, outputs, 9, 2, 4, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(),
            nn.Conv1d(outputs, outputs, 9, 1, 4, bias=False), nn.BatchNorm1d(outputs),
        )  # fmt: skip
        self.beside = nn.Sequential(
            nn.Conv1d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, T) → (N, C', T / 2)."""
        return torch.relu(self.inner(x) + self.beside(x))


def _tc_resnet_8() -> nn.Module:
    """TC-ResNet8-1.5 of 101 frames of 40 MFCCs (Choi et al., 2019)."""
    blocks = [_Temporal(24, 36), _Temporal(36, 48), _Temporal(48, 72)]
    head = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(72, 12)]
    return nn.Sequential(nn.Conv1d(40, 24, 3, 1, 1, bias=False), *blocks, *head)


class _Recurrent(nn.Module):
    """Two layers of a GRU over 32 frames of 40 features, classified by the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(40, 128, 2, batch_first=True), nn.Linear(128, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, 40) → (N, 12)."""
        found: torch.Tensor = self.head(self.gru(x)[0][:, -1])
        return found


class _Electra(nn.Module):
    """ELECTRA-small (Clark et al., 2020): narrow embeddings, projected, and twelve layers; no mask."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ElectraConfig, ElectraModel

        model = ElectraModel(ElectraConfig(attn_implementation="eager"))
        self.embeddings, self.project, self.encoder = (
            model.embeddings,
            model.embeddings_project,
            model.encoder,
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(1, tokens) → (1, tokens, 256)."""
        found: torch.Tensor = self.encoder(self.project(self.embeddings(tokens))).last_hidden_state
        return found


THIRD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "yolo_nano": (_YoloNano, (1, 3, 320, 320)),
    "ghostnet": (_ghostnet, (1, 3, 224, 224)),
    "mobilenet_v4_conv_small": (_mobilenet_v4_conv_small, (1, 3, 224, 224)),
    "tc_resnet_8": (_tc_resnet_8, (1, 40, 101)),
    "gru_two_layers": (_Recurrent, (1, 32, 40)),
    "electra_small": (_Electra, (1, 64)),
}
