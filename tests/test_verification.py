"""Parity's arithmetic, tolerances and warnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import edgeopt
from edgeopt.converters.checks import make_checks, predictor, uninformative_outputs
from edgeopt.converters.ordering import named_order
from edgeopt.converters.verification import compare, cosine_similarity, snr_db
from edgeopt.errors import InputError
from edgeopt.gates import accuracy_drop, parse_percent
from edgeopt.models import load_source_model
from edgeopt.results.summary import worst_snr
from edgeopt.verify import verify_bundle

floats = st.floats(-1e3, 1e3, allow_nan=False, width=32)
vectors = arrays(np.float64, 8, elements=floats)


@given(vectors)
def test_a_perfect_copy_is_exact(values: np.ndarray) -> None:
    assert snr_db(values, values) == 200.0
    assert cosine_similarity(values, values) == pytest.approx(1.0)


@given(st.floats(0.001, 0.5))
def test_snr_of_known_noise(share: float) -> None:
    """Noise of amplitude a against a signal of amplitude 1 is -20·log10(a) dB."""
    signal = np.ones(64)
    assert snr_db(signal, signal * (1 + share)) == pytest.approx(-20 * np.log10(share), abs=1e-6)


@given(vectors, vectors)
def test_figures_are_finite_and_bounded(wanted: np.ndarray, got: np.ndarray) -> None:
    assert -200 <= snr_db(wanted, got) <= 200
    assert -1 <= cosine_similarity(wanted, got) <= 1


def parity(wanted: object, got: object, precision: str = "fp32", **options: float):
    return compare([[np.asarray(wanted)]], [[np.asarray(got)]], ["y"], precision, **options)[0]


def test_the_reason_names_the_bound() -> None:
    result = parity([1.0, 2.0], [1.3, 2.0])
    assert not result.passed and "is below the 60 dB that fp32 must keep" in result.reason
    assert parity([1.0, 2.0], [1.1, 2.0], min_snr_db=10.0).passed


def test_the_reason_names_outputs_too_small_for_int8() -> None:
    """Deep networks of random weights fade out: EfficientNet-B0's outputs are 4e-11."""
    assert "no step below 0.0002" in parity([1e-9, 2e-9], [0.0, 0.0], "int8-static").reason
    assert "no step" not in parity([1e-9, 2e-9], [0.0, 0.0], "int8-dynamic").reason
    assert "no step" not in parity([1.0, 2.0], [0.0, 0.0], "int8-static").reason


def test_shapes_must_agree() -> None:
    result = parity([[1.0]], [1.0])
    assert not result.passed and "shape [1]" in result.reason


def test_nan_where_the_source_has_none_fails() -> None:
    assert not parity([1.0, 2.0], [np.nan, 2.0]).passed
    assert parity([-np.inf, 2.0], [-np.inf, 2.0]).passed


def test_top1_only_for_what_looks_like_logits() -> None:
    assert parity([[1.0, 2.0]], [[1.0, 2.0]]).top1_agreement == 1.0
    assert parity([[1.0, 2.0]], [[2.0, 1.0]], "int8-static").top1_agreement == 0.0
    assert parity([1.0, 2.0], [1.0, 2.0]).top1_agreement is None


def test_whole_numbers_must_be_equal() -> None:
    assert parity([1, 2, 3], [1, 2, 3]).passed
    result = parity([1, 2, 3], [1, 2, 4])
    assert not result.passed and "66.7% of the values agree" in result.reason


def test_constant_outputs_prove_little() -> None:
    class Zero(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"dead": x.sum() * 0, "alive": x * 2}

    source = load_source_model(Zero(), example_inputs=torch.ones(1, 4))
    assert uninformative_outputs(make_checks(source, None, None, None)) == ["dead"]


class Lookup(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(16, 4)

    def forward(self, ids: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return self.table((ids + offset).long())


def test_check_inputs_stay_where_the_model_can_take_them() -> None:
    """Float inputs that are used as an index: whole numbers, all alike, and such that only the example fits."""
    whole = torch.tensor([[0.0, 15.0, 7.0, 3.0]])
    source = load_source_model(Lookup(), example_inputs=(whole, torch.zeros(1, 1)))
    samples = make_checks(source, None, None, None).samples
    assert len(samples) == 4 and all(sorted(s[0][0]) == [0, 3, 7, 15] for s in samples)
    assert not np.array_equal(samples[0][0], samples[1][0])
    tied = torch.tensor([[0.2, 15.2]]), torch.tensor([[0.0, -15.0]])
    alone = load_source_model(Lookup(), example_inputs=tied)
    assert len(make_checks(alone, None, None, None).samples) == 1


def test_a_calibration_sample_on_which_the_model_fails_is_named() -> None:
    source = load_source_model(Lookup(), example_inputs=(torch.ones(1, 4), torch.zeros(1, 1)))
    good, bad = (torch.ones(1, 4), torch.zeros(1, 1)), (torch.full((1, 4), 16.0), torch.zeros(1, 1))
    with pytest.raises(InputError, match="fails on calibration sample 1: IndexError"):
        make_checks(source, [good, bad], None, None)


def test_predict_takes_any_number_of_rows() -> None:
    source = load_source_model(torch.nn.Linear(3, 2), example_inputs=torch.ones(1, 3))
    calls = []

    def run(values):
        calls.append(values[0].shape)
        return [values[0] @ np.ones((3, 2), np.float32)]

    assert predictor(source, run)(np.ones((5, 3))).shape == (5, 2)
    assert calls == [(1, 3)] * 5


@given(st.permutations(["a", "b", "c", "d"]))
def test_tensors_are_matched_by_name(file_names: list[str]) -> None:
    ours = ["a", "b", "c", "d"]
    values = {"a": 1, "b": 2, "c": 3, "d": 4}
    ordered = [[values[n] for n in ours][i] for i in named_order(file_names, ours)]
    assert ordered == [values[n] for n in file_names]


def test_tensors_without_names_keep_their_order() -> None:
    assert named_order(["input_0", "input_1"], ["x", "mask"]) == [0, 1]


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("1pp", 0.01), ("0.5", 0.5), (" 2.5 %", 0.025)])
def test_percentages(text: str, value: float) -> None:
    assert parse_percent(text, "--x") == pytest.approx(value)


def test_a_drop_is_absolute_for_shares_and_relative_for_others() -> None:
    assert accuracy_drop(0.98, 0.97) == pytest.approx(0.01)
    assert accuracy_drop(20.0, 19.0) == pytest.approx(0.05)
    assert accuracy_drop(None, 0.5) is None


class Nearest(torch.nn.Module):
    """A codebook: positions of the nearest entries, and the entries."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.code = torch.nn.Embedding(64, 4)
        self.encode = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = torch.cdist(self.encode(x), self.code.weight).argmin(-1)
        return nearest, self.code(nearest)


def test_the_distance_of_positions_is_no_noise() -> None:
    """One position of a codebook that lies beside its right one counted as 23 dB, of a file with 34 dB."""
    result = parity([60, 2, 3] * 10, [1, 2, 3] + [60, 2, 3] * 9, "int8-static")
    assert result.passed and result.snr_db is None and result.top1_agreement == pytest.approx(29 / 30)
    floats = parity([1.0, 2.0], [1.001, 2.0])
    assert worst_snr([result.to_dict(), floats.to_dict()]) == f"{floats.snr_db:.1f} dB"
    assert worst_snr([result.to_dict()]) == "–"


def test_a_bundle_of_positions_and_values_keeps_its_own_bound(tmp_path: Path) -> None:
    """verify took the bound of the first output for all: of whole numbers there is none, so --min-snr-db was lost."""
    bundle = edgeopt.export(
        Nearest(), profile="pixel7", formats=("tflite",), precision="fp32", example_inputs=torch.randn(1, 32, 4),
        output=tmp_path / "out", min_snr_db=12.0,
    )  # fmt: skip
    again = verify_bundle(bundle.path).parity["model.tflite"]
    assert [p.snr_db is None for p in again] == [True, False]
    assert [p.min_snr_db for p in again] == [0.0, 12.0]
