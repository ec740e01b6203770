"""Equal forms of activations; see `equal_forms`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Form = Callable[..., Any]


def hard_sigmoid(node: torch.fx.Node) -> Form | None:
    """clamp(x / 6 + 1/2, 0, 1), which ExecuTorch would write with numbers, which it mixes up the layouts of."""
    if node.meta["val"].ndim != 4:
        return None
    sixth, half = torch.full((1, 1, 1, 1), 1 / 6), torch.full((1, 1, 1, 1), 0.5)
    return lambda x: torch.clamp(x * sixth.to(x.dtype) + half.to(x.dtype), 0.0, 1.0)


def prelu_of_rows(node: torch.fx.Node) -> Form | None:
    """PReLU of anything but images: XNNPACK's part of the lowering breaks off, and all of the model runs outside it.

    max(x, 0) - w * max(-x, 0)
    """
    rank = node.args[0].meta["val"].ndim  # type: ignore[union-attr]
    if rank == 4:
        return None
    shape = [-1, *[1] * (rank - 2)] if rank > 1 else [-1]
    return lambda x, weight: torch.relu(x) - weight.reshape(shape if rank else ()) * torch.relu(-x)
