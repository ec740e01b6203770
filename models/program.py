"""The one capture of a model (torch.export), which every format and precision starts from."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from ..errors import InputError
from .findings import Finding
from .resolve import brief
from .source import SourceModel
from .tensors import FlatModel


@dataclass(frozen=True)
class Capture:
    """A captured model.

    Attributes:
        program: the graph of ATen operators with its weights.
        source: the model it was captured from.
        dynamic_shapes: what was given to torch.export, for captures of rewritten graphs.
        findings: what was noticed on the way.
    """

    program: ExportedProgram
    source: SourceModel
    dynamic_shapes: dict[str, tuple[dict[int, Dim] | None, ...]] | None = None
    findings: tuple[Finding, ...] = field(default_factory=tuple)

    @property
    def op_count(self) -> int:
        """Operators in the captured graph."""
        return sum(node.op == "call_function" for node in self.program.graph.nodes)


class CaptureFailed(InputError):
    """The model can't be captured; ``finding`` says where and what to do."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.sentence())
        self.finding = finding


def capture(source: SourceModel) -> Capture:
    """Capture ``source`` with torch.export.

    Raises:
        CaptureFailed: data-dependent control flow or an operator torch.export can't follow.
    """
    if isinstance(source.module.model, torch.jit.ScriptModule):
        return Capture(_capture_script(source), source)
    dynamic_shapes = _dynamic_shapes(source)
    try:
        # When it fails, torch.export prints the graph it had so far.
        with torch.no_grad(), size_agnostic_kernels(bool(dynamic_shapes)), redirect_stderr(io.StringIO()):
            program = torch.export.export(
                source.module, source.example, dynamic_shapes=dynamic_shapes, strict=False
            )
    except Exception as error:
        raise CaptureFailed(_explain(error)) from error
    return Capture(program, source, dynamic_shapes)


def recapture(capture: Capture, module: torch.nn.Module) -> ExportedProgram:
    """Capture a rewritten form of ``capture`` with the same inputs and dynamic dimensions."""
    shapes = capture.dynamic_shapes
    with torch.no_grad(), size_agnostic_kernels(bool(shapes)):
        dynamic = (tuple(shapes["tensors"]),) if shapes else None
        try:
            return torch.export.export(module, capture.source.example, dynamic_shapes=dynamic, strict=False)
        except torch._dynamo.exc.UserError:
            # The unlifted module may list its inputs one by one instead of as *tensors.
            flat = tuple(shapes["tensors"]) if shapes else None
            return torch.export.export(module, capture.source.example, dynamic_shapes=flat, strict=False)


@contextmanager
def size_agnostic_kernels(active: bool) -> Iterator[None]:
    """While active, convolutions choose no kernel by batch size.

    With NNPACK or oneDNN on, torch.export specialises a stride-1 convolution to the batch sizes for which
    it would pick that kernel, which silently caps a dynamic batch at 15.
    """
    if not active:
        yield
        return
    with torch.backends.nnpack.flags(enabled=False), torch.backends.mkldnn.flags(enabled=False):
        yield


# Frames of this package that a model's operators pass through.
_OWN = ("/models/tensors.py", "/models/float32.py", "/converters/half.py")


def module_path(node: torch.fx.Node) -> str | None:
    """The path of the user's module that ``node`` came from, e.g. ``backbone.3.conv``."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values() if isinstance(entry, tuple)]
    if not paths:
        return None
    return re.sub(r"^(L\['self'\]\.)?model\.?", "", paths[-1]) or None


def source_line(node: torch.fx.Node) -> str | None:
    """``file.py:12`` of the user's code that ``node`` came from."""
    found = None
    for match in re.finditer(r'File "([^"]+)", line (\d+)', str(node.meta.get("stack_trace") or "")):
        path = match[1]
        if "/torch/" not in path and not path.startswith("<") and not path.endswith(_OWN):
            found = f"{Path(path).name}:{match[2]}"
    return found


def _dynamic_shapes(source: SourceModel) -> dict[str, tuple[dict[int, Dim] | None, ...]] | None:
    if not source.dynamic:
        return None
    dims: dict[str, Dim] = {}
    for dim in source.dynamic.values():
        dims.setdefault(dim.name, Dim(dim.name, min=dim.low, max=dim.high))
    per_input: list[dict[int, Dim] | None] = []
    for index in range(len(source.example)):
        axes = {axis: dims[dim.name] for (i, axis), dim in source.dynamic.items() if i == index}
        per_input.append(axes or None)
    return {"tensors": tuple(per_input)}


def _capture_script(source: SourceModel) -> ExportedProgram:
    from torch._export.converter import TS2EPConverter

    if source.dynamic:
        raise InputError(
            "dynamic dimensions need the Python code of the model: a TorchScript file has fixed shapes."
        )
    args, kwargs = source.module._signature.arguments(source.example)
    try:
        converted = TS2EPConverter(source.module.model, args, kwargs).convert()
        # Captured once more: the converter's own program lacks what LiteRT's exporter looks up in it.
        flat = FlatModel(converted.module(), source.module._signature)
        return torch.export.export(flat, source.example, strict=False)
    except Exception as error:
        raise CaptureFailed(
            Finding(
                "error",
                f"this TorchScript file can't be captured: {brief(error)}",
                suggestion="give the Python code of the model and its weights instead",
            )
        ) from error


_CAUSES = (
    (
        r"data-dependent|GuardOnDataDependent|unbacked|Dynamic control flow|bool\(\) on|__bool__|Boolean value",
        "the model's control flow depends on its data",
        "replace the if by torch.where (a while by a fixed number of steps), or use torch.cond; take .item() and .tolist() out of forward",
    ),
    (
        r"Constraints violated|specialized|not marked as dynamic|ConstraintViolation",
        "a dimension that was declared dynamic is fixed by the model's code",
        "make it static, or remove the code that reads its size as a number",
    ),
    (
        r"quantized\.\w*PackedParams|quantized::",
        "the model is quantised already, by PyTorch's eager mode",
        "give the float model: edgeopt quantises it for each format",
    ),
    (
        r"\.numpy\(\) is not supported|from_numpy|numpy\.ndarray",
        "forward leaves PyTorch for NumPy, where nothing can be captured",
        "write that part with PyTorch's operators, or take it out of forward",
    ),
    (r"mutat|in-place|alias", "forward changes an input or a constant in place", "work on a copy (clone())"),
)


def _explain(error: Exception) -> Finding:
    text = f"{type(error).__name__}: {error}"
    place = None
    for match in re.finditer(r'File "([^"]+)", line (\d+), in forward', text):
        if "/torch/" not in match[1] and not match[1].endswith(_OWN):
            place = f"{Path(match[1]).name}:{match[2]}"
    if place is None and "(" in brief(error):
        found = re.search(r"\((\S+\.py:\d+)\)$", brief(error))
        place = found[1] if found else None
    said = brief(error).removesuffix(f" ({place})")
    for pattern, message, suggestion in _CAUSES:
        if re.search(pattern, text):
            return Finding("error", message, source=place, suggestion=suggestion)
    return Finding("error", f"torch.export can't capture the model: {said}", source=place)
