"""Takes work out of the exporters' conversions that no one reads the result of.

Measured: see docs/decisions/0003-export-speed.md. All changes are undone when the block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._C import DispatchKey
from torch.export import ExportedProgram


@contextmanager
def fast_lowering(program: ExportedProgram) -> Iterator[None]:
    """Lower ``program`` faster, to the same file, while the block runs."""
    with ExitStack() as stack:
        stack.enter_context(fast_decompositions())
        stack.enter_context(_shared_provenance())
        for change in _skipped_patterns(program):
            stack.enter_context(change)
        yield


@contextmanager
def fast_decompositions() -> Iterator[None]:
    """Decompose graphs faster, to the same graphs, while the block runs: each conversion does it three times.

    For every decomposition torch asks its dispatcher for all composite operators, once for each of some forty
    namespaces, though the answer is about all of them; and it registers some twelve thousand kernels, each by a
    function whose annotations are built anew.
    """
    from torch._export import utils
    from torch._ops import OperatorBase

    collect, materialize, register = (
        utils._collect_all_valid_cia_ops, utils._materialize_cpp_cia_ops, OperatorBase.py_impl,
    )  # fmt: skip

    def collect_once() -> Any:
        materialize()
        with patch.object(utils, "_materialize_cpp_cia_ops", lambda: None):
            return collect()

    def py_impl(self: OperatorBase, key: Any) -> Callable[[Any], Any]:
        if not isinstance(key, DispatchKey) or key == DispatchKey.Python:
            return register(self, key)

        def inner(kernel: Any) -> Any:
            if key in self.py_kernels:
                return register(self, key)(kernel)
            self.py_kernels[key] = kernel
            self._dispatch_cache.clear()
            return kernel

        return inner

    # These two modules hold the function by a name of their own.
    users = ("torch.export.exported_program", "torch.export.decomp_utils")
    with ExitStack() as stack:
        for user in users:
            stack.enter_context(patch(f"{user}._collect_all_valid_cia_ops", collect_once))
        stack.enter_context(patch.object(OperatorBase, "py_impl", py_impl))
        yield


@contextmanager
def compiled_once(graph: torch.fx.GraphModule) -> Iterator[None]:
    """Passes that change ``graph`` again and again make its code anew when the block ends, not after every change."""
    with patch.object(graph, "recompile", lambda: None):
        yield
    graph.recompile()


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
