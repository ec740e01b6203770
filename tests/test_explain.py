"""What exporters throw, as one finding with operator, module and line; what pre-flight says before they start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeopt.converters.explain import explain
from edgeopt.converters.preflight import blocked_formats, preflight
from edgeopt.converters.rewrites import rewrite_capture
from edgeopt.errors import EdgeoptError, InputError
from edgeopt.models.findings import not_made_because
from edgeopt.models.program import Capture, capture
from edgeopt.models.source import load_source_model


class Net(nn.Module):
    """A convolution, an odd operator and a linear layer, each in a module of its own."""

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.i0(x)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ConvTranspose2d(1, 2, 3)
        self.odd = Net.Odd()
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.odd(self.stem(x)))


@pytest.fixture(scope="module")
def net() -> Capture:
    return capture(load_source_model(Net().eval(), example_inputs=torch.randn(1, 1, 4, 4)))


@pytest.mark.parametrize(
    ("output_format", "words", "message", "module"),
    [
        ("tflite", "Lowering not found: aten.i0.default", "no lowering for aten.i0.default", "odd"),
        (
            "pte",
            'Operator torch._ops.aten.i0.default is not in Core ATen opset (https://pytorch.org)."',
            "ExecuTorch takes no aten.i0.default",
            "odd",
        ),
        ("pte", "Missing out variants: {'aten::special_i0'}", "no kernel for 'aten::special_i0'", "odd"),
        (
            "tflite",
            "Failed to run converter passes: {conv}:1: error: failed to legalize operation 'mhlo.convolution'",
            "LiteRT's converter can't write mhlo.convolution",
            "stem",
        ),
        (
            "tflite",
            "Didn't find op for builtin opcode 'STABLEHLO_SORT' version '1'. An older version",
            "LiteRT's runtime has no STABLEHLO_SORT",
            None,
        ),
        ("pte", "While executing %linear : call_function[target=x]\nassert", "the exporter failed", None),
        (
            "pte",
            "bad\nWhile executing %linear : [num_users=1] = call_function[target=x]",
            "the exporter failed: RuntimeError: bad",
            "head",
        ),
        ("tflite", "complex64 isn't a type here", "complex numbers have no place", None),
        ("tflite", "JitTracer<~int64[]>", "JitTracer", None),
    ],
)
def test_an_exporters_words_become_one_finding(
    net: Capture, output_format: str, words: str, message: str, module: str | None
) -> None:
    stack = next(n for n in net.program.graph.nodes if "conv_transpose" in str(n.target)).meta["stack_trace"]
    line = [part for part in stack.splitlines() if "File" in part and "conv.py" in part][-1]
    path, number = line.split('"')[1], line.split("line ")[1].split(",")[0]
    words = words.replace("{conv}:1", f"{path}:{number}:0")
    finding = explain(RuntimeError(words), output_format, net.program)
    assert message in finding.message
    assert finding.module == module
    assert finding.severity == "error" and finding.format == output_format
    sentence = finding.sentence()
    assert "\n" not in sentence and "/site-packages/" not in sentence
    assert finding.suggestion
    other = {"pte": ".tflite", "tflite": ".pte"}[output_format]
    assert f"{other}" in finding.suggestion or "{" not in finding.suggestion
    if module == "odd":
        assert finding.op == "aten.special_i0.default"
        assert finding.source is not None and finding.source.startswith("test_explain.py:")


def test_the_cause_counts_not_only_what_was_raised_last(net: Capture) -> None:
    try:
        try:
            raise ValueError("Lowering not found: aten.i0.default")
        except ValueError as cause:
            raise RuntimeError("conversion failed") from cause
    except RuntimeError as error:
        finding = explain(error, "tflite", net.program)
    assert finding.module == "odd"


def test_our_own_errors_keep_their_words_without_folders() -> None:
    error = EdgeoptError("/some/where/.partial/model.pte can't be loaded by ExecuTorch: it is broken.")
    finding = explain(error, "pte", None)
    assert finding.message == "model.pte can't be loaded by ExecuTorch: it is broken"
    assert finding.suggestion is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_too_little_memory_is_told_as_that(error: Exception) -> None:
    finding = explain(error, "tflite", None)
    assert finding.message == "the memory is used up" and "ulimit -v" in str(finding.suggestion)


def test_an_exception_without_a_word_is_named() -> None:
    assert "AssertionError" in explain(AssertionError(), "pte", None).message


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x
        return self.seen * 2


def test_state_stops_the_tflite_and_is_mentioned_for_the_pte() -> None:
    found = capture(load_source_model(Stateful(), example_inputs=torch.ones(1, 4)))
    findings = preflight(found, ("pte", "tflite"))
    assert blocked_formats(findings, ("pte", "tflite")) == ["tflite"]
    (error,) = [f for f in findings if f.severity == "error"]
    assert "'seen'" in error.message and "test_explain.py:" in (error.source or "")
    assert preflight(found, ("pte",))[-1].severity == "warning"
    # Looking at the model left its state as it was.
    assert torch.equal(found.source.module.model.seen, torch.zeros(1, 4))


@pytest.mark.parametrize("module", [nn.Identity(), nn.Sequential()], ids=["Identity", "Sequential"])
def test_a_model_that_computes_nothing_is_no_tflite(module: nn.Module) -> None:
    found = rewrite_capture(capture(load_source_model(module, example_inputs=torch.ones(1, 4))))
    findings = preflight(found, ("pte", "tflite"))
    assert blocked_formats(findings, ("pte", "tflite")) == ["tflite"]
    assert "computes nothing" in findings[-1].message


@pytest.mark.parametrize(
    ("steps", "formats"),
    [(500, [".pte about 5 min", ".tflite about 75 s"]), (120, [".pte about 72 s"]), (20, [])],
)
def test_long_sequences_are_announced_with_an_estimate(steps: int, formats: list[str]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(2, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0]

    found = rewrite_capture(capture(load_source_model(Model(), example_inputs=torch.ones(1, steps, 2))))
    warnings = [f for f in preflight(found, ("pte", "tflite")) if "unroll" in f.message]
    assert len(warnings) == bool(formats)
    for words in formats:
        assert words in warnings[0].message
        assert f"{steps} steps" in warnings[0].message


def test_other_float_types_become_float32_and_are_mentioned() -> None:
    model = nn.Sequential(nn.Linear(4, 2)).bfloat16()
    source = load_source_model(model, example_inputs=torch.ones(1, 4, dtype=torch.bfloat16))
    assert [info.dtype for info in (*source.inputs, *source.outputs)] == ["float32", "float32"]
    (finding,) = source.findings
    assert "bfloat16 (0.weight)" in finding.message and "fp16" in (finding.suggestion or "")


def test_control_flow_that_depends_on_data_names_the_line() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x * 2
            return x

    with pytest.raises(InputError, match=r"control flow depends on its data \(test_explain\.py:\d+\)"):
        capture(load_source_model(Branch(), example_inputs=torch.ones(1, 4)))


def test_a_pte_without_kernels_names_the_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.converters import explain as module

    monkeypatch.setattr(module, "_missing_kernels", lambda file: ["special_i0"])
    program = capture(load_source_model(Net().eval(), example_inputs=torch.randn(1, 1, 4, 4))).program
    error = EdgeoptError(
        "model.pte can't be loaded: an operator it needs is not in this runtime (error 0x14)."
    )
    finding = explain(error, "pte", program, tmp_path / "model.pte")
    assert finding.message == "the ExecuTorch runtime has no kernel for special_i0"
    assert finding.module == "odd"


def test_calibration_leaves_a_models_own_state_alone() -> None:
    from edgeopt.optimizers.quantization import prepare_dynamic

    found = capture(load_source_model(Stateful(), example_inputs=torch.ones(1, 4)))
    prepared = prepare_dynamic(found)
    assert torch.equal(dict(prepared.named_buffers())["model.seen"], torch.zeros(1, 4))


def test_a_sample_may_be_nested_as_the_models_arguments_are() -> None:
    from edgeopt.models.data import load_calibration

    class Pair(nn.Module):
        def forward(self, pair: dict[str, torch.Tensor], offset: torch.Tensor) -> torch.Tensor:
            return pair["left"] - offset

    def sample() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return {"left": torch.randn(1, 4)}, torch.randn(1, 4)

    source = load_source_model(Pair(), example_inputs=sample())
    (loaded,) = load_calibration(source, [given := sample()])
    assert torch.equal(loaded[0], given[0]["left"]) and torch.equal(loaded[1], given[1])
    with pytest.raises(InputError, match="must have shape"):
        load_calibration(source, [({"left": torch.randn(1, 3)}, torch.randn(1, 4))])


def test_a_reason_that_files_share_is_said_once() -> None:
    odd = "this model is too odd"
    refused = [{"file": f"{name}.tflite", "sentence": odd} for name in ("a", "b", "c")]
    other = {"file": "a.pte", "sentence": "no such operator"}
    assert not_made_because([*refused[:1], other, *refused[1:]]) == [
        ("a.tflite, b.tflite and c.tflite", odd),
        ("a.pte", "no such operator"),
    ]
    assert not_made_because(refused[:2]) == [("a.tflite and b.tflite", odd)]
    assert not_made_because([]) == []
