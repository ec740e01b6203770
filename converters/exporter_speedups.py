"""Takes work out of ExecuTorch's lowering that no one reads the result of.

Measured on MobileNetV2-224 (CPU seconds of to_edge_transform_and_lower; benchmarks/export_time.py): see
docs/decisions/0003-export-speed.md. Both changes are undone when the block ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch.export import ExportedProgram


@contextmanager
def fast_lowering(program: ExportedProgram) -> Iterator[None]:
    """Lower ``program`` faster, to the same file, while the block runs."""
    with ExitStack() as stack:
        stack.enter_context(_shared_provenance())
        for change in _skipped_patterns(program):
            stack.enter_context(change)
        yield


@contextmanager
def _shared_provenance() -> Iterator[None]:
    """Each of some sixty passes deep-copies every node's provenance records, which are never changed."""
    from torch.fx.traceback import NodeSource

    def share(self: Any, memo: dict[int, Any]) -> Any:
        return self

    NodeSource.__deepcopy__ = share  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]


def _skipped_patterns(program: ExportedProgram) -> Iterator[Any]:
    """XNNPACK builds the graphs of bilinear resizing and of attention to look for them in every model.

    Both are recognised by operators that a captured graph either has or hasn't.
    """
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    if not any("upsample" in name or "interpolate" in name or "index" in name for name in names):
        yield patch("executorch.backends.xnnpack.partition.graphs.bilinear_2d.get_graphs_dict", lambda: {})
    if not any("softmax" in name or "scaled_dot_product" in name for name in names):
        yield patch("executorch.backends.xnnpack.partition.graphs.sdpa.get_graphs", lambda: [])
