"""The networks whose kernels a device is calibrated with: small ones, a family of kernels each, and blocks.

Random weights: they are timed, never asked for an answer. Channels, sizes and strides are spread over what
networks for phones and boards use (arXiv:1801.04381, 1905.02244, 1512.03385, 1602.07360, 1505.04597,
1706.03762), without being any of these networks. Bump :data:`VERSION` when a network changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from .networks import (
    Activations,
    Basic,
    Bottleneck,
    Deep,
    Embeddings,
    Encoder,
    Fire,
    Inverted,
    Joined,
    Next,
    Norms,
    Patches,
    Pooled,
    Pools,
    Products,
    Scaled,
    Separable,
    Shuffled,
    Softmaxes,
    Steps,
    Together,
    UpAndDown,
    convs_of,
    grouped_of,
    linears_of,
    turned_of,
)

VERSION = 10

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Carrier:
    """One network of the suite: how to make it and the shapes of its inputs (batch first).

    With a ``vocabulary`` the inputs are tokens below it.
    """

    name: str
    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    vocabulary: int = 0

    def example(self) -> tuple[torch.Tensor, ...]:
        """Random inputs of these shapes."""
        if self.vocabulary:
            return tuple(torch.randint(self.vocabulary, shape) for shape in self.shapes)
        return tuple(torch.randn(shape) for shape in self.shapes)


def _image(channels: int, side: int) -> tuple[Shape, ...]:
    return ((1, channels, side, side),)


def _two(shape: Shape) -> tuple[Shape, ...]:
    return (shape, shape)


def suite() -> tuple[Carrier, ...]:
    """All networks, in the order in which they are measured."""
    return (*_convolutions(), *_products(), *_light(), *_blocks(), *_deep())


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
        "square_112": ((32, 40, 1, 1), (40, 32, 1, 1)),
        "square_56": ((64, 72, 1, 1), (72, 64, 1, 1)),
        "square_28": ((96, 112, 1, 1), (112, 96, 1, 1)),
        "square_14": ((192, 224, 1, 1), (224, 192, 1, 1)),
        "square_7": ((416, 448, 1, 1), (448, 416, 1, 1)),
        "halving_112": ((28, 56, 1, 2), (56, 88, 1, 2)),
    }
    sides = {
        "conv_stem": 128, "conv_large": 112, "conv_56": 56, "conv_28": 28, "conv_14": 14, "conv_7": 7,
        "point_112": 112, "point_56": 56, "point_28": 28, "point_14": 14, "point_7": 7, "point_small": 16,
        "point_halving": 56, "stem_208": 208, "stem_200": 200, "conv_52": 52, "conv_26": 26, "point_wide": 52,
        "point_dense": 14, "square_112": 112, "square_56": 56, "square_28": 28, "square_14": 14, "square_7": 7,
        "halving_112": 112,
    }  # fmt: skip
    clamped = {
        "clamped_104": (104, ((24, 88, 1, 1), (88, 20, 1, 1))),
        "clamped_52": (52, ((20, 136, 1, 1), (136, 28, 1, 1), (28, 72, 1, 1), (72, 144, 1, 1))),
        "clamped_26": (26, ((36, 208, 1, 1), (208, 40, 1, 1), (40, 144, 1, 1), (144, 272, 1, 1))),
        "clamped_56": (56, ((40, 80, 1, 1), (80, 112, 1, 1))),
        "clamped_28": (28, ((96, 224, 1, 1), (224, 144, 1, 1))),
        "clamped_14": (14, ((288, 544, 1, 1), (544, 320, 1, 1))),
        "clamped_7": (7, ((480, 992, 1, 1), (992, 576, 1, 1))),
    }
    deep = {
        "depth_112": (40, 112, ((3, 1), (3, 2), (3, 1))),
        "depth_104": (88, 104, ((3, 2), (3, 1))),
        "depth_56": (136, 56, ((3, 1), (5, 2))),
        "depth_28": (168, 28, ((3, 1), (5, 1), (3, 2))),
        "depth_14": (480, 14, ((5, 1), (3, 1), (5, 2), (3, 1))),
        "depth_7": (960, 7, ((3, 1), (5, 1))),
        "depth_wide": (72, 40, ((7, 1), (7, 2), (7, 1))),
        "depth_small": (24, 32, ((3, 1), (3, 2), (5, 1))),
    }
    groups = {
        "group_52": (96, 52, 8, ((3, 2), (3, 1))),
        "group_28": (136, 28, 8, ((3, 1), (3, 2))),
        "group_7": (352, 7, 8, ((3, 1), (3, 1))),
        "group_14": (224, 14, 16, ((3, 1), (3, 1))),
        "group_112": (56, 112, 8, ((3, 2), (3, 1))),
        "group_15": (176, 15, 8, ((3, 1), (3, 2))),
    }
    return (
        *(Carrier(name, partial(convs_of, plan), _image(plan[0][0], sides[name])) for name, plan in convs.items()),
        *(
            Carrier(name, partial(convs_of, plan, nn.ReLU6), _image(plan[0][0], side))
            for name, (side, plan) in clamped.items()
        ),
        *(
            Carrier(name, partial(grouped_of, c, 1, plan), _image(c, side))
            for name, (c, side, plan) in deep.items()
        ),
        *(
            Carrier(name, partial(grouped_of, c, width, plan), _image(c, side))
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
        "linear_256": (256, (96, 192, 96)),
    }
    return (
        *(
            Carrier(name, partial(linears_of, widths), ((rows, widths[0]),))
            for name, (rows, widths) in linears.items()
        ),
        Carrier("products_64", Products, ((4, 64, 32), (4, 32, 64))),
        Carrier("products_144", Products, ((3, 144, 48), (3, 48, 144))),
        Carrier("products_256", Products, ((16, 256, 16), (16, 16, 256))),
        Carrier("softmax_64", Softmaxes, _two((4, 64, 64))),
        Carrier("softmax_144", Softmaxes, _two((6, 144, 144))),
        Carrier("softmax_256", Softmaxes, _two((16, 256, 256))),
        Carrier("softmax_49", Softmaxes, _two((2, 784, 49))),
        Carrier("norm_64", lambda: Norms(96), ((1, 64, 96),)),
        Carrier("norm_144", lambda: Norms(256), ((1, 144, 256),)),
        Carrier("norm_256", lambda: Norms(64), ((4, 256, 64),)),
        Carrier("embeddings_96", lambda: Embeddings(600, 96, 160), ((1, 96),), 600),
    )


def _light() -> tuple[Carrier, ...]:
    return (
        Carrier("pools_112", Pools, _image(32, 112)),
        Carrier("pools_32", Pools, _image(48, 32)),
        Carrier("together_56", Together, _two((1, 64, 56, 56))),
        Carrier("together_14", Together, _two((1, 96, 14, 14))),
        Carrier(
            "swish_28",
            lambda: Activations(nn.Hardswish(), nn.Hardsigmoid(), nn.ReLU()),
            _two((1, 120, 28, 28)),
        ),
        Carrier("sigmoid_28", lambda: Activations(nn.Sigmoid(), nn.Tanh()), _two((1, 32, 28, 28))),
        Carrier("sigmoid_small", lambda: Activations(nn.Sigmoid(), nn.Tanh()), _two((1, 96))),
        Carrier("silu_56", lambda: Activations(nn.SiLU(), nn.ReLU6()), _two((1, 72, 56, 56))),
        Carrier("together_large", Together, _two((1, 96, 104, 104))),
        Carrier("gelu_180", lambda: Activations(nn.GELU()), _two((1, 180, 640))),
        Carrier("silu_128", lambda: Activations(nn.SiLU()), _two((1, 24, 128, 128))),
        Carrier("patches_32", Patches, _image(56, 32)),
        Carrier(
            "maxima_56",
            lambda: Pooled(16, 88, nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2)),
            _image(16, 56),
        ),
        Carrier("averages_28", lambda: Pooled(24, 104, nn.AvgPool2d(2), nn.AvgPool2d(2)), _image(24, 28)),
        Carrier("means_14", lambda: Scaled(48, 264), _image(48, 14)),
        Carrier("joined_28", lambda: Joined(64, 24, 4), _image(64, 28)),
        Carrier("patch_216", lambda: nn.Conv2d(3, 24, 8, 8), _image(3, 216)),
        Carrier("gelu_64", lambda: Activations(nn.GELU(), nn.SiLU()), _two((1, 64, 256))),
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
        Carrier("encoder_240", lambda: Encoder(72, 4, 144), ((4, 240, 72),)),
        Carrier(
            "separable_56",
            lambda: nn.Sequential(Separable(48, 96, 1), Separable(96, 160, 2), Separable(160, 160, 1)),
            _image(48, 56),
        ),
        Carrier(
            "separable_14",
            lambda: nn.Sequential(Separable(320, 320, 1), Separable(320, 640, 2), Separable(640, 640, 1)),
            _image(320, 14),
        ),
        Carrier(
            "bottleneck_26",
            lambda: nn.Sequential(Bottleneck(160, 80, 320, 2), Bottleneck(320, 80, 320)),
            _image(160, 26),
        ),
        Carrier(
            "grouped_48",
            lambda: nn.Sequential(Bottleneck(32, 56, 56, 2, 8, 8), Bottleneck(56, 56, 56, 1, 8, 14)),
            _image(32, 96),
        ),
        Carrier(
            "grouped_12",
            lambda: nn.Sequential(Bottleneck(120, 264, 264, 2, 8, 30), Bottleneck(264, 264, 264, 1, 8, 66)),
            _image(120, 24),
        ),
        Carrier("turned_28", lambda: turned_of(((72, 40, 2, 2), (40, 20, 2, 2))), _image(72, 28)),
        Carrier("turned_12", lambda: turned_of(((176, 96, 4, 2), (96, 48, 2, 2))), _image(176, 12)),
        Carrier("heads_120", lambda: convs_of(((12, 10, 3, 1), (10, 3, 1, 1))), _image(12, 120)),
        Carrier("heads_40", lambda: convs_of(((56, 40, 3, 1), (40, 6, 1, 1))), _image(56, 40)),
        Carrier("single_48", lambda: convs_of(((1, 48, 7, 2), (48, 40, 1, 1))), _image(1, 48)),
        Carrier("narrowing_48", lambda: convs_of(((112, 24, 3, 1), (24, 104, 1, 1))), _image(112, 48)),
        Carrier("shuffled_28", lambda: nn.Sequential(Shuffled(104), Shuffled(104)), _image(104, 28)),
        Carrier(
            "separable_10",
            lambda: nn.Sequential(Separable(56, 56, 1), Separable(56, 72, 1), Separable(72, 56, 1)),
            _image(56, 10),
        ),
        Carrier("next_24", lambda: nn.Sequential(Next(56, 224), Next(56, 224)), _image(56, 24)),
    )  # fmt: skip


def _deep() -> tuple[Carrier, ...]:
    # Weights of 9 to 19 MB: in a whole network they have left the inner caches until the next inference needs them.
    return (
        Carrier("deep_7", lambda: convs_of(((400, 480, 1, 1), (480, 400, 1, 1)) * 9), _image(400, 7)),
        Carrier(
            "deep_clamped",
            lambda: convs_of(((392, 504, 1, 1), (504, 392, 1, 1)) * 6, nn.ReLU6),
            _image(392, 7),
        ),
        Carrier("deep_14", lambda: convs_of(((144, 144, 3, 1),) * 12), _image(144, 14)),
        Carrier("deep_blocks", lambda: Deep(376, 14, 1000), _image(376, 7)),
        Carrier("deep_linear", lambda: linears_of((1100,) * 5), ((1, 1100),)),
        # Steps of a recurrent layer, and layers of an encoder: many products with weights of their own.
        Carrier("deep_steps", lambda: linears_of((136, 408) * 20), ((1, 136),)),
        Carrier("deep_rows", lambda: linears_of((352, 1408) * 5), ((104, 352),)),
    )
