"""The modules that the calibration's networks are made of: chains of one kind of kernel, and blocks of several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional


def convs_of(plan: Sequence[tuple[int, int, int, int]], act: type[nn.Module] = nn.ReLU) -> nn.Module:
    """A chain of (inputs, outputs, kernel, stride) convolutions, each with an activation."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in plan:
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), act()]
    return nn.Sequential(*layers)


def grouped_of(channels: int, width: int, plan: Sequence[tuple[int, int]]) -> nn.Module:
    """A chain of (kernel, stride) convolutions with ReLU6 in groups of ``width`` channels (1: depthwise)."""
    layers: list[nn.Module] = []
    for kernel, stride in plan:
        convolution = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels // width)
        layers += [convolution, nn.ReLU6()]
    return nn.Sequential(*layers)


def linears_of(widths: Sequence[int]) -> nn.Module:
    """A chain of linear layers with ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Attention(nn.Module):
    """Multi-head attention written out: linear, matrix products, softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) → the same."""
        batch, tokens, width = x.shape
        q, k, v = (part(x).view(batch, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Encoder(nn.Module):
    """A transformer's encoder block, norms first."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) → the same."""
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


class Separable(nn.Module):
    """A depthwise convolution and a pointwise one, each with ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, outputs, H/stride, W/stride)."""
        return torch.relu(self.pointwise(torch.relu(self.depthwise(x))))


class Bottleneck(nn.Module):
    """A residual of a 1×1, a 3×3 in groups of ``group`` channels and a 1×1 convolution.

    With ``few`` the channels are weighed by squeeze-and-excitation of so many.
    """

    def __init__(
        self, inputs: int, wide: int, outputs: int, stride: int = 1, group: int = 0, few: int = 0
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, wide, 1)
        self.middle = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide // group if group else 1)
        self.gate = None
        if few:
            self.gate = nn.Sequential(
                nn.Conv2d(wide, few, 1), nn.ReLU(), nn.Conv2d(few, wide, 1), nn.Sigmoid()
            )
        self.leave = nn.Conv2d(wide, outputs, 1)
        plain = inputs == outputs and stride == 1
        self.short = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, outputs, H/stride, W/stride)."""
        y = torch.relu(self.middle(torch.relu(self.enter(x))))
        if self.gate is not None:
            y = y * self.gate(y.mean((2, 3), keepdim=True))
        return torch.relu(self.leave(y) + self.short(x))


class Next(nn.Module):
    """A depthwise 7×7 convolution, a norm over channels and two linear layers, channels last, with a shortcut."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, width, H, W) → the same."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.down(functional.gelu(self.up(y))).permute(0, 3, 1, 2)


class Deep(nn.Module):
    """Bottlenecks of one width with grouped convolutions, one after the other, and a classifier."""

    def __init__(self, width: int, blocks: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(blocks):
            grouped = nn.Conv2d(width, width, 3, padding=1, groups=width // 8)
            for layer in (nn.Conv2d(width, width, 1), grouped, nn.Conv2d(width, width, 1)):
                layers += [layer, nn.ReLU()]
        self.blocks, self.classify = nn.Sequential(*layers), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, width, H, W) → (1, classes)."""
        return self.classify(self.blocks(x).mean((2, 3)))


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


def turned_of(plan: Sequence[tuple[int, int, int, int]]) -> nn.Module:
    """Transposed convolutions with ReLU: (inputs, outputs, kernel, stride) each."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride in plan:
        layers += [nn.ConvTranspose2d(inputs, outputs, kernel, stride, (kernel - stride) // 2), nn.ReLU()]
    return nn.Sequential(*layers)


class Shuffled(nn.Module):
    """Half of the channels is convolved; then the halves' channels take turns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(width // 2, width // 2, 1), nn.Conv2d(width // 2, width // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, width, H, W) → the same."""
        batch, width, height, length = x.shape
        left, right = x.chunk(2, 1)
        right = torch.relu(self.last(torch.relu(self.first(right))))
        both = torch.cat([left, right], 1).view(batch, 2, width // 2, height, length)
        return both.transpose(1, 2).reshape(x.shape)


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


class Together(nn.Module):
    """Elementwise operators on two tensors of one shape."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two (1, C, H, W) → one."""
        a = x + y
        b = a * y
        return (b - x) * a + b.mean((2, 3), keepdim=True)


class Activations(nn.Module):
    """Activations, each of a product of two tensors."""

    def __init__(self, *acts: nn.Module) -> None:
        super().__init__()
        self.acts = nn.ModuleList(acts)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Each activation of a product, so that none is fused into what stands before it."""
        for act in self.acts:
            x = act(x * y)
        return x


class Products(nn.Module):
    """Two batched matrix products."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(heads, n, d), (heads, d, n) → (heads, n, d): two batched matrix products."""
        return (x @ y) @ x


class Norms(nn.Module):
    """Layer norms, one after the other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, tokens, width) → the same."""
        for norm in self.norms:
            x = norm(x)
        return x


class Softmaxes(nn.Module):
    """Softmax over rows, twice."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Softmax, a product, softmax."""
        return torch.softmax(torch.softmax(x, -1) * y, -1)


class Embeddings(nn.Module):
    """What a text model begins with: tokens, their places, a norm."""

    def __init__(self, vocabulary: int, tokens: int, width: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("order", torch.arange(tokens))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(1, tokens) → (1, tokens, width)."""
        return self.norm(self.words(tokens) + self.places(self.order))


class Patches(nn.Module):
    """A picture cut into 2×2 patches of pixels that stand alike, and put together again."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) → the same."""
        _, channels, height, width = x.shape
        y = x.reshape(channels * height // 2, 2, width // 2, 2).transpose(1, 2)
        y = y.reshape(1, channels, height * width // 4, 4).transpose(1, 3)
        y = y * 2 + y
        y = y.transpose(1, 3).reshape(channels * height // 2, width // 2, 2, 2).transpose(1, 2)
        return y.reshape(1, channels, height, width)


class Pooled(nn.Module):
    """A pointwise convolution, so that what follows is quantised with it, and pools."""

    def __init__(self, inputs: int, channels: int, *pools: nn.Module) -> None:
        super().__init__()
        self.enter, self.pools = nn.Conv2d(inputs, channels, 1), nn.Sequential(*pools)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, channels, less, less)."""
        return self.pools(torch.relu(self.enter(x)))


class Scaled(nn.Module):
    """A pointwise convolution whose channels are multiplied by their means, again and again."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, channels, H, W)."""
        y = torch.relu(self.enter(x))
        for _ in range(4):
            y = y * y.mean((2, 3), keepdim=True)
        return y


class Joined(nn.Module):
    """Pointwise convolutions each of which sees all before it (a dense block, arXiv:1608.06993)."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(inputs + i * growth, growth, 1) for i in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, inputs, H, W) → (1, inputs + layers·growth, H, W)."""
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], 1)
        return x


class Pools(nn.Module):
    """Pools of both kinds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) → (1, C, H/8, W/8)."""
        x = functional.max_pool2d(x, 3, 2, 1)
        return functional.avg_pool2d(functional.max_pool2d(x, 2), 2)
