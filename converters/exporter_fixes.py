"""Mends faults of the exporters while they run, each with what they would do otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch


@contextmanager
def mended_layouts() -> Iterator[None]:
    """Let LiteRT's exporter choose layouts without its known fault while the block runs."""
    from litert_torch._convert.fx_passes import OptimizeLayoutTransposesPass as Layouts

    insert = Layouts.insert_t_q_dq

    def insert_t_q_dq(self: Any, graph: torch.fx.Graph, input_dq: torch.fx.Node, *others: Any) -> Any:
        """Where it turns a dequantised value for one operator, it overwrites the mark that the value is in NHWC: the
        next operator to read it gets it unturned, rows for channels."""
        marks = input_dq.meta
        try:
            return insert(self, graph, input_dq, *others)
        finally:
            input_dq.meta = marks

    with patch.object(Layouts, "insert_t_q_dq", insert_t_q_dq):
        yield


@contextmanager
def mended_lowering() -> Iterator[None]:
    """Lower with ExecuTorch without its known faults while the block runs."""
    from executorch.backends.xnnpack._passes import channels_last_tagged_reshape_pass as module

    layout = module.ChannelsLastTaggedReshapePass
    to_nhwc, to_nchw = layout.input_to_nhwc, layout.input_to_nchw

    def turn(
        self: Any, node: torch.fx.Node, target: torch.fx.Node, memory_format: torch.memory_format
    ) -> bool:
        """Turn what is quantised at run time before it is quantised; False where nothing is."""
        source = _computed_source(node) if module.is_dynamic_qdq(node) else None
        if source is None:
            return False
        turned = source.meta.get(layout.PARTNER_NODE)
        if turned is None:
            with node.graph.inserting_after(source):
                turned = self.create_call_function_node(
                    node.graph.owning_module,
                    module.exir_ops.edge.aten._to_copy.default,
                    (source,),
                    memory_format,
                )
            last = memory_format is torch.channels_last
            (layout.mark_as_nhwc_node if last else layout.mark_as_nchw_node)(turned)
            self.make_partners(source, turned)
        target.replace_input_with(node, _quantised_again(node, source, turned))
        _erase_unread(node)
        return True

    def input_to_nhwc(self: Any, graph_module: Any, node: torch.fx.Node, target: torch.fx.Node) -> None:
        """To bring the input of a convolution that is quantised at run time into NHWC, ExecuTorch goes up from it
        to the first operand of the first operand and so on, past its source, and turns whatever it finds there:
        a tensor that may have another rank, or be read by others in NCHW."""
        if layout.is_nhwc_node(node) or not turn(self, node, target, torch.channels_last):
            to_nhwc(self, graph_module, node, target)

    def input_to_nchw(self: Any, graph_module: Any, node: torch.fx.Node, target: torch.fx.Node) -> None:
        """Behind a convolution, ExecuTorch turns the input of a linear layer between its quantisation at run time and
        the layer, which then isn't quantised any more."""
        if not layout.is_nhwc_node(node) or not turn(self, node, target, torch.contiguous_format):
            to_nchw(self, graph_module, node, target)

    with (
        patch.object(layout, "input_to_nhwc", input_to_nhwc),
        patch.object(layout, "input_to_nchw", input_to_nchw),
        patch.object(layout, "is_nhwc_node", _of_any_rank(layout.is_nhwc_node, False)),
        patch.object(layout, "is_nchw_node", _of_any_rank(layout.is_nchw_node, True)),
    ):
        yield


def _of_any_rank(asked: Callable[[torch.fx.Node], bool], answer: bool) -> Any:
    """ExecuTorch asks the first row of a quantised input for its layout: for a single number, which has none, the
    answer is given here."""

    def state(node: torch.fx.Node) -> bool:
        value = node.meta.get("val")
        return answer if isinstance(value, torch.Tensor) and value.ndim == 0 else asked(node)

    return staticmethod(state)


def _computed_source(dequantize: torch.fx.Node) -> torch.fx.Node | None:
    """What is quantised, when an operator of the same delegate computes it."""
    quantize = dequantize.args[0]
    source = quantize.args[0] if isinstance(quantize, torch.fx.Node) and quantize.args else None
    return source if isinstance(source, torch.fx.Node) and source.op == "call_function" else None


def _quantised_again(
    dequantize: torch.fx.Node, source: torch.fx.Node, turned: torch.fx.Node
) -> torch.fx.Node:
    """The chain from ``source`` to ``dequantize`` once more, from ``turned``: others may read the first one."""
    chain: list[torch.fx.Node] = []

    def collect(node: torch.fx.Node) -> None:
        for operand in node.all_input_nodes:
            if operand is not source and operand not in chain:
                collect(operand)
        chain.append(node)

    collect(dequantize)
    copies = {source: turned}
    with dequantize.graph.inserting_before(dequantize):
        for node in chain:
            copies[node] = dequantize.graph.node_copy(node, lambda operand: copies[operand])
    return copies[dequantize]


def _erase_unread(node: torch.fx.Node) -> None:
    if not node.users and node.op == "call_function":
        operands = node.all_input_nodes
        node.graph.erase_node(node)
        for operand in operands:
            _erase_unread(operand)
