"""Every rewrite gives the same numbers as what it replaces, and leaves everything else alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - everyone's name for it
from rewritten import ODD, Function, assert_equal, captured, operators
from torch import nn

from edgeopt.converters.rewrites import rewrite_capture, rewrite_program

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
    before = captured(pool, torch.randn(1, 3, 8, 8))
    assert "aten.avg_pool2d.default" in operators(rewrite_capture(before).program)


@pytest.mark.parametrize("bins", [1, 4, 5])
def test_adaptive_maxima_along_one_axis(bins: int) -> None:
    before = captured(nn.AdaptiveMaxPool1d(bins), torch.randn(2, 3, 16))
    program = rewrite_capture(before).program
    assert "aten.adaptive_max_pool1d.default" not in operators(program)
    assert_equal(before, program)


def test_padding_by_nothing_is_nothing() -> None:
    before = captured(Function(lambda x: F.pad(F.pad(x * 2, (0, 0)), (1, 0)).relu()), torch.randn(2, 3))
    program = rewrite_capture(before).program
    assert [str(node.target) for node in program.graph.nodes].count("aten.pad.default") == 1
    assert_equal(before, program)


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
    before = captured(module, example)
    program = rewrite_capture(before).program
    assert not any(name.endswith(".padding") for name in operators(program))
    assert_equal(before, program)
    free = captured(module, example, dynamic_batch=True)
    assert not any(name.endswith(".padding") for name in operators(rewrite_capture(free).program))


@pytest.mark.parametrize(("name", "target", "gone", "instead"), FORMS, ids=[f[0] for f in FORMS])
def test_an_odd_module_is_rewritten_to_the_same_numbers(
    name: str, target: str | None, gone: str, instead: str
) -> None:
    odd = ODD[name]
    before = captured(odd.model(), odd.example())
    assert gone in operators(before.program)
    if target is None:
        program = rewrite_capture(before).program
    else:
        program, notes = rewrite_program(before.program, target)
        assert notes
    assert gone not in operators(program)
    assert instead in operators(program)
    assert_equal(before, program)


def test_a_rewrite_says_what_it_did_and_where() -> None:
    odd = ODD["lstm"]
    rewritten = rewrite_capture(captured(odd.model(), odd.example()))
    (note,) = rewritten.findings
    assert note.severity == "note"
    assert (note.op, note.module) == ("aten.lstm.input", "rnn")
    assert note.source is not None and note.source.startswith("odd_modules.py:")
    # The operators that took its place still know where they came from.
    linear = next(n for n in rewritten.program.graph.nodes if str(n.target) == "aten.linear.default")
    assert "rnn" in str(linear.meta["nn_module_stack"])


def test_a_plain_model_is_not_touched() -> None:
    before = captured(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()), torch.randn(1, 3, 6, 6))
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
    before = captured(layer, torch.randn(1, 4, 5, 7))
    program, notes = rewrite_program(before.program, "tflite")
    assert notes
    node = next(n for n in program.graph.nodes if "conv_transpose" in str(n.target))
    assert not any(any(a) for a in node.args[4:6] if isinstance(a, list))
    assert_equal(before, program)


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
    before = captured(Function(function), torch.randn(4, 5, 6))
    program, _ = rewrite_program(rewrite_capture(before).program, "tflite")
    assert_equal(before, program)
    assert not operators(program) & {"aten.sort.default", "aten.argsort.default"}


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
    before = captured(Model(), torch.randn(3, 3, 5))
    assert_equal(before, rewrite_capture(before).program)


def test_a_recurrent_layer_with_a_state_of_its_own() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(5, 7, batch_first=True)

        def forward(self, x: torch.Tensor, state: torch.Tensor) -> Any:
            return self.rnn(x, state)

    torch.manual_seed(0)
    before = captured(Model(), (torch.randn(1, 2, 5), torch.randn(1, 1, 7)))
    after = rewrite_capture(before)
    assert "aten.gru.input" not in operators(after.program)
    assert_equal(before, after.program)


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
    before = captured(Function(function), torch.randn(2, 8) * 0.5)
    program = rewrite_capture(before).program
    values = [node.meta.get("val") for node in program.graph.nodes]
    assert not any(isinstance(v, torch.Tensor) and v.dtype.is_complex for v in values)
    assert_equal(before, program)


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

    before = captured(Model(), torch.randn(2, 256))
    assert_equal(before, rewrite_capture(before).program)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("complex_input", "input 'x' is complex"),
        ("complex_sqrt", "aten.sqrt.default has no form in real ones"),
    ],
)
def test_complex_numbers_without_a_real_form_are_one_error(name: str, words: str) -> None:
    odd = ODD[name]
    after = rewrite_capture(captured(odd.model(), odd.example()))
    errors = [finding for finding in after.findings if finding.severity == "error"]
    assert len(errors) == 1
    assert words in errors[0].message
    assert errors[0].suggestion


@pytest.mark.parametrize(
    ("shape", "slopes"),
    [((3,), 1), *((s, n) for s in ((2, 6), (2, 6, 5), (1, 6, 4, 4), (1, 6, 2, 3, 4)) for n in (1, 6))],
)
def test_prelu_of_anything_but_images(shape: tuple[int, ...], slopes: int) -> None:
    """XNNPACK's part of the lowering broke off on it, and all of the model ran on portable kernels."""
    layer = nn.PReLU(slopes)
    nn.init.uniform_(layer.weight, -0.5, 0.5)
    before = captured(layer, (torch.randn(shape),))
    program, _ = rewrite_program(before.program, "pte")
    assert ("aten.prelu.default" in operators(program)) == (len(shape) == 4)
    assert_equal(before, program)
