"""Weights of a captured program in few bits, as ExecuTorch's kernels take them.

Linear layers: int4 in groups with activations quantised at run time (torchao's ``8da4w``), which XNNPACK computes.
Embeddings: int8 with a scale a row, by ExecuTorch's own kernel; without it a language model's largest tensor would
stay in float.
"""

from __future__ import annotations

from typing import Any

import torch

_ATEN = torch.ops.aten
_INT8_MAX = 127


def pack_linear(graph: torch.fx.GraphModule, group: int) -> int:
    """Give each linear layer whose rows divide into groups int4 weights, in place; returns how many."""
    changed = 0
    for node in graph.graph.find_nodes(op="call_function", target=_ATEN.linear.default):
        source = node.args[1]
        weight = _constant(graph, source)
        if weight is None or weight.ndim != 2 or weight.shape[1] % (group or 1):
            continue
        if not hasattr(weight, "qdata"):
            packed = torch.nn.Parameter(_int4(weight, group or weight.shape[1]), requires_grad=False)
            _set(graph, source.target, packed)
        # torchao's weights answer to the Python function, not to the operator that it was captured as.
        node.target = torch.nn.functional.linear
        changed += 1
    graph.recompile()
    return changed


def pack_embeddings(graph: torch.fx.GraphModule) -> int:
    """Give each embedding an int8 table with a scale a row, in place; returns how many."""
    import executorch.kernels.quantized  # noqa: F401 - registers the operator for the runtime of this process
    from executorch.exir.passes import _quant_patterns_and_replacements  # noqa: F401 - registers the operator

    changed = 0
    for node in graph.graph.find_nodes(op="call_function", target=_ATEN.embedding.default):
        source = node.args[0]
        table = _constant(graph, source)
        # A table that is also a layer's weight must stay for that.
        if table is None or any(user.target is not _ATEN.embedding.default for user in source.users):
            continue
        values, scales = int8_rows(table)
        names = (f"_int8_table_{changed}", f"_int8_scales_{changed}")
        for name, value in zip(names, (values, scales), strict=True):
            graph.register_buffer(name, value)
        with graph.graph.inserting_before(node):
            parts = [graph.graph.get_attr(name) for name in names]
            packed = graph.graph.call_function(
                torch.ops.quantized_decomposed.embedding_byte.default,
                (*parts, None, -_INT8_MAX - 1, _INT8_MAX, node.args[1]),
            )
        packed.meta.update(node.meta)
        node.replace_all_uses_with(packed)
        graph.graph.erase_node(node)
        changed += 1
    if changed:
        graph.graph.eliminate_dead_code()
        graph.delete_all_unused_submodules()
        graph.recompile()
    return changed


def int8_rows(table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 values, scales): q = round(w / s) with s = max|w| / 127 of each row."""
    weight = table.detach().float()
    scales = (weight.abs().amax(1) / _INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    return (weight / scales[:, None]).round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8), scales


def _int4(weight: torch.Tensor, group: int) -> torch.Tensor:
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(weight.detach().clone())
    quantize_(layer, Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(group)))
    packed: torch.Tensor = layer.weight
    return packed


def _constant(graph: torch.fx.GraphModule, node: Any) -> torch.Tensor | None:
    if not isinstance(node, torch.fx.Node) or node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, torch.Tensor) else None


def _set(graph: torch.fx.GraphModule, target: Any, value: torch.nn.Parameter) -> None:
    path, _, name = str(target).rpartition(".")
    setattr(graph.get_submodule(path) if path else graph, name, value)
