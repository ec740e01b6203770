"""Where an op of a .pte comes from in the model's source: module and line, out of an ETRecord.

ExecuTorch's Inspector knows them for kernels outside delegates and for a delegate's call as a whole. Inside
XNNPACK the k-th convolution (or fully connected op) of a call is the k-th of its graph; that holds while both
sides count as many, otherwise nothing is claimed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# Start of XNNPACK's name of an op -> start of the graph node's name.
_KINDS = {
    "Convolution": ("aten_convolution",),
    "Fully Connected": ("aten_linear", "aten_addmm", "aten_mm", "aten_bmm"),
}


def source_of(event: Any, node: str | None = None) -> str | None:
    """``first (Conv2d) · net.py:15`` for an Inspector event; None where the ETRecord doesn't tell.

    Args:
        node: of an event that stands for several nodes the one that is meant; by default the last.
    """
    hierarchy = event.module_hierarchy if isinstance(event.module_hierarchy, dict) else {}
    traces = event.stack_traces if isinstance(event.stack_traces, dict) else {}
    node = node or next(reversed([*traces, *hierarchy]), None)
    parts = [_module(hierarchy.get(node)), _line(traces.get(node))]
    return " · ".join(part for part in parts if part) or None


def delegated_sources(events: Sequence[Any], call: Any) -> dict[int, str]:
    """Position in ``events`` (the ops of one delegate call, in order) -> where it comes from."""
    nodes = list(call.module_hierarchy) if isinstance(call.module_hierarchy, dict) else []
    found: dict[int, str] = {}
    for kind, starts in _KINDS.items():
        places = [i for i, event in enumerate(events) if event.name.startswith(kind)]
        wanted = [node for node in nodes if node.startswith(starts)]
        if len(places) == len(wanted):
            found |= {i: s for i, node in zip(places, wanted, strict=True) if (s := source_of(call, node))}
    return found


def _module(found: Any) -> str:
    if not isinstance(found, dict) or not found:
        return ""
    path, kind = list(found.values())[-1]
    kind = str(kind).rsplit(".", 1)[-1]
    return f"{path} ({kind})" if path else kind


def _line(trace: Any) -> str:
    frames = re.findall(r'File "([^"]+)", line (\d+)', str(trace or ""))
    # The user's line says more than the library's below it.
    own = [frame for frame in frames if "site-packages/torch/" not in frame[0]]
    if not frames:
        return ""
    file, line = (own or frames)[-1]
    return f"{file.rsplit('/', 1)[-1]}:{line}"
