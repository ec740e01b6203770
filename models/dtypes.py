"""Brings a model of another float type to float32, which both file formats and their kernels are made for."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from ..errors import InputError
from .findings import Finding
from .float32 import float32_arithmetic
from .inputs import ExampleInputs
from .state import preserved_state
from .tensors import dtype_name, named_tensors

# What networks of random weights keep of themselves from bfloat16 to float32: BERT, ViT and LLaMA of 12 layers and a
# ResNet-50 34 to 41 dB, a MobileNetV2 25 dB.
_LEAST_DB = 20.0


def other_types(module: torch.nn.Module) -> dict[str, torch.dtype]:
    """The float weights and buffers of ``module`` that aren't float32, by name."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {n: t.dtype for n, t in tensors if t.is_floating_point() and t.dtype is not torch.float32}


def to_float32(module: torch.nn.Module) -> list[Finding]:
    """Cast float64, float16 and bfloat16 weights and buffers of ``module`` to float32, in place.

    float16 and bfloat16 lose nothing by it; float64 loses what float32 can't hold.
    """
    others: dict[str, str] = {}
    for name, dtype in other_types(module).items():
        others.setdefault(dtype_name(dtype), name)
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


def widened_forward(
    module: torch.nn.Module, types: dict[str, torch.dtype], example: ExampleInputs, origin: str
) -> Finding | None:
    """What to say of a forward that casts to bfloat16 or float16 and is exported in float32; None of another one.

    Args:
        module: the model, its weights in float32.
        types: what they were before; see :func:`other_types`.
        example: inputs as the user gave them.

    Raises:
        InputError: the results in float32 are other ones.
    """
    inputs = float32_inputs(example)
    with float32_arithmetic() as arithmetic:
        found = _results(module, inputs)
    if found is None or not arithmetic.replaced:
        return None
    original = copy.deepcopy(module) if types else module
    for name, tensor in [*original.named_parameters(), *original.named_buffers()]:
        tensor.data = tensor.data.to(types.get(name, tensor.dtype))
    # Of a model that doesn't run by itself the first run speaks.
    wanted = _results(original, example)
    if wanted is None:
        return None
    kinds = " and ".join(sorted(dtype_name(dtype) for dtype in arithmetic.replaced))
    agreement = min((_snr_db(wanted[name], found[name]) for name in wanted if name in found), default=0.0)
    place = next(iter(arithmetic.replaced.values()))
    if agreement < _LEAST_DB:
        raise InputError(
            f"{origin} computes in {kinds}{f' ({place})' if place else ''}, and in float32, which is exported, its "
            f"results on the example inputs are other ones (SNR {agreement:.1f} dB): take the casts out of forward, "
            "or give example inputs as the device will see them."
        )
    return Finding(
        "warning",
        f"forward computes in {kinds}; float32 is exported, {agreement:.1f} dB from the model's own results on the "
        "example inputs",
        source=place,
        suggestion="--precision fp16 stores float16",
    )


def _results(module: torch.nn.Module, example: ExampleInputs) -> dict[str, torch.Tensor] | None:
    """What ``module`` gives, or None where it fails."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), preserved_state(module):
            torch.manual_seed(0)
            return named_tensors(module(*example.args, **example.kwargs))
    except Exception:
        return None


def _snr_db(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Signal-to-noise ratio in dB of the values that are finite in both, 100 at most."""
    if wanted.shape != found.shape:
        return 0.0
    wanted, found = wanted.double(), found.double()
    both = wanted.isfinite() & found.isfinite()
    signal, noise = wanted[both].square().sum(), (wanted - found)[both].square().sum()
    return float((10 * (signal / noise).log10()).clamp(0, 100).nan_to_num(100.0))


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
