"""Makes a .pte file: ExecuTorch with the XNNPACK partitioner."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from ..models.findings import Finding
from ..models.program import Capture, recapture, size_agnostic_kernels
from ..optimizers.passes import OptimizedModel
from ..optimizers.quantization import prepare_dynamic
from .explain import explain
from .exporter_fixes import mended_lowering
from .exporter_speedups import compiled_once, fast_lowering
from .half import cast_to_half
from .linear_forms import linear_from_products
from .packed_weights import pack_embeddings, pack_linear
from .rewrites import rewrite_program

Progress = Callable[[str], None]


def convert(model: OptimizedModel, path: Path, progress: Progress) -> list[Finding]:
    """Write ``model`` as a .pte file.

    When XNNPACK's part of the lowering fails on a float model, the file is made with ExecuTorch's portable
    kernels instead, and a warning says so.

    Raises:
        Exception: whatever ExecuTorch raises; ``explain`` makes a finding of it.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    progress("preparing the graph")
    program, notes = _rewritten(model)
    dynamic = bool(model.capture.dynamic_shapes)
    try:
        content = _lower(program, [XnnpackPartitioner()], dynamic, progress)
    except Exception as error:
        if model.kind != "dense":
            raise
        failure = explain(error, "pte", model.capture.program)
        progress("lowering without XNNPACK")
        try:
            content = _lower(program, [], dynamic, progress)
        except Exception:
            raise error from None
        message = (
            f"XNNPACK can't take this model ({failure.message}); the file runs on portable kernels, slowly"
        )
        notes = [*notes, replace(failure, severity="warning", message=message)]
    path.write_bytes(content)
    return notes


def _rewritten(model: OptimizedModel) -> tuple[ExportedProgram, list[Finding]]:
    program, notes = rewrite_program(_program(model), "pte")
    program = linear_from_products(program, parameters_only=False)
    if model.kind in ("format", "pt2e"):
        program, _ = rewrite_program(program, "pte int8")
    return program, notes


def _lower(program: ExportedProgram, partitioners: list[Any], dynamic: bool, progress: Progress) -> bytes:
    from executorch.exir import to_edge_transform_and_lower

    with fast_lowering(program), mended_lowering(), size_agnostic_kernels(dynamic), torch.no_grad():
        progress("lowering to XNNPACK")
        edge = to_edge_transform_and_lower(program, partitioner=partitioners)
        progress("planning memory")
        return bytes(edge.to_executorch(_memory_config(edge.exported_program())).buffer)


def _memory_config(program: ExportedProgram) -> Any:
    """Buffers that the model changes begin as they are; ExecuTorch leaves them uninitialised by itself."""
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass

    signature = program.graph_signature
    changed = set(signature.buffers_to_mutate.values())
    names = [name for name, buffer in signature.inputs_to_buffers.items() if buffer in changed]
    return ExecutorchBackendConfig(passes=[InitializedMutableBufferPass(names)]) if names else None


def _program(model: OptimizedModel) -> ExportedProgram:
    if model.kind == "half":
        return cast_to_half(model.capture)
    if model.precision == "int4-dynamic":
        graph = model.capture.program.module()
        pack_linear(graph, model.weight_group)
        pack_embeddings(graph)
        return recapture(model.capture, graph)
    if model.kind == "format":
        return _quantized(model.capture, prepare_dynamic(model.capture))
    if model.prepared is not None:
        return _quantized(model.capture, copy.deepcopy(model.prepared))
    return model.capture.program


def _quantized(capture: Capture, prepared: torch.fx.GraphModule) -> ExportedProgram:
    """The program that a prepared graph computes in int8, tables of embeddings too.

    Each layer quantises what it reads at run time itself, though others read the same: XNNPACK has fast kernels only
    for the single reader of a conversion (and packs a linear layer's input in the same pass), and ExecuTorch's
    partitioner may put layers that share one into one part that others come between.
    """
    from executorch.backends.transforms.duplicate_dynamic_quant_chain import DuplicateDynamicQuantChainPass
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    quantized = convert_pt2e(prepared, fold_quantize=True)
    with compiled_once(quantized):
        DuplicateDynamicQuantChainPass()(quantized)
    pack_embeddings(quantized)
    return recapture(capture, quantized)
