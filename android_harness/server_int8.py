"""int8 on the server: PyTorch's own quantised layers on the CPU, torchao's on CUDA.

``int8`` quantises weights and, at run time, activations; ``int8_weights`` the weights alone. Only linear and
recurrent layers change, as these ways do; how many of the parameters that are is reported.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

from ..errors import InputError


def quantized(module: Any, precision: str, device: str, *, compiled: bool) -> tuple[Any, float]:
    """A copy of ``module`` with int8 weights, and the share of its parameters that are int8.

    Args:
        module: a float32 module in eval mode, on the device.
        precision: "int8" or "int8_weights".

    Raises:
        InputError: the module has no layer that can be quantised.
    """
    import torch
    from torch import nn

    # PyTorch's layers have int8 kernels on x86 and arm64 but can't be compiled; torchao's can.
    native = device == "cpu" and precision == "int8" and not compiled
    kinds = (nn.Linear, nn.LSTM, nn.GRU) if native else (nn.Linear,)
    chosen = {
        id(p) for m in module.modules() if isinstance(m, kinds) for p in m.parameters(False) if p.ndim > 1
    }
    parameters = {id(p): p.numel() for p in module.parameters()}
    share = sum(parameters[i] for i in chosen) / max(1, sum(parameters.values()))
    if not chosen:
        raise InputError(
            f"{precision} on the server would change nothing: the model has no linear"
            f"{' or recurrent' if native else ''} layer, and PyTorch quantises no other."
        )
    copied = copy.deepcopy(module)
    if native:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.ao.quantization.quantize_dynamic(copied, set(kinds)), share
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    quantize_(
        copied, Int8DynamicActivationInt8WeightConfig() if precision == "int8" else Int8WeightOnlyConfig()
    )
    return copied, share
