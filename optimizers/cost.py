"""What a captured model is predicted to cost on a device in a precision, before any file of it exists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
from torch.export import ExportedProgram

from ..cost_model import Kernel, predict
from ..cost_model.precisions import in_precision
from ..device_profiles import DeviceProfile
from ..models.kernels import program_kernels
from ..models.nodes import op_name
from ..models.workload import node_shape

RUNTIME_OF = {"pte": "executorch", "tflite": "litert"}

# Share of the bytes that the precisions which compute in float, or in int16, leave of the weights.
_WEIGHTS_ALONE = {"int8-weights": 0.25, "int4-weights": 0.25, "w8a16": 0.25}


def kernels_of(program: ExportedProgram, output_format: str) -> list[Kernel]:
    """The float32 kernels that the runtime of a format makes of a program; their names are its nodes."""
    return program_kernels(program, cast(Literal["pte", "tflite"], output_format))


def stored_kernels(program: ExportedProgram, kernels: Sequence[Kernel]) -> list[Kernel]:
    """The kernels with the weights that a file holds for them, not those that one run reads.

    What several kernels read counts once (a recurrent layer's weights are read at every step), a table counts whole.
    """
    constants = {
        spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name != "USER_INPUT"
    }
    seen: set[torch.fx.Node] = set()
    weights: dict[str, float] = {}
    for node in program.graph.nodes:
        own = {each for each in node.all_input_nodes if each.op == "get_attr" or each.name in constants}
        if own and own <= seen:
            weights[node.name] = 0.0
        elif op_name(node) == "embedding":
            weights[node.name] = 4.0 * sum(math.prod(node_shape(each)) for each in own)
        seen |= own
    return [
        replace(kernel, bytes_weights=weights.get(kernel.name.partition(".")[0], kernel.bytes_weights))
        for kernel in kernels
    ]


def kernels_in(kernels: Sequence[Kernel], precision: str, output_format: str) -> list[Kernel]:
    """The kernels as the road to ``precision`` makes them in this format, conversions and all."""
    if precision in _WEIGHTS_ALONE:
        return list(kernels)
    return in_precision(
        kernels, "int8-static" if precision == "mixed" else precision, RUNTIME_OF[output_format]
    )


def predicted_ms(
    program: ExportedProgram, profile: DeviceProfile, output_format: str, precision: str = "fp32"
) -> float:
    """Predicted milliseconds of one inference on one core."""
    kernels = kernels_in(kernels_of(program, output_format), precision, output_format)
    return predict(kernels, profile, runtime=RUNTIME_OF[output_format]).latency_ms


def predicted_node_ms(
    program: ExportedProgram, profile: DeviceProfile, precision: str, output_format: str = "pte"
) -> dict[str, float]:
    """Node of the program -> predicted milliseconds of its kernels in a precision."""
    kernels = kernels_in(kernels_of(program, output_format), precision, output_format)
    found: dict[str, float] = {}
    for each in predict(kernels, profile, runtime=RUNTIME_OF[output_format]).kernels:
        # Kernels of one operator bear its node's name, and more behind a point.
        node = each.kernel.name.partition(".")[0]
        found[node] = found.get(node, 0.0) + each.latency_ms
    return found


def weight_bytes(kernels: Sequence[Kernel], precision: str, output_format: str) -> float:
    """About what the weights of these (:func:`stored_kernels`) take in a file of this precision."""
    weights = sum(kernel.bytes_weights for kernel in kernels)
    if precision == "fp32":
        return weights
    if precision == "fp16":
        return weights / 2
    if precision in _WEIGHTS_ALONE:
        return weights * _WEIGHTS_ALONE[precision]
    made = kernels_in(kernels, precision, output_format)
    total = 0.0
    for kernel in made:
        # Tables, and LiteRT's convolutions, get int8 weights though they compute in float.
        packed = kernel.kind == "embedding" or (output_format == "tflite" and precision.endswith("-dynamic"))
        shrunk = kernel.precision == "fp32" and packed
        total += kernel.bytes_weights / (4 if shrunk else 1)
    return total
