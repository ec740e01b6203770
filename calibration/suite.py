"""The networks whose kernels a device is calibrated with: small ones, a family of kernels each, and blocks.

Random weights: they are timed, never asked for an answer. Channels, sizes and strides are spread over what
networks for phones and boards use (arXiv:1801.04381, 1905.02244, 1512.03385, 1602.07360, 1505.04597,
1706.03762), without being any of these networks. Bump :data:`VERSION` when a network changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

VERSION = 2

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Carrier:
    """One network of the suite: how to make it and the shapes of its inputs (batch first)."""

    name: str
    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]


def _convs(plan: Sequence[tuple[int, int, int, int]]) -> nn.Module:
    """A chain of (inputs, outputs, kernel, stride) convolutions with ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in plan:
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU()]
    return nn.Sequential(*layers)


def _depthwise(channels: int, width: int, plan: Sequence[tuple[int, int]]) -> nn.Module:
    """A chain of (kernel, stride) convolutions with ReLU6 in groups of ``width`` channels (1: depthwise)."""
    layers: list[nn.Module] = []
    for kernel, stride in plan:
        convolution = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels // width)
        layers += [convolution, nn.ReLU6()]
    return nn.Sequential(*layers)


def _linears(widths: Sequence[int]) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class _Attention(nn.Module):
    """Multi-head attention written out: linear, matrix products, softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, tokens, width) → the same."""
        tokens, width = x.shape[1], x.shape[2]
        q, k, v = (part(x).view(1, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(1, tokens, width))


class Encoder(nn.Module):
    """A transformer's encoder block, norms first."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, tokens, width) → the same."""
        x = x + self.attention(self.norms[0](x))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Inverted(nn.Module):
    """An inverted residual, with squeeze-and-excitation and hard swish when ``excite``."""

    def __init__(
        self, inputs: int, outputs: int, wide: int, kernel: int, stride: int, excite: bool,
        act: type[nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        act = act or (nn.Hardswish if excite else nn.ReLU6)
        self.expand = nn.Sequential(nn.Conv2d(inputs, wide, 1), act())
        self.depthwise = nn.Sequential(nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide), act())
        self.gate = None
        if excite:
            few = wide // 4
            self.gate = nn.Sequential(
                nn.Conv2d(wide, few, 1), nn.ReLU(), nn.Conv2d(few, wide, 1), nn.Hardsigmoid()
            )
        self.project = nn.Conv2d(wide, outputs, 1)
        self.skip = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, outputs, H/stride, W/stride)."""
        y = self.depthwise(self.expand(x))
        if self.gate is not None:
            y = y * self.gate(y.mean((2, 3), keepdim=True))
        y = self.project(y)
        return x + y if self.skip else y


class Basic(nn.Module):
    """A residual block of two 3×3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        plain = inputs == outputs and stride == 1
        self.short = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, outputs, H/stride, W/stride)."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.short(x))


class Fire(nn.Module):
    """A squeeze layer and two expanding ones side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, 2·expand, H, W)."""
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


class UpAndDown(nn.Module):
    """One level of a U: convolve, halve, convolve, double, join."""

    def __init__(self, inputs: int, width: int, transposed: bool) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, width, 3, padding=1)
        self.below = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up: nn.Module = (
            nn.ConvTranspose2d(2 * width, width, 2, 2)
            if transposed
            else nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2 * width, width, 1))
        )
        self.leave = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, width, H, W)."""
        left = torch.relu(self.enter(x))
        below = torch.relu(self.below(functional.max_pool2d(left, 2)))
        return torch.relu(self.leave(torch.cat([left, self.up(below)], 1)))


class Steps(nn.Module):
    """Steps of an LSTM cell, written out as gates."""

    def __init__(self, inputs: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.from_input, self.from_state = nn.Linear(inputs, 4 * hidden), nn.Linear(hidden, 4 * hidden)
        self.steps = steps

    def forward(self, x: torch.Tensor, state: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """(1, steps, inputs), (1, hidden), (1, hidden) → (1, hidden)."""
        for step in range(self.steps):
            gates = self.from_input(x[:, step]) + self.from_state(state)
            enter, forget, new, leave = gates.chunk(4, 1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
            state = torch.sigmoid(leave) * torch.tanh(cell)
        return state


class _Together(nn.Module):
    """Elementwise operators on two tensors of one shape."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two (1, C, H, W) → one."""
        a = x + y
        b = a * y
        return (b - x) * a + b.mean((2, 3), keepdim=True)


class _Activations(nn.Module):
    def __init__(self, *acts: nn.Module) -> None:
        super().__init__()
        self.acts = nn.ModuleList(acts)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Each activation of a product, so that none is fused into what stands before it."""
        for act in self.acts:
            x = act(x * y)
        return x


class _Products(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(heads, n, d), (heads, d, n) → (heads, n, d): two batched matrix products."""
        return (x @ y) @ x


class _Norms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, tokens, width) → the same."""
        for norm in self.norms:
            x = norm(x)
        return x


class _Softmaxes(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Softmax, a product, softmax."""
        return torch.softmax(torch.softmax(x, -1) * y, -1)


class _Pools(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) → (1, C, H/8, W/8)."""
        x = functional.max_pool2d(x, 3, 2, 1)
        return functional.avg_pool2d(functional.max_pool2d(x, 2), 2)


def _image(channels: int, side: int) -> tuple[Shape, ...]:
    return ((1, channels, side, side),)


def _two(shape: Shape) -> tuple[Shape, ...]:
    return (shape, shape)


def suite() -> tuple[Carrier, ...]:
    """All networks, in the order in which they are measured."""
    return (*_convolutions(), *_products(), *_light(), *_blocks())


def _convolutions() -> tuple[Carrier, ...]:
    convs = {
        "conv_stem": ((3, 16, 3, 2), (16, 24, 3, 1), (24, 40, 3, 2)),
        "conv_large": ((3, 48, 7, 2), (48, 24, 5, 2)),
        "conv_56": ((24, 64, 3, 1), (64, 80, 3, 2), (80, 80, 3, 1)),
        "conv_28": ((8, 12, 3, 1), (12, 20, 3, 1), (20, 32, 5, 1), (32, 48, 3, 2)),
        "conv_14": ((128, 160, 3, 1), (160, 256, 3, 2), (256, 288, 3, 1)),
        "conv_7": ((192, 448, 3, 1), (448, 384, 3, 1)),
        "point_112": ((16, 64, 1, 1), (64, 24, 1, 1), (24, 72, 1, 1)),
        "point_56": ((24, 144, 1, 1), (144, 32, 1, 1), (32, 120, 1, 1)),
        "point_28": ((64, 192, 1, 1), (192, 40, 1, 1), (40, 240, 1, 1), (240, 48, 1, 1)),
        "point_14": ((80, 480, 1, 1), (480, 112, 1, 1), (112, 576, 1, 1)),
        "point_7": ((160, 800, 1, 1), (800, 320, 1, 1), (320, 1024, 1, 1)),
        "point_small": ((8, 24, 1, 1), (24, 12, 1, 1), (12, 48, 1, 1), (48, 16, 1, 1)),
        "point_halving": ((96, 160, 1, 2), (160, 400, 1, 2), (400, 720, 1, 2)),
        "stem_208": ((3, 28, 3, 2), (28, 20, 1, 1)),
        "stem_200": ((3, 56, 7, 2),),
        "conv_52": ((48, 72, 3, 1), (72, 64, 3, 1)),
        "conv_26": ((112, 136, 3, 1), (136, 120, 3, 1)),
        "point_wide": ((256, 56, 1, 1), (56, 256, 1, 1)),
        "point_dense": ((512, 768, 1, 1), (768, 384, 1, 1)),
    }
    sides = {
        "conv_stem": 128, "conv_large": 112, "conv_56": 56, "conv_28": 28, "conv_14": 14, "conv_7": 7,
        "point_112": 112, "point_56": 56, "point_28": 28, "point_14": 14, "point_7": 7, "point_small": 16,
        "point_halving": 56, "stem_208": 208, "stem_200": 200, "conv_52": 52, "conv_26": 26, "point_wide": 52,
        "point_dense": 14,
    }  # fmt: skip
    deep = {
        "depth_112": (40, 112, ((3, 1), (3, 2), (3, 1))),
        "depth_104": (88, 104, ((3, 2), (3, 1))),
        "depth_56": (136, 56, ((3, 1), (5, 2))),
        "depth_28": (168, 28, ((3, 1), (5, 1), (3, 2))),
        "depth_14": (480, 14, ((5, 1), (3, 1), (5, 2), (3, 1))),
        "depth_7": (960, 7, ((3, 1), (5, 1))),
        "depth_small": (24, 32, ((3, 1), (3, 2), (5, 1))),
    }
    groups = {
        "group_52": (96, 52, 8, ((3, 2), (3, 1))),
        "group_28": (136, 28, 8, ((3, 1), (3, 2))),
        "group_7": (352, 7, 8, ((3, 1), (3, 1))),
        "group_14": (224, 14, 16, ((3, 1), (3, 1))),
    }
    return (
        *(Carrier(name, partial(_convs, plan), _image(plan[0][0], sides[name])) for name, plan in convs.items()),
        *(
            Carrier(name, partial(_depthwise, c, 1, plan), _image(c, side))
            for name, (c, side, plan) in deep.items()
        ),
        *(
            Carrier(name, partial(_depthwise, c, width, plan), _image(c, side))
            for name, (c, side, width, plan) in groups.items()
        ),
    )  # fmt: skip


def _products() -> tuple[Carrier, ...]:
    linears: dict[str, tuple[int, tuple[int, ...]]] = {
        "linear_streaming": (1, (1536, 4096, 2048, 1000)),
        "linear_large": (1, (768, 1024, 1000, 256)),
        "linear_small": (1, (24, 64, 96, 128, 48, 10)),
        "linear_16": (16, (160, 320, 1024, 256)),
        "linear_96": (96, (128, 512, 128, 384)),
        "linear_180": (180, (160, 640, 160)),
    }
    return (
        *(
            Carrier(name, partial(_linears, widths), ((rows, widths[0]),))
            for name, (rows, widths) in linears.items()
        ),
        Carrier("products_64", _Products, ((4, 64, 32), (4, 32, 64))),
        Carrier("products_144", _Products, ((3, 144, 48), (3, 48, 144))),
        Carrier("softmax_64", _Softmaxes, _two((4, 64, 64))),
        Carrier("softmax_144", _Softmaxes, _two((6, 144, 144))),
        Carrier("norm_64", lambda: _Norms(96), ((1, 64, 96),)),
        Carrier("norm_144", lambda: _Norms(256), ((1, 144, 256),)),
    )


def _light() -> tuple[Carrier, ...]:
    return (
        Carrier("pools_112", _Pools, _image(32, 112)),
        Carrier("pools_32", _Pools, _image(48, 32)),
        Carrier("together_56", _Together, _two((1, 64, 56, 56))),
        Carrier("together_14", _Together, _two((1, 96, 14, 14))),
        Carrier(
            "swish_28",
            lambda: _Activations(nn.Hardswish(), nn.Hardsigmoid(), nn.ReLU()),
            _two((1, 120, 28, 28)),
        ),
        Carrier("sigmoid_28", lambda: _Activations(nn.Sigmoid(), nn.Tanh()), _two((1, 32, 28, 28))),
        Carrier("sigmoid_small", lambda: _Activations(nn.Sigmoid(), nn.Tanh()), _two((1, 96))),
        Carrier("silu_56", lambda: _Activations(nn.SiLU(), nn.ReLU6()), _two((1, 72, 56, 56))),
        Carrier("together_large", _Together, _two((1, 96, 104, 104))),
        Carrier("gelu_180", lambda: _Activations(nn.GELU()), _two((1, 180, 640))),
        Carrier("gelu_64", lambda: _Activations(nn.GELU(), nn.SiLU()), _two((1, 64, 256))),
    )


def _blocks() -> tuple[Carrier, ...]:
    return (
        Carrier(
            "inverted_56",
            lambda: nn.Sequential(Inverted(16, 24, 96, 3, 2, False), Inverted(24, 24, 120, 3, 1, False)),
            _image(16, 80),
        ),
        Carrier(
            "inverted_14",
            lambda: nn.Sequential(Inverted(56, 56, 288, 3, 1, False), Inverted(56, 88, 336, 3, 2, False)),
            _image(56, 14),
        ),
        Carrier("excited_28", lambda: nn.Sequential(Inverted(32, 40, 96, 5, 2, True), Inverted(40, 40, 128, 5, 1, True)), _image(32, 40)),
        Carrier("excited_14", lambda: nn.Sequential(Inverted(80, 112, 400, 3, 1, True), Inverted(112, 112, 560, 5, 1, True)), _image(80, 12)),
        Carrier("residual_40", lambda: nn.Sequential(Basic(48, 48, 1), Basic(48, 96, 2)), _image(48, 40)),
        Carrier("residual_16", lambda: nn.Sequential(Basic(96, 192, 2), Basic(192, 192, 1)), _image(96, 16)),
        Carrier("fire_28", lambda: nn.Sequential(Fire(96, 24, 72), Fire(144, 32, 112)), _image(96, 24)),
        Carrier("fire_14", lambda: nn.Sequential(Fire(256, 40, 160), Fire(320, 56, 224)), _image(256, 11)),
        Carrier("u_48", lambda: UpAndDown(8, 12, False), _image(8, 48)),
        Carrier("u_40", lambda: UpAndDown(16, 24, True), _image(16, 40)),
        Carrier("steps_48", lambda: Steps(40, 48, 4), ((1, 4, 40), (1, 48), (1, 48))),
        Carrier("steps_160", lambda: Steps(96, 160, 2), ((1, 2, 96), (1, 160), (1, 160))),
        Carrier("encoder_40", lambda: Encoder(96, 3, 320), ((1, 40, 96),)),
        Carrier(
            "silu_24",
            lambda: nn.Sequential(Inverted(40, 40, 200, 5, 1, True, nn.SiLU), Inverted(40, 64, 240, 3, 2, True, nn.SiLU)),
            _image(40, 24),
        ),
        Carrier("encoder_112", lambda: Encoder(160, 5, 512), ((1, 112, 160),)),
    )  # fmt: skip
