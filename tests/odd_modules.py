"""Modules that exporters have been seen to choke on, small, each with seeded weights and inputs.

``ODD`` maps a name to a :class:`Odd`; tests/test_odd_modules.py says what must become of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - everyone's name for it
from torch import nn


@dataclass(frozen=True)
class Odd:
    """A model and how to call it."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    dynamic_batch: bool = False

    def model(self) -> nn.Module:
        """The module with seeded weights, in eval mode."""
        torch.manual_seed(0)
        return self.make().eval()

    def example(self) -> Any:
        """Seeded example inputs."""
        torch.manual_seed(1)
        return self.inputs()


ODD: dict[str, Odd] = {}


def _image(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(*(shape or (1, 3, 16, 16)))


def odd(
    name: str, inputs: Callable[[], Any], *, dynamic_batch: bool = False
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a module class or factory under ``name``."""

    def keep(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        ODD[name] = Odd(make, inputs, dynamic_batch)
        return make

    return keep


def _function(forward: Callable[..., Any]) -> nn.Module:
    """A module without parameters whose forward is ``forward``."""

    class Function(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(x)

    return Function()


@odd("group_norm_cnn", _image())
def group_norm_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


@odd("instance_norm", _image())
def instance_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU())


@odd("conv_transpose", _image())
def conv_transpose() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 4, stride=2, groups=2),
    )  # fmt: skip


@odd("activations", _image())
def activations() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Hardswish(), nn.Conv2d(8, 8, 1), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.GELU(),
        nn.Conv2d(8, 8, 1), nn.GELU(approximate="tanh"), nn.Conv2d(8, 8, 1), nn.Hardsigmoid(),
        nn.PReLU(8), nn.Conv2d(8, 8, 1), nn.ELU(),
    )  # fmt: skip


@odd("softplus_mish", _image())
def softplus_mish() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Mish(), nn.Conv2d(8, 8, 1), nn.Softplus())


class _Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.rnn = layer
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence, _ = self.rnn(x)
        return self.head(sequence[:, -1])


@odd("lstm", _image(1, 4, 8))
def lstm() -> nn.Module:
    return _Recurrent(nn.LSTM(8, 16, batch_first=True))


@odd("gru", _image(1, 4, 8))
def gru() -> nn.Module:
    return _Recurrent(nn.GRU(8, 16, batch_first=True))


@odd("bidirectional_lstm", _image(1, 3, 8))
def bidirectional_lstm() -> nn.Module:
    return _Recurrent(nn.LSTM(8, 8, num_layers=2, bidirectional=True, batch_first=True))


@odd("transformer_layer", _image(1, 6, 16))
def transformer_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True, activation="gelu")


@odd("einsum", _image(1, 4, 8))
class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 2, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = torch.einsum("btc,chd->bhtd", x, self.weight)
        return torch.einsum("bhtd,bhsd->bhts", heads, heads)


@odd("nesting", lambda: ({"left": torch.randn(1, 4), "right": [torch.randn(1, 4)]}, torch.randn(1, 4)))
class Nesting(nn.Module):
    """Nested inputs, and nested outputs whose names aren't in alphabetical order."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, pair: dict[str, Any], offset: torch.Tensor) -> dict[str, Any]:
        found = self.linear(pair["left"] * 2 + pair["right"][0] - offset)
        return {"zeta": found, "alpha": [found.mean(1), {"largest": found.amax(1)}]}


@odd("embedding", lambda: torch.randint(0, 20, (1, 6)))
class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(tokens).mean(1))


@odd("embedding_bag", lambda: torch.randint(0, 20, (2, 6)))
def embedding_bag() -> nn.Module:
    return nn.EmbeddingBag(20, 8, mode="mean")


def _grid() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 3, 8, 8), torch.rand(1, 6, 5, 2) * 2.4 - 1.2


class GridSample(nn.Module):
    """Sampling at positions that an input gives, some of them outside the image."""

    def __init__(self, mode: str, padding_mode: str, align_corners: bool) -> None:
        super().__init__()
        self.options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}

    def forward(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, grid, **self.options)


@odd("grid_sample", _grid)
def grid_sample() -> nn.Module:
    return GridSample("bilinear", "zeros", False)


@odd("grid_sample_nearest_border", _grid)
def grid_sample_nearest_border() -> nn.Module:
    return GridSample("nearest", "border", True)


@odd("one_hot", lambda: torch.tensor([[1, 3, 0], [2, 2, 1]]))
def one_hot() -> nn.Module:
    class OneHot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, kind: torch.Tensor) -> torch.Tensor:
            return self.linear(F.one_hot(kind, 4).float())

    return OneHot()


@odd("affine_grid", _image(1, 1, 8, 8))
class SpatialTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pose = nn.Linear(64, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.pose(x.flatten(1)).view(-1, 2, 3) * 0.1 + torch.eye(2, 3)
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


@odd("fft", _image(1, 32))
class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x).abs()


@odd("view_as_complex", _image(1, 4, 8))
class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(4)[:, None] * torch.tensor([1.0, 0.5, 0.25, 0.125])
        self.register_buffer("rotation", torch.polar(torch.ones_like(angles), angles))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = torch.view_as_complex(x.reshape(1, 4, 4, 2)) * self.rotation
        return torch.view_as_real(turned).flatten(2)


@odd("inplace_slice", _image(1, 6, 6))
class InplaceSlice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, 1:3, ::2] = 0.5
        y[:, -1] += x[:, 0]
        y[:, :, 0].mul_(2)
        return y


@odd("inplace_index_put", _image(1, 6, 6))
class InplaceIndexPut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor([0, 2, 5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, self.rows] = x[:, :3] * 3
        return y


@odd("masked_fill", _image(1, 6, 6))
class MaskedFill(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[y < 0] = 0.25
        return y.masked_fill(y > 1, 1.0)


def _heads() -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(1, 2, 5, 8) for _ in range(3))


@odd("attention_mask", lambda: (*_heads(), torch.rand(1, 1, 5, 5) > 0.3))
class MaskedAttention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@odd("attention_causal", _heads)
class CausalAttention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@odd("interpolate", _image(1, 3, 6, 6))
class Interpolate(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
            F.interpolate(x, size=(9, 11), mode="bilinear", align_corners=True),
            F.interpolate(x, scale_factor=2, mode="nearest"),
        )


@odd("interpolate_nearest_odd", _image(1, 3, 6, 6))
def interpolate_nearest_odd() -> nn.Module:
    return _function(lambda x: F.interpolate(x, size=(9, 4), mode="nearest"))


@odd("adaptive_avg_pool_odd", _image(1, 3, 7, 10))
def adaptive_avg_pool_odd() -> nn.Module:
    return nn.AdaptiveAvgPool2d((3, 4))


@odd("adaptive_max_pool_odd", _image(1, 3, 7, 10))
def adaptive_max_pool_odd() -> nn.Module:
    return nn.AdaptiveMaxPool2d((3, 4))


@odd("average_of_all", _image(1, 3, 7, 10))
def average_of_all() -> nn.Module:
    return nn.AvgPool2d(1280, ceil_mode=True)


@odd("data_dependent_if", _image(1, 4))
class DataDependentIf(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


@odd("boolean_mask", _image(1, 8))
class BooleanMask(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0]


@odd("nonzero", _image(1, 8))
class Nonzero(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nonzero(x > 0)


@odd("ordering", _image(1, 12))
def ordering() -> nn.Module:
    return _function(lambda x: (*torch.topk(x, 3, dim=-1), x.argmax(-1), x.cumsum(-1)))


@odd("sort", _image(1, 12))
def sort() -> nn.Module:
    return _function(lambda x: torch.sort(x, dim=-1, descending=True)[0])


@odd("tied_weights", lambda: torch.randint(0, 20, (1, 6)))
class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.table(tokens)))


@odd("odd_outputs", lambda: (torch.randn(1, 4), torch.randn(1, 2)))
class OddOutputs(nn.Module):
    """The same tensor twice, an input as it came, a weight; and an input that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, unused: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.linear(x)
        return {"y": y, "again": y, "x": x, "bias": self.linear.bias}


@odd("no_parameters", _image())
def no_parameters() -> nn.Module:
    return _function(lambda x: (x - 0.5).clamp(-1, 1).mean((2, 3)))


@odd("scalar_output", _image(1, 4))
def scalar_output() -> nn.Module:
    return _function(lambda x: (x * x).sum())


@odd("running_state", _image(1, 4))
class RunningState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("state", torch.zeros(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state.mul_(0.5).add_(self.linear(x))
        return self.state * 2


@odd("double_weights", lambda: torch.randn(1, 4, dtype=torch.float64))
def double_weights() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()


@odd("bfloat16_weights", lambda: torch.randn(1, 4).bfloat16())
def bfloat16_weights() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).bfloat16()


@odd("bfloat16_inside", _image())
class BFloat16Inside(nn.Module):
    """Casts of its own, and a parameter in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8).bfloat16())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x).relu().to(torch.bfloat16)
        y = y.flatten(2).transpose(1, 2) * self.scale.to(torch.bfloat16)
        return self.head(y.mean(1).float())


@odd("autocast", _image())
class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.head(self.stem(x).relu().mean((2, 3))).float()


@odd("float64_inside", _image())
class Float64Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x).relu().double()
        return self.head((y.flatten(2).transpose(1, 2) * math.pi).mean(1).float())


@odd("dynamic_batch_flatten", _image(2, 3, 8, 8), dynamic_batch=True)
def dynamic_batch_flatten() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    )


@odd("dynamic_batch_reshape", _image(2, 6, 8), dynamic_batch=True)
class DynamicReshape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, _ = x.shape
        heads = self.linear(x).view(batch, steps, 3, 4).transpose(1, 2)
        return heads.reshape(batch * 3, steps, 4).softmax(-1).reshape(batch, -1)


@odd("dynamic_batch_attention", _image(2, 6, 16), dynamic_batch=True)
def dynamic_batch_attention() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True)


@odd("dynamic_batch_expand", _image(2, 8), dynamic_batch=True)
class DynamicExpand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.token.expand(x.shape[0], 1, 8)
        return torch.cat([tokens, x[:, None]], 1).flatten(1)


@odd("pixel_shuffle", _image(1, 8, 4, 4))
def pixel_shuffle() -> nn.Module:
    return nn.Sequential(nn.PixelShuffle(2), nn.ReflectionPad2d(1), nn.Conv2d(2, 2, 3, dilation=2))


@odd("roll_flip_pad", _image(1, 3, 6, 6))
def roll_flip_pad() -> nn.Module:
    return _function(lambda x: F.pad(x.roll(1, 2).flip(3), (1, 2, 0, 1), mode="replicate"))


@odd("conv3d", _image(1, 2, 4, 6, 6))
def conv3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())


@odd("gather_scatter", lambda: (torch.randn(1, 6), torch.randint(0, 6, (1, 4))))
class GatherScatter(nn.Module):
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        picked = x.gather(1, index)
        return torch.zeros(1, 6).scatter_add(1, index, picked)


@odd("index_add", _image(1, 4, 8))
class IndexAdd(nn.Module):
    """Sums at constant positions, behind and before a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        self.register_buffer("groups", torch.tensor([0, 2, 2, 5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.zeros(1, 6, 8).index_add(1, self.groups, self.first(x)))


@odd("index_put_accumulate", lambda: (torch.randn(4, 8), torch.randint(0, 6, (4,))))
class IndexPutAccumulate(nn.Module):
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(6, 8)
        return y.index_put_((index,), x, accumulate=True) * 2


@odd("scatter_reduce", lambda: (torch.randn(1, 4, 8), torch.randint(0, 6, (1, 4))))
class ScatterReduce(nn.Module):
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = index[..., None].expand(1, 4, 8)
        largest = torch.zeros(1, 6, 8).scatter_reduce(1, rows, x, "amax", include_self=False)
        return largest, torch.ones(1, 6, 8).scatter_reduce(1, rows, x, "mean")


@odd("index_fill", lambda: torch.randn(1, 6))
class IndexFill(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.tensor([0, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.index_fill(1, self.places, 3.0)


@odd("branches", _image(1, 8))
class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.one(x), lambda x: self.other(x).relu(), (x,))


@odd("while_loop", _image(1, 8))
class WhileLoop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        return while_loop(lambda x: x.sum() < 9, lambda x: (x.abs() * 2 + 1,), (x,))[0]


@odd("statistics", _image(1, 4, 8))
def statistics() -> nn.Module:
    return _function(
        lambda x: (x.std(-1), x.norm(dim=-1), torch.logsumexp(x, -1), x.var(1), F.normalize(x, dim=-1))
    )


@odd("cdist", lambda: (torch.randn(1, 5, 3), torch.randn(1, 4, 3)))
class Distances(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cdist(a, b)


@odd("svd", _image(1, 4, 4))
class Svd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x)


@odd("special_functions", _image(1, 8))
def special_functions() -> nn.Module:
    return _function(
        lambda x: torch.erf(x) + torch.atan2(x, x + 2) + torch.log1p(x.abs()) + torch.special.i0(x)
        + x.sign() * math.pi + torch.lgamma(x.abs() + 1)
    )  # fmt: skip


@odd("unfold_fold", _image(1, 2, 6, 6))
def unfold_fold() -> nn.Module:
    return _function(lambda x: F.fold(F.unfold(x, 3) * 0.5, (6, 6), 3))


@odd("stft", _image(1, 256))
class Spectrogram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 64, 32, window=self.window, return_complex=True)
        return torch.log(spectrum.abs() + 1e-3)


@odd("normalised_weights", _image(1, 4, 20))
class NormalisedWeights(nn.Module):
    """Weights that are computed from other weights at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 8, 3))
        self.b = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)).mean(-1))


@odd("cells", lambda: (torch.randn(1, 8), torch.randn(1, 16), torch.randn(1, 16)))
class Cells(nn.Module):
    """One step of each recurrent cell, its state handed in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(8, 16), nn.GRUCell(16, 16, bias=False)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h, c = self.lstm(x, (h, c))
        return self.gru(h, c), h, c


@odd("volume_pools", _image(1, 2, 6, 9, 8))
def volume_pools() -> nn.Module:
    return _function(
        lambda x: (
            F.max_pool3d(x, (3, 2, 3), (2, 2, 1), (1, 0, 1)),
            F.max_pool3d(x, 2, dilation=(1, 2, 2)),
            F.avg_pool3d(x, 3, 2, 1),
        )
    )


@odd("powers_of_five_axes", _image(1, 3, 4, 4, 2))
def powers_of_five_axes() -> nn.Module:
    return _function(lambda x: (torch.sigmoid(x) * 2) ** 2 * (x.abs() + 1) ** 0.5 + x**3)


@odd("complex_input", lambda: torch.randn(1, 4, dtype=torch.complex64))
class ComplexInput(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()


@odd("complex_sqrt", _image(1, 4, 2))
class ComplexRoot(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.sqrt(torch.view_as_complex(x)))


@odd("random_noise", _image(1, 8))
class RandomNoise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)
