"""Every rewrite gives the same numbers as what it replaces, and leaves everything else alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everyone's name for it
from torch import nn

from edgeopt.converters.dynamic_tflite import spread_by_adding
from edgeopt.converters.executorch import _quantized
from edgeopt.converters.rewrites import rewrite_capture, rewrite_program
from edgeopt.converters.rewriting import add_constant, copy_program, fold_constants
from edgeopt.models.program import Capture, capture
from edgeopt.models.source import load_source_model
from edgeopt.optimizers.quantization import prepare_dynamic


def _odd_modules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("odd_modules", Path(__file__).parent / "odd_modules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["odd_modules"] = module
    spec.loader.exec_module(module)
    return module


ODD = _odd_modules().ODD


class Function(nn.Module):
    """A model of one function of its inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self._function(x)


def _capture(model: nn.Module, example: Any, **options: Any) -> Capture:
    return capture(load_source_model(model.eval(), example_inputs=example, **options))


def _ops(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def _assert_equal(before: Capture, program: torch.export.ExportedProgram, tolerance: float = 1e-5) -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        inputs = [
            torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
            for t in before.source.example
        ]
        wanted = before.program.module()(*inputs)
        found = program.module()(*inputs)
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


# (odd module, format the form is for, operator that must be gone, operator that takes its place)
FORMS = [
    ("masked_fill", None, "aten.index_put_.default", "aten.where.self"),
    ("adaptive_max_pool_odd", None, "aten.adaptive_max_pool2d.default", "aten.amax.default"),
    ("average_of_all", None, "aten.avg_pool2d.default", "aten.mean.dim"),
    ("sort", None, "aten.sort.default", "aten.topk.default"),
    ("embedding_bag", None, "aten.embedding_bag.padding_idx", "aten.embedding.default"),
    ("affine_grid", None, "aten.affine_grid_generator.default", "aten.matmul.default"),
    ("lstm", None, "aten.lstm.input", "aten.linear.default"),
    ("gru", None, "aten.gru.input", "aten.linear.default"),
    ("bidirectional_lstm", None, "aten.lstm.input", "aten.linear.default"),
    ("fft", None, "aten.fft_rfft.default", "aten.matmul.default"),
    ("view_as_complex", None, "aten.view_as_complex.default", "aten.stack.default"),
    ("interpolate_nearest_odd", "tflite", "aten.upsample_nearest2d.vec", "aten.index_select.default"),
    ("conv3d", "pte", "aten.conv3d.default", "aten.conv2d.default"),
    ("cells", None, "aten.lstm_cell.default", "aten.linear.default"),
    ("cells", None, "aten.gru_cell.default", "aten.linear.default"),
    ("volume_pools", "pte", "aten.max_pool3d.default", "aten.max_pool2d.default"),
    ("volume_pools", "pte", "aten.avg_pool3d.default", "aten.avg_pool2d.default"),
    ("powers_of_five_axes", "tflite", "aten.pow.Tensor_Scalar", "aten.mul.Tensor"),
    ("normalised_weights", None, "aten._weight_norm.default", "aten.conv1d.default"),
    ("activations", "pte int8", "aten.hardsigmoid.default", "aten.clamp.default"),
]


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(3), nn.AvgPool2d(8, padding=1), nn.AvgPool2d(8, divisor_override=3), nn.AvgPool2d(7, 1)],
)
def test_other_average_pools_stay(pool: nn.Module) -> None:
    before = _capture(pool, torch.randn(1, 3, 8, 8))
    assert "aten.avg_pool2d.default" in _ops(rewrite_capture(before).program)


@pytest.mark.parametrize("bins", [1, 4, 5])
def test_adaptive_maxima_along_one_axis(bins: int) -> None:
    before = _capture(nn.AdaptiveMaxPool1d(bins), torch.randn(2, 3, 16))
    program = rewrite_capture(before).program
    assert "aten.adaptive_max_pool1d.default" not in _ops(program)
    _assert_equal(before, program)


def test_padding_by_nothing_is_nothing() -> None:
    before = _capture(Function(lambda x: F.pad(F.pad(x * 2, (0, 0)), (1, 0)).relu()), torch.randn(2, 3))
    program = rewrite_capture(before).program
    assert [str(node.target) for node in program.graph.nodes].count("aten.pad.default") == 1
    _assert_equal(before, program)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "layer",
    [
        lambda padding: nn.Conv1d(4, 6, 5, padding=padding),
        lambda padding: nn.Conv1d(4, 4, 4, padding=padding, dilation=3, groups=4, bias=False),
        lambda padding: nn.Conv2d(4, 4, (2, 3), padding=padding, groups=2, dilation=(1, 2)),
        lambda padding: nn.Conv3d(4, 2, (3, 1, 2), padding=padding),
    ],
)
def test_paddings_in_words_become_numbers(layer: Callable[[str], nn.Module], padding: str) -> None:
    module = layer(padding)
    example = torch.randn(2, 4, *[12] * (next(module.parameters()).ndim - 2))
    before = _capture(module, example)
    program = rewrite_capture(before).program
    assert not any(name.endswith(".padding") for name in _ops(program))
    _assert_equal(before, program)
    free = _capture(module, example, dynamic_batch=True)
    assert not any(name.endswith(".padding") for name in _ops(rewrite_capture(free).program))


@pytest.mark.parametrize(("name", "target", "gone", "instead"), FORMS, ids=[f[0] for f in FORMS])
def test_an_odd_module_is_rewritten_to_the_same_numbers(
    name: str, target: str | None, gone: str, instead: str
) -> None:
    odd = ODD[name]
    before = _capture(odd.model(), odd.example())
    assert gone in _ops(before.program)
    if target is None:
        program = rewrite_capture(before).program
    else:
        program, notes = rewrite_program(before.program, target)
        assert notes
    assert gone not in _ops(program)
    assert instead in _ops(program)
    _assert_equal(before, program)


def test_a_rewrite_says_what_it_did_and_where() -> None:
    odd = ODD["lstm"]
    rewritten = rewrite_capture(_capture(odd.model(), odd.example()))
    (note,) = rewritten.findings
    assert note.severity == "note"
    assert (note.op, note.module) == ("aten.lstm.input", "rnn")
    assert note.source is not None and note.source.startswith("odd_modules.py:")
    # The operators that took its place still know where they came from.
    linear = next(n for n in rewritten.program.graph.nodes if str(n.target) == "aten.linear.default")
    assert "rnn" in str(linear.meta["nn_module_stack"])


def test_a_plain_model_is_not_touched() -> None:
    before = _capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()), torch.randn(1, 3, 6, 6))
    after = rewrite_capture(before)
    assert after.program is before.program
    assert after.findings == before.findings
    for output_format in ("pte", "tflite", "pte int8"):
        program, notes = rewrite_program(before.program, output_format)
        assert program is before.program and not notes


@pytest.mark.parametrize(("output_padding", "padding", "dilation"), [(1, 1, 1), (1, 2, 1), (2, 2, 2)])
@pytest.mark.parametrize("groups", [1, 2])
def test_output_padding_becomes_a_cut(output_padding: int, padding: int, dilation: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(
        4, 6, 3, stride=3, padding=padding, output_padding=output_padding, dilation=dilation, groups=groups
    )
    before = _capture(layer, torch.randn(1, 4, 5, 7))
    program, notes = rewrite_program(before.program, "tflite")
    assert notes
    node = next(n for n in program.graph.nodes if "conv_transpose" in str(n.target))
    assert not any(any(a) for a in node.args[4:6] if isinstance(a, list))
    _assert_equal(before, program)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.topk(x, 2, dim=1),
        lambda x: torch.topk(x, 3, largest=False),
        lambda x: torch.topk(x, 2)[0],
        lambda x: torch.sort(x, dim=0)[0],
        lambda x: torch.sort(x, dim=1, descending=True),
        lambda x: torch.argsort(x),
    ],
    ids=["other axis", "smallest", "values only", "sort axis 0", "sort falling", "argsort"],
)
def test_order_is_kept_through_topk(function: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    before = _capture(Function(function), torch.randn(4, 5, 6))
    program, _ = rewrite_program(rewrite_capture(before).program, "tflite")
    _assert_equal(before, program)
    assert not _ops(program) & {"aten.sort.default", "aten.argsort.default"}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_recurrent_layers_of_every_kind(
    layer: Any, bias: bool, batch_first: bool, bidirectional: bool
) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = layer(
                5, 7, num_layers=2, bias=bias, batch_first=batch_first, bidirectional=bidirectional
            )

        def forward(self, x: torch.Tensor) -> Any:
            return self.rnn(x)

    torch.manual_seed(0)
    before = _capture(Model(), torch.randn(3, 3, 5))
    _assert_equal(before, rewrite_capture(before).program)


def test_a_recurrent_layer_with_a_state_of_its_own() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(5, 7, batch_first=True)

        def forward(self, x: torch.Tensor, state: torch.Tensor) -> Any:
            return self.rnn(x, state)

    torch.manual_seed(0)
    before = _capture(Model(), (torch.randn(1, 2, 5), torch.randn(1, 1, 7)))
    after = rewrite_capture(before)
    assert "aten.gru.input" not in _ops(after.program)
    _assert_equal(before, after.program)


def _complex(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(x.reshape(2, 4, 2))


def _filtered(z: torch.Tensor) -> torch.Tensor:
    """The layer of a Fourier neural operator: low frequencies mixed, the others zero."""
    mixed = torch.zeros(2, 5, dtype=torch.cfloat)
    mixed[:, :3] = torch.einsum("ix,iox->ox", z[:, :3], torch.stack([z[:, :3], z[:, 1:4] + 2j], 1))
    return torch.cat([mixed[:, :4], torch.zeros_like(z)[:, :1]], 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.fft.rfft(x, norm="ortho").abs(),
        lambda x: torch.fft.rfft(x, n=6, dim=0).imag,
        lambda x: torch.fft.rfft(x, n=12).real,
        lambda x: torch.fft.irfft(torch.fft.rfft(x)),
        lambda x: torch.fft.irfft(torch.fft.rfft(x), n=7, norm="forward"),
        lambda x: torch.view_as_real(torch.fft.fft(x)),
        lambda x: torch.view_as_real(torch.fft.ifft(torch.fft.fft(x))),
        lambda x: torch.fft.irfft(_filtered(torch.fft.rfft(x)), n=8),
        lambda x: torch.fft.fft2(x).real,
        lambda x: torch.view_as_real(torch.fft.ifft2(torch.fft.fftn(_complex(x), norm="forward"), (3, -1))),
        lambda x: torch.view_as_real(torch.fft.fftshift(torch.fft.ifftn(_complex(x), (5,), norm="ortho"))),
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 2),
        lambda x: torch.fft.irfftn(torch.fft.rfftn(x.view(2, 2, 4), dim=(0, 2)), (2, 3), (0, 2)),
        lambda x: torch.view_as_real(_complex(x) * _complex(x.flip(0))),
        lambda x: torch.view_as_real(_complex(x) / (_complex(x + 5) + 2)),
        lambda x: torch.view_as_real(_complex(x) @ _complex(x).conj().transpose(0, 1)),
        lambda x: torch.view_as_real(torch.cat([_complex(x) * 2, -_complex(x)], 1)[:, 1:5]),
        lambda x: torch.polar(x.abs() + 0.5, x).angle(),
        lambda x: torch.complex(x, x * 2).sum(1).abs(),
    ],
)
def test_complex_arithmetic_in_pairs(function: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    before = _capture(Function(function), torch.randn(2, 8) * 0.5)
    program = rewrite_capture(before).program
    values = [node.meta.get("val") for node in program.graph.nodes]
    assert not any(isinstance(v, torch.Tensor) and v.dtype.is_complex for v in values)
    _assert_equal(before, program)


@pytest.mark.parametrize("window_length", [64, 48])
@pytest.mark.parametrize("center", [False, True])
def test_short_time_fourier_transform(window_length: int, center: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("window", torch.hann_window(window_length))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spectrum = torch.stft(
                x, 64, 16, window_length, self.window, center=center, normalized=True, return_complex=True
            )
            return spectrum.abs()

    before = _capture(Model(), torch.randn(2, 256))
    _assert_equal(before, rewrite_capture(before).program)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("complex_input", "input 'x' is complex"),
        ("complex_sqrt", "aten.sqrt.default has no form in real ones"),
    ],
)
def test_complex_numbers_without_a_real_form_are_one_error(name: str, words: str) -> None:
    odd = ODD[name]
    after = rewrite_capture(_capture(odd.model(), odd.example()))
    errors = [finding for finding in after.findings if finding.severity == "error"]
    assert len(errors) == 1
    assert words in errors[0].message
    assert errors[0].suggestion


def test_constants_are_worked_out_once() -> None:
    before = _capture(Function(lambda x: x + torch.arange(4).float() * 2 + torch.eye(4)), torch.randn(4, 4))
    program = rewrite_capture(before).program
    assert _ops(program) == {"aten.add.Tensor"}
    _assert_equal(before, program)


def test_what_is_written_later_or_random_or_large_is_not_a_constant() -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(2, 4)
        out[0] = x
        return out + 1

    before = _capture(Function(written), torch.randn(4))
    program = rewrite_capture(before).program
    _assert_equal(before, program)
    assert "aten.zeros.default" in _ops(program)

    noisy = _capture(Function(lambda x: x + torch.randn(4)), torch.randn(4))
    assert "aten.randn.default" in _ops(rewrite_capture(noisy).program)

    large = copy_program(_capture(Function(lambda x: x + torch.ones(64, 64)), torch.randn(64, 64)).program)
    assert fold_constants(large, max_bytes=1024) == 0
    assert fold_constants(large, max_bytes=64 * 64 * 4) == 1


def test_attention_and_dropout_of_constants_are_worked_out_where_they_draw_nothing() -> None:
    """What may draw random numbers was left, though its arguments say that it doesn't: a detector's first queries."""

    def queries(x: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(32.0).reshape(1, 1, 8, 4) / 32
        return x + F.dropout(F.scaled_dot_product_attention(rows, rows, rows), 0.1, training=False)

    before = _capture(Function(queries), torch.randn(1, 1, 8, 4))
    program = rewrite_capture(before).program
    assert _ops(program) == {"aten.add.Tensor"}
    _assert_equal(before, program)

    noisy = _capture(Function(lambda x: x + F.dropout(torch.ones(4), 0.5, training=True)), torch.randn(4))
    assert "aten.dropout.default" in _ops(rewrite_capture(noisy).program)


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

    before = _capture(Model(), torch.arange(8)[None])
    program = rewrite_capture(before).program
    _assert_equal(before, program)
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
    program, _ = rewrite_program(_capture(odd.model(), odd.example()).program, "pte")
    found = [node for node in program.graph.nodes if str(node.target) == "aten.conv2d.default"]
    assert found and all(node.args[1].op == "placeholder" for node in found)


def test_an_output_that_is_a_weight_gets_a_constant_of_its_own() -> None:
    odd = ODD["odd_outputs"]
    before = _capture(odd.model(), odd.example())
    program = rewrite_capture(before).program
    weights = set(program.graph_signature.inputs_to_parameters)
    assert not weights & {node.name for node in program.graph.output_node().all_input_nodes}
    _assert_equal(before, program)


def test_a_repeated_constant_takes_the_size_of_the_input() -> None:
    odd = ODD["dynamic_batch_expand"]
    before = _capture(odd.model(), odd.example(), dynamic_batch=True)
    program = spread_by_adding(before.program)
    assert "aten.expand.default" not in _ops(program) or "aten.clamp.default" in _ops(program)
    for batch in (1, 3, 7):
        x = torch.randn(batch, 8)
        (wanted,), (found,) = before.program.module()(x).values(), program.module()(x).values()
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_numbers_keep_their_rank_only_where_it_matters() -> None:
    flat = _capture(Function(lambda x: F.relu(x) / 6), torch.randn(2, 8))
    assert rewrite_program(flat.program, "pte int8")[0] is flat.program
    image = _capture(Function(lambda x: F.relu(x) / 6 + 0.5), torch.randn(1, 2, 4, 4))
    program, _ = rewrite_program(image.program, "pte int8")
    assert all(
        isinstance(argument, torch.fx.Node)
        for node in program.graph.nodes
        if str(node.target) in ("aten.div.Tensor", "aten.add.Tensor")
        for argument in node.args
    )
    _assert_equal(image, program)


def test_constants_of_rewrites_before_and_after_quantising_stay_apart() -> None:
    """Quantising recaptures what the rewrites made, its buffers have other names, and more rewrites follow."""
    before = _capture(nn.Linear(4, 4), torch.randn(1, 4))
    program = copy_program(before.program)
    linear = next(node for node in program.graph.nodes if node.op == "call_function")
    linear.args = (*linear.args[:2], add_constant(program, torch.full((4,), 5.0)))
    captured = replace(before, program=program)
    again = _quantized(captured, prepare_dynamic(captured))
    add_constant(again, torch.tensor(7.0))
    targets = [spec.target for spec in again.graph_signature.input_specs if spec.target]
    assert sorted(targets) == sorted(set(targets))
