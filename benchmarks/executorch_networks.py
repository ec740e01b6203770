"""Networks that ExecuTorch's latencies were published for, written out so that no model zoo is needed.

Random weights: they are for latency, never for accuracy. torchvision's variants, whose parameters and
multiply-accumulates it prints (:data:`PUBLISHED`): EfficientNetV2-S arXiv:2104.00298 table 4; FCN arXiv:1411.4038 and
DeepLabV3 arXiv:1706.05587 on ResNets of output stride 8; LR-ASPP and SSDLite on MobileNetV3-Large arXiv:1905.02244.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from mobilenets import InvertedResidual, conv, v3_large_plan

from edgeopt.cost_model import Kernel
from edgeopt.cost_model.precisions import in_precision
from edgeopt.models.kernels import program_kernels

CLASSES, BOXES = 21, 6  # of the segmentations (Pascal VOC's); of SSDLite at each place, for 91 classes


def _conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, dilation: int = 1, groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:  # fmt: skip
    return conv(inputs, outputs, kernel, stride, groups, act, dilation)


class _Excite(nn.Module):
    """EfficientNetV2's: squeezed from the block's input, with its own activations."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), nn.SiLU(),
            nn.Conv2d(squeezed, channels, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale(x)


class _Residual(nn.Module):
    """``body``, and what came in on top where the shapes are the same."""

    def __init__(self, *body: nn.Module, same: bool) -> None:
        super().__init__()
        self.body, self.same = nn.Sequential(*body), same

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.same else self.body(x)


def efficientnet_v2_s() -> nn.Module:
    """EfficientNetV2-S: fused blocks first, then inverted residuals with squeeze-excite."""
    plan = [(True, 1, 1, 24, 2), (True, 4, 2, 48, 4), (True, 4, 2, 64, 4), (False, 4, 2, 128, 6),
            (False, 6, 1, 160, 9), (False, 6, 2, 256, 15)]  # fmt: skip
    channels = 24
    layers: list[nn.Module] = [_conv(3, channels, 3, 2, act=nn.SiLU)]
    for fused, expand, first, outputs, repeat in plan:
        for index in range(repeat):
            stride = first if index == 0 else 1
            wide, same = channels * expand, stride == 1 and channels == outputs
            if fused and expand == 1:
                body: list[nn.Module] = [_conv(channels, outputs, 3, stride, act=nn.SiLU)]
            elif fused:
                body = [_conv(channels, wide, 3, stride, act=nn.SiLU), _conv(wide, outputs, act=None)]
            else:
                body = [_conv(channels, wide, act=nn.SiLU),
                        _conv(wide, wide, 3, stride, groups=wide, act=nn.SiLU),
                        _Excite(wide, channels // 4), _conv(wide, outputs, act=None)]  # fmt: skip
            layers.append(_Residual(*body, same=same))
            channels = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers, _conv(channels, 1280, act=nn.SiLU), *head).eval()


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(inputs, inner), _conv(inner, inner, 3, stride, dilation=dilation), _conv(inner, 4 * inner, act=None)
        )  # fmt: skip
        changes = stride > 1 or inputs != 4 * inner
        self.shortcut: nn.Module = _conv(inputs, 4 * inner, 1, stride, act=None) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def _resnet(depth: int) -> tuple[nn.Module, nn.Module]:
    """(up to the third stage, the fourth) with dilation in place of the last two strides."""
    channels = 64
    layers: list[nn.Module] = [_conv(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]
    stages = []
    plan = [(64, 3, 1, 1, 1), (128, 4, 2, 1, 1), (256, 23 if depth == 101 else 6, 1, 1, 2), (512, 3, 1, 2, 4)]
    for inner, repeat, stride, first, dilation in plan:
        blocks = [_Bottleneck(channels, inner, stride, first)]
        channels = 4 * inner
        blocks += [_Bottleneck(channels, inner, 1, dilation) for _ in range(repeat - 1)]
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*layers, *stages[:3]), stages[3]


def _mobilenet_v3(*, dilated: bool = False, short_tail: bool = False) -> list[nn.Module]:
    """MobileNetV3-Large's stem, 15 blocks and last convolution; the last three blocks dilated, or half as wide."""
    channels = 16
    layers: list[nn.Module] = [conv(3, channels, 3, 2, 1, nn.Hardswish)]
    for index, (kernel, expanded, outputs, excite, act, stride) in enumerate(v3_large_plan()):
        last = index >= 12
        dilation = 2 if last and dilated else 1
        # What comes into the first of the last three is as wide as ever.
        inside = expanded // 2 if short_tail and index > 12 else expanded
        leaving = outputs // 2 if short_tail and last else outputs
        layers.append(
            InvertedResidual(
                channels, inside, leaving, kernel=kernel, stride=1 if dilation > 1 else stride, act=act,
                excite=excite, dilation=dilation,
            )
        )  # fmt: skip
        channels = leaving
    return [*layers, conv(channels, 6 * channels, 1, 1, 1, nn.Hardswish)]


def _fcn_head(inputs: int) -> nn.Module:
    inner = inputs // 4
    return nn.Sequential(_conv(inputs, inner, 3), nn.Dropout(0.1), nn.Conv2d(inner, CLASSES, 1))


class _Pyramid(nn.Module):
    """DeepLabV3's head: five views of the features, of different reach."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(
            [_conv(inputs, 256), *(_conv(inputs, 256, 3, dilation=rate) for rate in (12, 24, 36))]
        )
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), _conv(inputs, 256))
        self.project = nn.Sequential(_conv(1280, 256), nn.Dropout(0.5))
        self.classify = nn.Sequential(_conv(256, 256, 3), nn.Conv2d(256, CLASSES, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        views = [view(x) for view in self.views]
        whole = functional.interpolate(self.whole(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        scores: torch.Tensor = self.classify(self.project(torch.cat([*views, whole], 1)))
        return scores


class Segmentation(nn.Module):
    """Features, a head, and its scores drawn as large as the image; ``auxiliary``, which learns only, stands beside."""

    def __init__(self, low: nn.Module, high: nn.Module, head: nn.Module, auxiliary: nn.Module) -> None:
        super().__init__()
        self.low, self.high, self.head, self.auxiliary = low, high, head, auxiliary

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, H, W) → (1, 21, H, W)."""
        scores = self.head(self.high(self.low(image)))
        return functional.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False)


def _on_resnet(depth: int, head: Callable[[int], nn.Module]) -> nn.Module:
    low, high = _resnet(depth)
    return Segmentation(low, high, head(2048), _fcn_head(1024)).eval()


def deeplab_mobilenet_v3() -> nn.Module:
    """DeepLabV3 on MobileNetV3-Large of output stride 16."""
    layers = _mobilenet_v3(dilated=True)
    low, high = nn.Sequential(*layers[:5]), nn.Sequential(*layers[5:])
    return Segmentation(low, high, _Pyramid(960), _fcn_head(40)).eval()


class _LrAspp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = _mobilenet_v3(dilated=True)
        self.low, self.high = nn.Sequential(*layers[:5]), nn.Sequential(*layers[5:])
        self.features = _conv(960, 128)
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(960, 128, 1, bias=False), nn.Sigmoid())
        self.classify_low, self.classify_high = nn.Conv2d(40, CLASSES, 1), nn.Conv2d(128, CLASSES, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        low = self.low(image)
        high = self.high(low)
        x = self.features(high) * self.scale(high)
        x = functional.interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)
        x = self.classify_low(low) + self.classify_high(x)
        return functional.interpolate(x, size=image.shape[-2:], mode="bilinear", align_corners=False)


class _SsdLite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = _mobilenet_v3(short_tail=True)
        # The first features are those inside the 13th block, behind its expansion.
        block = layers[13].body
        self.first = nn.Sequential(*layers[:13], block[0])
        self.second = nn.Sequential(*block[1:], *layers[14:])
        channels, extra = [672, 480], []
        for outputs in (512, 256, 256, 128):
            inner = outputs // 2
            extra.append(
                nn.Sequential(
                    _conv(channels[-1], inner, act=nn.ReLU6), _conv(inner, inner, 3, 2, groups=inner, act=nn.ReLU6),
                    _conv(inner, outputs, act=nn.ReLU6),
                )
            )  # fmt: skip
            channels.append(outputs)
        self.extra = nn.ModuleList(extra)
        self.heads = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(_conv(wide, wide, 3, groups=wide, act=nn.ReLU6), nn.Conv2d(wide, BOXES * each, 1))
                for wide in channels
            )
            for each in (91, 4)
        )  # fmt: skip

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = [self.first(image)]
        features.append(self.second(features[-1]))
        for extra in self.extra:
            features.append(extra(features[-1]))
        scores, boxes = (
            torch.cat([head(x).permute(0, 2, 3, 1).reshape(1, -1, each) for head, x in zip(heads, features, strict=True)], 1)
            for heads, each in zip(self.heads, (91, 4), strict=True)
        )  # fmt: skip
        return scores, boxes


def clip_image() -> nn.Module:
    """The image half of CLIP ViT-B/32 (arXiv:2103.00020), a vision transformer, with its projection."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    class Image(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = CLIPVisionConfig(projection_dim=512, attn_implementation="eager")
            self.model = CLIPVisionModelWithProjection(config)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            embeddings: torch.Tensor = self.model(pixel_values=image).image_embeds
            return embeddings

    return Image().eval()


# Network → how to build it and the side of its image (torchvision's evaluation).
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "efficientnet_v2_s": (efficientnet_v2_s, 384),
    "ssdlite320_mobilenet_v3_large": (lambda: _SsdLite().eval(), 320),
    "lraspp_mobilenet_v3_large": (lambda: _LrAspp().eval(), 520),
    "deeplabv3_mobilenet_v3_large": (deeplab_mobilenet_v3, 520),
    "deeplabv3_resnet50": (lambda: _on_resnet(50, _Pyramid), 520),
    "deeplabv3_resnet101": (lambda: _on_resnet(101, _Pyramid), 520),
    "fcn_resnet50": (lambda: _on_resnet(50, _fcn_head), 520),
    "fcn_resnet101": (lambda: _on_resnet(101, _fcn_head), 520),
    "clip_vit_b32_image": (clip_image, 224),
}
# Parameters, and billions of multiply-accumulates, as torchvision prints them for its weights
# (of CLIP's: the parameters of OpenAI's file, and ViT-B/32's work).
PUBLISHED = {
    "efficientnet_v2_s": (21_458_488, 8.366), "ssdlite320_mobilenet_v3_large": (3_440_060, 0.583),
    "lraspp_mobilenet_v3_large": (3_221_538, 2.086), "deeplabv3_mobilenet_v3_large": (11_029_328, 10.452),
    "deeplabv3_resnet50": (42_004_074, 178.722), "deeplabv3_resnet101": (60_996_202, 258.743),
    "fcn_resnet50": (35_322_218, 152.717), "fcn_resnet101": (54_314_346, 232.738),
    "clip_vit_b32_image": (87_849_216, 4.409),
}  # fmt: skip


@cache
def kernels(name: str, precision: str = "fp32") -> tuple[Kernel, ...]:
    """The kernels of a network of :data:`NETWORKS` as a .pte in a precision of :func:`in_precision`."""
    build, side = NETWORKS[name]
    program = torch.export.export(build(), (torch.zeros(1, 3, side, side),))
    return tuple(in_precision(program_kernels(program), precision, "executorch"))
