"""Turns what an exporter throws into one finding: the operator, the user's module, the line, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch.export import ExportedProgram

from ..errors import EdgeoptError
from ..models.findings import Finding
from ..models.program import module_path, source_line

# What the exporters say -> what it means and what helps.
_KNOWN = (
    (r"complex(64|128)?|torch\.complex|view_as_complex|view_as_real", "complex numbers have no place in the format",
     "keep the real and imaginary parts in separate tensors"),
    (r"Lowering not found: ([\w.:]+)", "LiteRT's converter has no lowering for {0}",
     "replace it by other operators, or use the .pte"),
    (r"Missing out variants: \{([^}]*)\}", "ExecuTorch has no kernel for {0}",
     "replace it by other operators, or use the .tflite"),
    (r"missing operator|Operator .* not (?:found|registered)|MISSING_OPERATOR|error: 0x14",
     "the ExecuTorch runtime has no kernel for an operator of the file", "replace the operator, or use the .tflite"),
    (r"data-dependent|unbacked|GuardOnDataDependent", "the shape of a tensor depends on its data",
     "make the output a fixed size (for example topk instead of nonzero)"),
    (r"JitTracer|Shapes must be 1D sequences of concrete values",
     "LiteRT's converter can't follow a reshape of a dynamic dimension", "export the .tflite with static shapes"),
    (r"torch\.?(float64|double)|f64", "float64 isn't supported by the format", "use float32"),
)  # fmt: skip


def explain(error: BaseException, output_format: str, program: ExportedProgram | None) -> Finding:
    """The finding that an exporter's exception amounts to.

    Args:
        program: the captured program, in which the operator is looked up.
    """
    if isinstance(error, EdgeoptError):
        return Finding("error", str(error).rstrip("."), format=output_format)
    text = "\n".join(str(part) for part in _chain(error))
    node = _find_node(text, program)
    place = {
        "op": str(node.target) if node is not None else None,
        "module": module_path(node) if node is not None else None,
        "source": source_line(node) if node is not None else None,
    }
    for pattern, message, suggestion in _KNOWN:
        match = re.search(pattern, text)
        if match:
            filled = message.format(*match.groups())
            return Finding("error", filled, format=output_format, suggestion=suggestion, **place)
    first = _first_line(error)
    what = (
        f"the exporter failed: {type(error).__name__}: {first}"
        if first
        else f"the exporter failed with {type(error).__name__}"
    )
    suggestion = (
        "run with --verbose for its own words"
        if node is None
        else "rewrite this part, or use the other format"
    )
    return Finding("error", what, format=output_format, suggestion=suggestion, **place)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _first_line(error: BaseException) -> str:
    for part in _chain(error):
        lines = [line.strip() for line in str(part).splitlines() if line.strip()]
        if lines:
            return lines[0][:200].rstrip(".")
    return ""


def _find_node(text: str, program: ExportedProgram | None) -> torch.fx.Node | None:
    """The captured node that an exporter's message talks about, by name, else by operator."""
    if program is None:
        return None
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    by_name = {node.name: node for node in nodes}
    for match in re.finditer(r"%(\w+)\s*(?::[^=]*)?= call_function", text):
        name = match[1]
        # Passes number the copies they make: conv2d_default_3 came from conv2d_3.
        for candidate in (name, re.sub(r"_(default|tensor|int|dim)(?=_|$)", "", name)):
            if candidate in by_name:
                return by_name[candidate]
    for match in re.finditer(r"(?:aten|torch\.ops\.aten)[.:]+(\w+)", text):
        for node in nodes:
            if match[1] in str(node.target):
                return node
    return None
