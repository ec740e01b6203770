"""Turns what an exporter throws into one finding: the operator, the user's module, the line, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ..disk import disk_trouble
from ..errors import EdgeoptError
from ..models.findings import Finding
from ..models.nodes import dtype_of
from ..models.program import module_path, source_line
from ..wording import shortened

_OTHER = {"pte": ".tflite", "tflite": ".pte"}
_CANT_WRITE = "LiteRT's converter can't write"
_REPLACE = "replace it by other operators, or use the {other}"

# What the exporters say -> what it means and what helps; checked with ExecuTorch 1.5.1 and litert-torch 0.10.0.
_KNOWN = (
    (r"\bMemoryError\b|bad_alloc|Cannot allocate memory|can't allocate memory|failed to map segment from shared object",
     "the memory is used up", "end other programs, or raise the limit (ulimit -v)"),
    (r"\bcomplex(?:64|128)\b|torch\.complex|view_as_complex|view_as_real|tensor<[^>]*complex<",
     "complex numbers have no place in the format", "keep the real and imaginary parts in separate tensors"),
    (r"Lowering not found: ([\w.:]+)", "LiteRT's converter has no lowering for {0}", _REPLACE),
    (r"Operator torch\._ops\.([\w.]+) is not in Core ATen opset", "ExecuTorch takes no {0}", _REPLACE),
    (r"Missing out variants: \{([^}]*)\}", "ExecuTorch has no kernel for {0}", _REPLACE),
    (r"Didn't find op for builtin opcode '(\w+)'", "LiteRT's runtime has no {0}, which its converter wrote", _REPLACE),
    (r"currently supported for stablehlo\.scatter",
     "LiteRT's runtime can't add into a tensor at given positions", _REPLACE),
    (r"failed to legalize operation '([\w.]+)'", f"{_CANT_WRITE} {{0}}", _REPLACE),
    (r"'(tfl\.\w+)' op operand #\d+ must be", "LiteRT's {0} doesn't take tensors of this type",
     "use float32 (or int32) there"),
    (r"missing operator|Operator .* not (?:found|registered)|MISSING_OPERATOR|0x14\b",
     "the ExecuTorch runtime has no kernel for an operator of the file", _REPLACE),
    (r"data-dependent|unbacked|GuardOnDataDependent", "the shape of a tensor depends on its data",
     "make it a fixed size (for example topk instead of nonzero)"),
    (r"boolean indices must be concrete", "LiteRT's converter takes no mask that is worked out at run time as an index",
     "use torch.where instead"),
    (r"JitTracer|Shapes must be 1D sequences of concrete values|dynamic dimension",
     "{first}", "export the .tflite with static shapes, or use the .pte"),
    (r"torch\.?(?:float64|double)|\bf64\b|xf64", "float64 isn't supported by the format", "use float32"),
    (r"bfloat16|\bbf16\b", "bfloat16 isn't supported by the format", "use float32 and --precision fp16"),
)  # fmt: skip

_NO_ARITHMETIC = ("float64", "bfloat16")

# What LiteRT's converter made of an ATen operator, for messages that know only that.
_MADE_OF = {
    "SORT": ("sort", "topk", "argsort", "msort", "kthvalue", "median"),
    "SCATTER": ("scatter", "scatter_add", "index_put", "index_put_", "index_add", "col2im", "index_copy"),
    "IOTA": ("arange", "eye", "linspace", "affine_grid_generator"),
    "CONVOLUTION": ("conv_transpose2d", "conv_transpose1d", "conv2d", "conv1d", "conv3d", "convolution"),
}


def explain(
    error: BaseException,
    output_format: str,
    program: ExportedProgram | None,
    file: Path | None = None,
    *,
    folder: Path | None = None,
) -> Finding:
    """The finding that an exporter's or a runtime's exception amounts to.

    Args:
        program: the captured program, in which the operator is looked up.
        file: the file that failed to run, in which operators without a kernel are looked up.
        folder: where the file was written.
    """
    text = "\n".join(str(part) or type(part).__name__ for part in _chain(error))
    full = disk_trouble(text, folder)
    if full is not None:
        return Finding("error", full[0], format=output_format, suggestion=full[1])
    node = _find_node(text, program)
    first = _first_line(error)
    missing = _missing_kernels(file) if file is not None and "0x14" in text else []
    if missing:
        node = _node_of(missing, program)
        message, suggestion = f"the ExecuTorch runtime has no kernel for {', '.join(missing)}", _REPLACE
    else:
        message, suggestion = _meaning(error, text, first, node)
        odd = _without_arithmetic(program) if output_format == "tflite" and _CANT_WRITE in message else None
        if odd is not None:
            node, message, suggestion = (
                odd,
                f"LiteRT has no arithmetic in {dtype_of(odd)}",
                "use float32 there",
            )
    return Finding(
        "error",
        message,
        format=output_format,
        op=str(node.target) if node is not None else None,
        module=module_path(node) if node is not None else None,
        source=source_line(node) if node is not None else None,
        suggestion=suggestion.format(other=_OTHER.get(output_format, "other format")) or None,
    )


def _meaning(error: BaseException, text: str, first: str, node: torch.fx.Node | None) -> tuple[str, str]:
    """(message, suggestion) for an exception."""
    for pattern, message, suggestion in _KNOWN:
        match = re.search(pattern, text)
        if match:
            return message.format(*match.groups(), first=first), suggestion
    if isinstance(error, EdgeoptError):
        return first, ""
    what = f"{type(error).__name__}: {first}" if first else type(error).__name__
    hint = "run with --verbose for its own words" if node is None else "rewrite this part, or use the {other}"
    return f"the exporter failed: {what}", hint


def _without_arithmetic(program: ExportedProgram | None) -> torch.fx.Node | None:
    """The first operator whose result is of a type that LiteRT computes nothing in."""
    nodes = program.graph.nodes if program is not None else ()
    return next((n for n in nodes if n.op == "call_function" and dtype_of(n) in _NO_ARITHMETIC), None)


def _missing_kernels(file: Path) -> list[str]:
    """The operators of a .pte that the runtime here has no kernel for."""
    from executorch.runtime import Runtime

    from .file_report import inspect_file

    try:
        wanted = inspect_file(file).left_behind
        names = Runtime.get().operator_registry.operator_names
    except Exception:
        return []
    known = {name.split("::")[-1].split(".")[0] for name in names}
    return [op for op in wanted if "::" not in op and op not in known]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _first_line(error: BaseException) -> str:
    """The first line that says something, without the folders of this machine."""
    for part in _chain(error):
        lines = [line.strip() for line in str(part).splitlines() if line.strip()]
        if lines:
            return shortened(re.sub(r"(?<![\w.])/(?:[^\s/:']+/)+", "", lines[0])).rstrip(".")
    return ""


def _find_node(text: str, program: ExportedProgram | None) -> torch.fx.Node | None:
    """The node that a message talks about: by name, by a line of code, else by operator.

    An operator that only appears once composite operators are taken apart is looked up there.
    """
    if program is None:
        return None
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    by_name = {node.name: node for node in nodes}
    for match in re.finditer(r"%(\w+)\s*(?::[^\n]*?)?= call_function", text):
        name = match[1]
        # Passes number the copies they make: conv2d_default_3 came from conv2d_3.
        for candidate in (name, re.sub(r"_(default|tensor|int|dim)(?=_|$)", "", name)):
            if candidate in by_name:
                return by_name[candidate]
    for match in re.finditer(r"(/[^\s:\"]+\.py):(\d+):\d+: error", text):
        for node in nodes:
            if f'File "{match[1]}", line {match[2]}' in str(node.meta.get("stack_trace")):
                return node
    names = re.findall(r"aten(?:::|\.)(\w+)", text)
    for made in re.findall(r"STABLEHLO_(\w+)|(?:stablehlo|mhlo)\.(\w+)", text):
        names += _MADE_OF.get("".join(made).upper(), ())
    return _node_of(names, program)


def _node_of(names: Sequence[str], program: ExportedProgram | None) -> torch.fx.Node | None:
    if program is None or not names:
        return None
    found = _first_call(names, program)
    if found is not None:
        return found
    try:
        return _first_call(names, program.run_decompositions())
    except Exception:
        return None


def _first_call(names: Sequence[str], program: ExportedProgram) -> torch.fx.Node | None:
    for name in names:
        for node in program.graph.nodes:
            base = str(node.target).removeprefix("aten.").split(".")[0]
            same = base.strip("_") == name.strip("_") or base.endswith(f"_{name}")
            if node.op == "call_function" and same:
                return node
    return None
