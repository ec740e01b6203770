"""Makes a .tflite file of a float or PT2E int8 program with litert-torch; `tflite_quantizer` does the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ..errors import EdgeoptError
from ..models.findings import Finding
from ..models.program import Capture, module_path, recapture
from ..models.source import SourceModel
from ..optimizers.passes import OptimizedModel
from .computed_weights import use_products
from .dynamic_tflite import merge_sizes, spread_by_adding
from .exporter_fixes import mended_layouts
from .exporter_speedups import fast_decompositions
from .finite_masks import use_finite_masks
from .float_io import use_float_io
from .integer_transposed import fold_filters, use_integers
from .litert_scales import part_scales
from .rewrites import rewrite_program
from .tflite_quantizer import quantize_tables

Progress = Callable[[str], None]


def convert_float(capture: Capture, path: Path, progress: Progress) -> list[Finding]:
    """Write the captured program as a float32 .tflite file.

    Returns:
        What was rewritten for LiteRT.

    Raises:
        Exception: whatever litert-torch raises; ``explain`` makes a finding of it.
    """
    return _convert(capture.program, capture, path, progress, quantized=False)


def convert_static(model: OptimizedModel, path: Path, progress: Progress) -> list[Finding]:
    """Write a calibrated PT2E graph as an int8 .tflite file, the same numbers as in the .pte.

    Returns:
        What was rewritten for LiteRT.

    Raises:
        Exception: whatever litert-torch raises; ``explain`` makes a finding of it.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    if model.prepared is None:
        raise EdgeoptError("static int8 was not prepared before it was converted.")
    progress("preparing the graph")
    # LiteRT folds the weights itself; it refuses a graph in which they already are int8.
    quantized = convert_pt2e(copy.deepcopy(model.prepared), fold_quantize=False)
    notes = _convert(recapture(model.capture, quantized), model.capture, path, progress, quantized=True)
    use_float_io(path)
    use_integers(path)
    quantize_tables(path)
    return notes


def _convert(
    program: ExportedProgram, capture: Capture, path: Path, progress: Progress, *, quantized: bool
) -> list[Finding]:
    if not capture.dynamic_shapes:
        return _convert_fixed(program, capture.source, capture.source.example, path, progress, quantized)
    twin = path.with_suffix(".twin.tflite")
    try:
        notes: list[Finding] = []
        module = spread_by_adding(program).module()
        for target, example in ((path, capture.source.example), (twin, _other_size(capture.source))):
            fixed = torch.export.export(module, example, strict=False)
            notes = _convert_fixed(fixed, capture.source, example, target, progress, quantized)
        progress("making dimensions dynamic")
        merge_sizes(path, twin)
        return notes
    finally:
        twin.unlink(missing_ok=True)


def _other_size(source: SourceModel) -> tuple[torch.Tensor, ...]:
    """The example inputs with every dynamic dimension one larger, or one smaller where that is too large."""
    tensors = []
    for index, example in enumerate(source.example):
        tensor = example
        for axis in range(tensor.ndim):
            dim = source.dynamic.get((index, axis))
            if dim is not None:
                size = tensor.shape[axis]
                larger = torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
                tensor = larger if size < dim.high else tensor.narrow(axis, 0, size - 1)
        tensors.append(tensor)
    return tuple(tensors)


def _convert_fixed(
    program: ExportedProgram,
    source: SourceModel,
    example: tuple[torch.Tensor, ...],
    path: Path,
    progress: Progress,
    quantized: bool,
) -> list[Finding]:
    from litert_torch import fx_infra
    from litert_torch import model as litert_model
    from litert_torch._convert import core, litert_converter, signature
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    mode = None
    if quantized:
        # A flag only: the graph is quantised already.
        quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        mode = QuantConfig(pt2e_quantizer=quantizer)
    # litert_torch.convert() would capture the module again; these are its steps after that. Keyword inputs
    # give the file's signature the names of the model's inputs.
    named = {info.name: tensor for info, tensor in zip(source.inputs, example, strict=True)}
    entry = signature.Signature(litert_model.DEFAULT_SIGNATURE_NAME, source.module, (), named)
    program, notes = rewrite_program(program, "tflite")
    if quantized:
        program = fold_filters(program)
    with fast_decompositions(), torch.no_grad():
        fx_infra.silence_torch_logs()
        progress("decomposing the graph")
        program = fx_infra.graph_utils.reset_from_node_meta(program)
        program = fx_infra.safe_run_decompositions(
            program, fx_infra.decomp.pre_convert_decomp(), can_skip=False
        )
        with mended_layouts():
            program = core._run_convert_passes(program)
        if quantized:
            use_finite_masks(program)
            part_scales(program)
        _name_by_path(program)
        progress("lowering to LiteRT")
        exporter = litert_converter.exported_programs_to_flatbuffer([program], [entry], quant_config=mode)
        progress("writing the file")
        litert_model.LiteRTModel(exporter).export(str(path))
        use_products(path)
    return notes


def _name_by_path(program: ExportedProgram) -> None:
    """Let the file's tensors be called by the path of the user's module, ``encoder.0.linear;3``.

    litert-torch writes the class of every module on the way with its package into each tensor's name: twelve
    kilobytes of an unrolled LSTM's file, and names from inside edgeopt.
    """
    for node in program.graph_module.graph.nodes:
        if node.meta.get("nn_module_stack"):
            node.meta["nn_module_stack"] = {"": ("", module_path(node) or "model")}
