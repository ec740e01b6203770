"""What can be said about a captured model in a second, before any exporter is started."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import torch

from ..models.findings import Finding
from ..models.nodes import argument_of, draws
from ..models.program import Capture, module_path, source_line
from ..models.state import changed_buffers, written_root
from ..models.workload import workload

# CPU seconds of conversion for each step of each recurrent layer and direction, which the exporters unroll.
# Measured on an x86 server core with LSTM(16, 32), float32: .pte 3.7 / 8.3 / 18.4 s for 4 / 16 / 32 steps and 20.6 s
# for two layers of 16; .tflite 3.4 / 3.2 / 5.1 / 5.3 s, 16.4 s for 96 steps.
_PTE_S_PER_STEP = 0.6
_TFLITE_S_PER_STEP = 0.15
_LONG_S = 60.0


def preflight(capture: Capture, formats: Sequence[str]) -> list[Finding]:
    """Problems of the model that are known to stop or to spoil a format, each with its place."""
    findings = [*capture.source.findings, *capture.findings]
    findings += _dedupe(_node_findings(capture))
    findings += _random_findings(capture)
    findings += _state_findings(capture, formats)
    findings += _recurrent_findings(capture, formats)
    if "tflite" in formats:
        findings += _no_operations(capture)
        findings += _narrowed_io(capture)
    return findings


def blocked_formats(findings: Sequence[Finding], formats: Sequence[str]) -> list[str]:
    """The formats that an error finding rules out."""
    return [
        name for name in formats if any(f.severity == "error" and f.format in (None, name) for f in findings)
    ]


def _node_findings(capture: Capture) -> Iterator[Finding]:
    # The rewrites that came before have said which complex operator they couldn't write as real ones.
    explained = any("complex" in f.message and f.severity == "error" for f in capture.findings)
    for node in capture.program.graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        place = _place(node)
        if node.target is torch.ops.higher_order.while_loop:
            yield Finding(
                "error",
                "neither exporter takes a while_loop",
                suggestion="write a for of as many turns as it takes at most",
                **place,
            )
        for value in _tensors(node.meta.get("val")):
            if value.dtype.is_complex and not explained:
                yield Finding(
                    "error",
                    "complex numbers have no place in either format",
                    suggestion="keep the real and imaginary parts in separate tensors",
                    **place,
                )
            elif any(_is_unbacked(size) for size in value.shape):
                yield Finding(
                    "error",
                    f"the shape of the result of {node.target} depends on its data",
                    suggestion="make it a fixed size (for example topk instead of nonzero)",
                    **place,
                )


def _place(node: torch.fx.Node) -> dict[str, str | None]:
    return {"op": str(node.target), "module": module_path(node), "source": source_line(node)}


def _random_findings(capture: Capture) -> list[Finding]:
    """The first operator that draws random numbers: no file could be compared with such a model."""
    for node in capture.program.graph.nodes:
        if node.users and draws(node):
            dropout = argument_of(node, "train", argument_of(node, "training", None)) is not None
            message = "forward draws random numbers, so its outputs are other ones each time"
            suggestion = (
                "give F.dropout training=self.training, or use nn.Dropout"
                if dropout
                else "take the noise as an input"
            )
            return [Finding("error", message, suggestion=suggestion, **_place(node))]
    return []


def _state_findings(capture: Capture, formats: Sequence[str]) -> list[Finding]:
    """Buffers that forward changes: ExecuTorch keeps them between calls, litert-torch drops the change."""
    changes = changed_buffers(capture.program)
    if not changes:
        return []
    root = written_root(changes[0])
    assert root is not None
    name = capture.program.graph_signature.inputs_to_buffers[root.name].removeprefix("model.")
    found = []
    if "tflite" in formats:
        found.append(
            Finding(
                "error",
                f"forward changes buffer {name!r}, and a .tflite keeps no state between calls",
                format="tflite",
                suggestion="take the state as an input and return it as an output",
                **_place(changes[0]),
            )
        )
    if "pte" in formats:
        message = f"forward changes buffer {name!r}: the file keeps that state from one call to the next"
        found.append(Finding("warning", message, format="pte", **_place(changes[0])))
    return found


def _no_operations(capture: Capture) -> list[Finding]:
    """A model that hands its inputs on: LiteRT's file of it is one without operations, which nothing runs."""
    if any(node.op == "call_function" for node in capture.program.graph.nodes):
        return []
    return [
        Finding(
            "error",
            "the model computes nothing, it returns what it was given, and a .tflite without operations doesn't run",
            format="tflite",
        )
    ]


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _is_unbacked(size: object) -> bool:
    if isinstance(size, int):
        return False
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(size))


def _dedupe(findings: Iterator[Finding]) -> list[Finding]:
    """The first finding of each message: what follows from one complex tensor is one problem."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.message.partition(" of aten")[0], finding)
    return list(first.values())


def _recurrent_findings(capture: Capture, formats: Sequence[str]) -> list[Finding]:
    steps = workload(capture.program).recurrent_steps
    cost = {"pte": _PTE_S_PER_STEP, "tflite": _TFLITE_S_PER_STEP}
    slow = {name: steps * cost[name] for name in formats if steps * cost[name] > _LONG_S}
    if not slow:
        return []
    times = ", ".join(f".{name} about {_duration(seconds)}" for name, seconds in slow.items())
    return [
        Finding(
            "warning",
            f"both exporters unroll recurrent layers, and {steps} steps make a large graph ({times})",
            suggestion="export a few steps a call, with the state as input and output",
        )
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _narrowed_io(capture: Capture) -> list[Finding]:
    wide = [
        info.name
        for info in (*capture.source.inputs, *capture.source.outputs)
        if info.dtype in ("int64", "float64")
    ]
    if not wide:
        return []
    become = "becomes" if len(wide) == 1 else "become"
    message = f"{', '.join(wide)} {become} 32-bit in the file (LiteRT keeps no 64-bit inputs or outputs)"
    return [Finding("note", message, format="tflite")]
