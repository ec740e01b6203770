"""What a captured program will need of memory, before any file of it exists."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from ..cost_model.memory import MemoryFacts, peak_bytes
from ..cost_model.shapes import Shape
from .kernels import CLAMPS, FREE
from .nodes import dtype_of, op_name
from .workload import node_shape


def program_memory(program: ExportedProgram) -> MemoryFacts:
    """What a float32 file of ``program`` would need of memory."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    numbers = {node: index for index, node in enumerate(program.graph.nodes)}
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    signature = program.graph_signature
    given = {spec.arg.name for spec in signature.input_specs if spec.kind.name == "USER_INPUT"}

    def storage(node: torch.fx.Node) -> torch.fx.Node:
        viewed = node.op == "call_function" and (
            op_name(node) in FREE or op_name(node) in (*CLAMPS, "batch_norm")
        )
        return storage(node.all_input_nodes[0]) if viewed and node.all_input_nodes else node

    steps = [
        ([numbers[storage(each)] for each in node.all_input_nodes], [numbers[storage(node)]])
        for node in nodes
    ]
    own = [node for node in (*nodes, *inputs) if storage(node) is node and (node.op != "placeholder" or node.name in given)]  # fmt: skip
    sizes = {
        numbers[node]: Shape.of(node_shape(node), dtype_of(node)).bytes for node in own if node_shape(node)
    }
    output = next(node for node in program.graph.nodes if node.op == "output")
    ends = [numbers[storage(node)] for node in output.all_input_nodes]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    arena = peak_bytes(steps, sizes, [numbers[node] for node in inputs], ends)
    leaving = [node for node in inputs if node.name in given] + output.all_input_nodes
    io = sum(Shape.of(node_shape(node), dtype_of(node)).bytes for node in leaving)
    return MemoryFacts(weights, weights, arena, io_bytes=int(io))
