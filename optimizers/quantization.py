"""Quantisation of captured programs with PT2E and XNNPACK's quantizer.

Affine quantisation throughout: q = round(x / s) + z, clamped to [-128, 127]; weights symmetric (z = 0), one
scale an output channel; activations asymmetric, one scale a tensor (Jacob et al., 2018).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from ..errors import InputError
from ..models.data import Sample
from ..models.program import Capture
from ..models.state import preserved

_HALF_MAX = 65504.0


def prepare_static(capture: Capture, samples: Sequence[Sample], *, per_channel: bool) -> torch.fx.GraphModule:
    """The captured graph with calibrated observers; both formats convert copies of it.

    Args:
        samples: tensors that fit the model's inputs; each is run once.
        per_channel: one weight scale an output channel.
    """
    return _prepare(capture, samples, is_per_channel=per_channel)


def prepare_dynamic(capture: Capture) -> torch.fx.GraphModule:
    """The captured graph prepared for int8 weights with activations quantised at run time."""
    return _prepare(capture, [capture.source.example], is_per_channel=True, is_dynamic=True)


def _prepare(capture: Capture, samples: Sequence[Sample], **config: Any) -> torch.fx.GraphModule:
    with contextlib.redirect_stderr(io.StringIO()):
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(**config))
    prepared: torch.fx.GraphModule = prepare_pt2e(capture.program.module(), quantizer)
    # Samples leave their traces in the observers alone, not in a state that the model itself keeps.
    state = [b for name, b in prepared.named_buffers() if name in capture.program.state_dict]
    with torch.no_grad(), preserved(state):
        for sample in samples:
            prepared(*sample)
    return prepared


def check_half_range(program: ExportedProgram) -> None:
    """Refuse weights that float16 can't hold (|w| > 65,504).

    Raises:
        InputError: naming the first such weight.
    """
    for name, tensor in program.state_dict.items():
        if tensor.is_floating_point() and tensor.numel():
            finite = tensor[torch.isfinite(tensor)]
            largest = float(finite.detach().abs().max()) if finite.numel() else 0.0
            if largest > _HALF_MAX:
                raise InputError(
                    f"weight {name.removeprefix('model.')!r} reaches {largest:.3g}, beyond float16's 65,504: "
                    "choose another precision."
                )
