"""Brings a model of another float type to float32, which both file formats and their kernels are made for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .findings import Finding
from .inputs import ExampleInputs
from .tensors import dtype_name


def to_float32(module: torch.nn.Module) -> list[Finding]:
    """Cast float64, float16 and bfloat16 weights and buffers of ``module`` to float32, in place.

    float16 and bfloat16 lose nothing by it; float64 loses what float32 can't hold.
    """
    others: dict[str, str] = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and tensor.dtype is not torch.float32:
            others.setdefault(dtype_name(tensor.dtype), name)
    if not others:
        return []
    module.float()
    kinds = " and ".join(sorted(others))
    return [
        Finding(
            "warning",
            f"the model's weights are {kinds} ({next(iter(others.values()))}); float32 is exported, with float32 "
            "inputs and outputs",
            suggestion="--precision fp16 stores float16" if "float64" not in others else None,
        )
    ]


def float32_inputs(example: ExampleInputs) -> ExampleInputs:
    """``example`` with every float tensor in float32."""
    return replace(example, args=_cast(example.args), kwargs=_cast(example.kwargs))


def _cast(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cast(item) for item in value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_cast(item) for item in value)
    return value
