"""Real architectures that are not in the calibration suite: what calibration_check.py predicts and measures.

Built from the configurations of the transformers package, or as published, with random weights: for latency only.
Sizes are those of the papers' smallest or best known variant.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from calibration_models_later import LATER
from calibration_models_third import THIRD
from mobilenets import mobilenet_v3_large
from torch import nn
from wrapped_models import Logits, Text

from edgeopt.calibration.networks import Fire

IMAGE = (1, 3, 224, 224)


def _mobilenet_v1() -> nn.Module:
    from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

    return Logits(MobileNetV1ForImageClassification(MobileNetV1Config(tf_padding=False, num_labels=1000)))


def _mobilenet_v2() -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    return Logits(MobileNetV2ForImageClassification(MobileNetV2Config(tf_padding=False, num_labels=1000)))


def _resnet(kind: str, depths: list[int], sizes: list[int]) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return Logits(
        ResNetForImageClassification(
            ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=sizes, num_labels=1000)
        )
    )


def _regnet_y_400mf() -> nn.Module:
    from transformers import RegNetConfig, RegNetForImageClassification

    config = RegNetConfig(
        hidden_sizes=[48, 104, 208, 440], depths=[1, 3, 6, 6], groups_width=8, layer_type="y", num_labels=1000
    )
    return Logits(RegNetForImageClassification(config))


def _efficientnet_b0() -> nn.Module:
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_size=224,
        hidden_dim=1280,
        dropout_rate=0.2,
        num_labels=1000,
    )
    return Logits(EfficientNetForImageClassification(config))


def _mobilevit_xxs() -> nn.Module:
    from transformers import MobileViTConfig, MobileViTForImageClassification

    config = MobileViTConfig(
        hidden_sizes=[64, 80, 96],
        neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320],
        expand_ratio=2.0,
        num_labels=1000,
    )
    return Logits(MobileViTForImageClassification(config))


def _vit_tiny() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=192,
        num_attention_heads=3,
        intermediate_size=768,
        attn_implementation="eager",
        num_labels=1000,
    )
    return Logits(ViTForImageClassification(config))


def _bert_tiny() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
        attn_implementation="eager",
    )  # fmt: skip
    return Text(BertModel(config))


def _squeezenet_1_1() -> nn.Module:
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)  # noqa: E731
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def _convnext_femto() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    # At the initial 1e-6 nothing of a block is left in int8, and LiteRT drops it.
    config = ConvNextConfig(
        hidden_sizes=[48, 96, 192, 384], depths=[2, 2, 6, 2], num_labels=1000, layer_scale_init_value=0.5
    )
    return Logits(ConvNextForImageClassification(config))


def _segformer_b0() -> nn.Module:
    from transformers import SegformerConfig, SegformerForImageClassification

    return Logits(SegformerForImageClassification(SegformerConfig(num_labels=1000)))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "bert_tiny": (_bert_tiny, (1, 128)),
    "mobilenet_v1": (_mobilenet_v1, IMAGE),
    "mobilenet_v2": (_mobilenet_v2, IMAGE),
    "resnet_18": (lambda: _resnet("basic", [2, 2, 2, 2], [64, 128, 256, 512]), IMAGE),
    "efficientnet_b0": (_efficientnet_b0, IMAGE),
    "regnet_y_400mf": (_regnet_y_400mf, IMAGE),
    "mobilevit_xxs": (_mobilevit_xxs, (1, 3, 256, 256)),
    "vit_tiny": (_vit_tiny, IMAGE),
    "resnet_50": (lambda: _resnet("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]), IMAGE),
    "mobilenet_v3_large": (mobilenet_v3_large, IMAGE),
    "squeezenet_1_1": (_squeezenet_1_1, IMAGE),
    "convnext_femto": (_convnext_femto, IMAGE),
    "segformer_b0": (_segformer_b0, IMAGE),
    **LATER,
    **THIRD,
}


def build(name: str) -> nn.Module:
    """The network with seeded random weights, in evaluation mode."""
    torch.manual_seed(0)
    model = MODELS[name][0]()
    _normalise(model, example(name))
    return model.eval()


def _normalise(model: nn.Module, sample: torch.Tensor) -> None:
    """Give batch normalisations the statistics of random inputs: without, random weights shrink the signal
    layer by layer to numbers so small that processors slow down on them."""
    layers = [each for each in model.modules() if isinstance(each, (nn.BatchNorm1d, nn.BatchNorm2d))]
    if not layers:
        return
    for layer in layers:
        layer.momentum = 1.0
    for each in model.modules():
        if isinstance(each, (nn.Conv1d, nn.Conv2d)):
            nn.init.kaiming_normal_(each.weight)
    model.train()
    with torch.no_grad():
        model(torch.randn(4, *sample.shape[1:], generator=torch.Generator().manual_seed(2)))


def example(name: str) -> torch.Tensor:
    """An input of it."""
    shape = MODELS[name][1]
    generator = torch.Generator().manual_seed(1)
    if len(shape) == 2:
        return torch.randint(0, 30000, shape, generator=generator)
    return torch.randn(shape, generator=generator)
