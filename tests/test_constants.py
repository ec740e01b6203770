"""What rewrites work out once, and whose constants stay whose."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812 - everyone's name for it
from rewritten import ODD, Function, assert_equal, captured, operators
from torch import nn

from edgeopt.converters.dynamic_tflite import spread_by_adding
from edgeopt.converters.executorch import _quantized
from edgeopt.converters.rewrites import rewrite_capture, rewrite_program
from edgeopt.converters.rewriting import add_constant, copy_program, fold_constants
from edgeopt.optimizers.quantization import prepare_dynamic


def test_constants_are_worked_out_once() -> None:
    before = captured(Function(lambda x: x + torch.arange(4).float() * 2 + torch.eye(4)), torch.randn(4, 4))
    program = rewrite_capture(before).program
    assert operators(program) == {"aten.add.Tensor"}
    assert_equal(before, program)


def test_what_is_written_later_or_random_or_large_is_not_a_constant() -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(2, 4)
        out[0] = x
        return out + 1

    before = captured(Function(written), torch.randn(4))
    program = rewrite_capture(before).program
    assert_equal(before, program)
    assert "aten.zeros.default" in operators(program)

    noisy = captured(Function(lambda x: x + torch.randn(4)), torch.randn(4))
    assert "aten.randn.default" in operators(rewrite_capture(noisy).program)

    large = copy_program(captured(Function(lambda x: x + torch.ones(64, 64)), torch.randn(64, 64)).program)
    assert fold_constants(large, max_bytes=1024) == 0
    assert fold_constants(large, max_bytes=64 * 64 * 4) == 1


def test_attention_and_dropout_of_constants_are_worked_out_where_they_draw_nothing() -> None:
    """What may draw random numbers was left, though its arguments say that it doesn't: a detector's first queries."""

    def queries(x: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(32.0).reshape(1, 1, 8, 4) / 32
        return x + F.dropout(F.scaled_dot_product_attention(rows, rows, rows), 0.1, training=False)

    before = captured(Function(queries), torch.randn(1, 1, 8, 4))
    program = rewrite_capture(before).program
    assert operators(program) == {"aten.add.Tensor"}
    assert_equal(before, program)

    noisy = captured(Function(lambda x: x + F.dropout(torch.ones(4), 0.5, training=True)), torch.randn(4))
    assert "aten.dropout.default" in operators(rewrite_capture(noisy).program)


def test_what_weights_are_computed_from_is_worked_out_once_and_views_are_left() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.place = nn.Embedding(50, 16), nn.Embedding(20, 16)
            self.token, self.filters = (
                nn.Parameter(torch.randn(1, 1, 16)),
                nn.Parameter(torch.randn(4, 16, 1)),
            )

        def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.table(ids) + self.place(torch.arange(8))
            x = torch.cat([self.token.expand(1, -1, -1), x], 1)
            filters = self.filters / self.filters.norm(dim=1, keepdim=True)
            return x @ self.table.weight.t(), F.conv1d(x.transpose(1, 2), filters) + self.token.repeat(
                1, 4, 16
            )[:, :, :9]

    before = captured(Model(), torch.arange(8)[None])
    program = rewrite_capture(before).program
    assert_equal(before, program)
    nodes = {node.name: node for node in program.graph.nodes}
    names = program.graph_signature.inputs_to_parameters
    (convolution,) = [n for n in nodes.values() if str(n.target) == "aten.conv1d.default"]
    assert convolution.args[1].name.startswith("rewrite_constant")
    # The table that is also the last layer stays one, and what is only spread is not stored spread.
    left = {str(node.target) for node in nodes.values() if node.op == "call_function"}
    assert {"aten.expand.default", "aten.repeat.default"} <= left
    (last,) = [n for n in nodes.values() if str(n.target) == "aten.linear.default"]
    assert names[last.args[1].name].endswith("table.weight")
    assert "aten.linalg_vector_norm.default" not in left
    place = next(nodes[name] for name, parameter in names.items() if parameter.endswith("place.weight"))
    assert not place.users


def test_the_slices_of_a_volume_convolution_are_weights_of_their_own() -> None:
    odd = ODD["conv3d"]
    program, _ = rewrite_program(captured(odd.model(), odd.example()).program, "pte")
    found = [node for node in program.graph.nodes if str(node.target) == "aten.conv2d.default"]
    assert found and all(node.args[1].op == "placeholder" for node in found)


def test_an_output_that_is_a_weight_gets_a_constant_of_its_own() -> None:
    odd = ODD["odd_outputs"]
    before = captured(odd.model(), odd.example())
    program = rewrite_capture(before).program
    weights = set(program.graph_signature.inputs_to_parameters)
    assert not weights & {node.name for node in program.graph.output_node().all_input_nodes}
    assert_equal(before, program)


def test_a_repeated_constant_takes_the_size_of_the_input() -> None:
    odd = ODD["dynamic_batch_expand"]
    before = captured(odd.model(), odd.example(), dynamic_batch=True)
    program = spread_by_adding(before.program)
    assert "aten.expand.default" not in operators(program) or "aten.clamp.default" in operators(program)
    for batch in (1, 3, 7):
        x = torch.randn(batch, 8)
        (wanted,), (found,) = before.program.module()(x).values(), program.module()(x).values()
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_numbers_keep_their_rank_only_where_it_matters() -> None:
    flat = captured(Function(lambda x: F.relu(x) / 6), torch.randn(2, 8))
    assert rewrite_program(flat.program, "pte int8")[0] is flat.program
    image = captured(Function(lambda x: F.relu(x) / 6 + 0.5), torch.randn(1, 2, 4, 4))
    program, _ = rewrite_program(image.program, "pte int8")
    assert all(
        isinstance(argument, torch.fx.Node)
        for node in program.graph.nodes
        if str(node.target) in ("aten.div.Tensor", "aten.add.Tensor")
        for argument in node.args
    )
    assert_equal(image, program)


def test_constants_of_rewrites_before_and_after_quantising_stay_apart() -> None:
    """Quantising recaptures what the rewrites made, its buffers have other names, and more rewrites follow."""
    before = captured(nn.Linear(4, 4), torch.randn(1, 4))
    program = copy_program(before.program)
    linear = next(node for node in program.graph.nodes if node.op == "call_function")
    linear.args = (*linear.args[:2], add_constant(program, torch.full((4,), 5.0)))
    changed = replace(before, program=program)
    again = _quantized(changed, prepare_dynamic(changed))
    add_constant(again, torch.tensor(7.0))
    targets = [spec.target for spec in again.graph_signature.input_specs if spec.target]
    assert sorted(targets) == sorted(set(targets))
