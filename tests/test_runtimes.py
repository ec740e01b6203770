"""Runtimes: what a file takes and gives, what is cast, and what a broken file leads to."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.errors import EdgeoptError, InputError
from edgeopt.runtimes import TensorSpec, check_file, open_model, run_isolated, runtime_versions
from edgeopt.runtimes.protocol import fit_inputs
from edgeopt.runtimes.pte_header import read_pte

HERE = Path("model.tflite")


def expected(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "expected.npz") as archive:
        return dict(archive)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pte", "tflite"])
def test_isolated_run_gives_the_outputs_of_the_source_model(runnable: Path, suffix: str) -> None:
    known = expected(runnable)
    (batch,) = run_isolated(runnable / f"two.{suffix}", [[known["ids"], known["scale"]]])
    np.testing.assert_allclose(batch[0], known["first"], atol=1e-5)
    np.testing.assert_allclose(batch[1], known["second"], atol=1e-5)


@pytest.mark.slow
def test_two_batches_come_back_in_order(runnable: Path) -> None:
    image = expected(runnable)["image"]
    first, second = run_isolated(runnable / "cnn.tflite", [[image], [image * 2]])
    np.testing.assert_allclose(first[0], expected(runnable)["image_out"], atol=1e-4)
    assert not np.allclose(first[0], second[0])


@pytest.mark.slow
def test_specs_tell_names_shapes_and_dtypes(runnable: Path) -> None:
    model = open_model(runnable / "two.tflite")
    assert [(s.name, s.shape, s.dtype) for s in model.inputs] == [
        ("args_0", (1, 6), "int32"),
        ("args_1", (1, 6, 4), "float32"),
    ]
    known = expected(runnable)
    named = model.run_named({"args_1": known["scale"], "args_0": known["ids"]})
    np.testing.assert_allclose(named["output_0"], known["first"], atol=1e-5)
    with pytest.raises(InputError, match="args_0, args_1"):
        model.run_named({"args_0": known["ids"]})
    model.close()


def printed(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_a_tflite_run_imports_no_torch(runnable: Path) -> None:
    code = (
        "import sys; from edgeopt.runtimes import open_model; import numpy as np\n"
        f"m = open_model({str(runnable / 'cnn.tflite')!r})\n"
        "m.run([np.zeros((1, 3, 112, 112), np.float32)])\n"
        "print([n for n in ('torch', 'executorch', 'tensorflow', 'pydantic', 'sqlalchemy') if n in sys.modules])"
    )
    assert printed(code) == "[]"


@pytest.mark.slow
def test_a_pte_run_imports_no_exporter(runnable: Path) -> None:
    code = (
        "import sys\nfrom edgeopt.runtimes import open_model\n"
        f"print(open_model({str(runnable / 'two.pte')!r}).runtime)\n"
        "print([name for name in sys.modules if name.startswith(('executorch.exir', 'torch._dynamo'))])"
    )
    assert printed(code).splitlines() == ["executorch", "[]"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pte", "tflite"])
@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([np.ones((1, 3, 9, 9), np.float32)], r"float32\[1×3×112×112\].*shape \[1, 3, 9, 9\]"),
        ([], r"takes 1 input.*0 were given"),
        ([np.full((1, 3, 112, 112), 0.1)], "float64 and can't be cast to float32 without loss"),
    ],
)
def test_wrong_inputs_are_one_sentence(
    runnable: Path, suffix: str, batch: list[np.ndarray], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run_isolated(runnable / f"cnn.{suffix}", [batch])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pte", "tflite"])
@pytest.mark.parametrize("cut", [0, 7, 30, 5000, -500])
def test_a_truncated_file_is_bad_input(runnable: Path, tmp_path: Path, suffix: str, cut: int) -> None:
    file = tmp_path / f"cut.{suffix}"
    file.write_bytes((runnable / f"cnn.{suffix}").read_bytes()[:cut])
    with pytest.raises(InputError, match="cut"):
        run_isolated(file, [[np.zeros((1, 3, 112, 112), np.float32)]])


def tiny_tflite(magic: bytes) -> bytes:
    return struct.pack("<I", 16) + magic + bytes(24)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tflite", b"", "is empty"),
        ("a.tflite", b"hello world, hello world", "not a TensorFlow Lite model"),
        ("a.tflite", tiny_tflite(b"TFL9"), "newer than the TFL3"),
        ("a.pte", tiny_tflite(b"ET99"), "newer than the ET12"),
        ("a.pte", tiny_tflite(b"TFL3"), "not an ExecuTorch program"),
        ("a.tflite", struct.pack("<I", 1 << 20) + b"TFL3" + bytes(32), "truncated"),
        ("a.pt2", b"no zip", "not a PyTorch package"),
        ("a.txt", b"text", "not a file edgeopt can run"),
    ],
)
def test_headers_are_checked_before_a_runtime_sees_them(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=words):
        check_file(file)
        open_model(file)


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_file(tmp_path / "no.pte")
    with pytest.raises(InputError, match="is a folder"):
        check_file(tmp_path)


@pytest.mark.slow
def test_a_tflite_cut_short_and_filled_with_zeros_is_no_model(runnable: Path, tmp_path: Path) -> None:
    whole = (runnable / "cnn.tflite").read_bytes()
    file = tmp_path / "zeros.tflite"
    file.write_bytes(whole[:3000] + bytes(len(whole) - 3000))
    with pytest.raises(InputError, match=r"zeros\.tflite"):
        run_isolated(file, [[np.zeros((1, 3, 112, 112), np.float32)]])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pte", "tflite"])
def test_random_damage_never_reaches_the_parent(runnable: Path, tmp_path: Path, suffix: str) -> None:
    whole = bytearray((runnable / f"two.{suffix}").read_bytes())
    generator = np.random.default_rng(5)
    for trial in range(3):
        damaged = bytearray(whole)
        for _ in range(30):
            damaged[generator.integers(8, len(damaged))] = generator.integers(256)
        file = tmp_path / f"damaged{trial}.{suffix}"
        file.write_bytes(damaged)
        inputs = [np.zeros((1, 6), np.int32), np.ones((1, 6, 4), np.float32)]
        try:
            run_isolated(file, [inputs], timeout_s=15)
        except EdgeoptError as error:
            assert "Traceback" not in str(error)
            assert "\n" not in str(error)


def test_a_crash_of_the_runtime_names_file_and_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeopt.runtimes import isolation

    file = tmp_path / "bad.tflite"
    file.write_bytes(tiny_tflite(b"TFL3"))
    code = "import os, sys; print('last cry', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)"
    monkeypatch.setattr(isolation, "python_command", lambda *_: [sys.executable, "-c", code])
    with pytest.raises(EdgeoptError, match=r"bad\.tflite crashed the litert runtime \(SIGSEGV\).*last cry"):
        run_isolated(file, [])


def test_a_runtime_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.runtimes import isolation

    file = tmp_path / "slow.tflite"
    file.write_bytes(tiny_tflite(b"TFL3"))
    monkeypatch.setattr(
        isolation, "python_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"]
    )
    with pytest.raises(EdgeoptError, match=r"did not finish slow\.tflite within 1 s"):
        run_isolated(file, [], timeout_s=1)


@pytest.mark.slow
def test_the_header_of_a_pte_tells_its_plan(runnable: Path) -> None:
    facts = read_pte(runnable / "cnn.pte")
    assert facts.method == "forward"
    assert facts.input_dynamic == (False,)
    assert facts.planned_bytes > 112 * 112 * 3 * 4
    assert facts.delegates["XnnpackBackend"] >= 1


@pytest.mark.slow
def test_executorch_threads_are_set_once_a_process(runnable: Path) -> None:
    code = (
        "from edgeopt.runtimes import open_model\nfrom edgeopt.errors import EdgeoptError\n"
        f"f = {str(runnable / 'two.pte')!r}\nopen_model(f, num_threads=2); open_model(f, num_threads=2)\n"
        "try: open_model(f, num_threads=1)\nexcept EdgeoptError as e: print(e)"
    )
    assert "can't be changed to 1" in printed(code)


def test_unknown_runtimes_and_thread_counts_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tflite"
    file.write_bytes(tiny_tflite(b"TFL3"))
    with pytest.raises(InputError, match="unknown runtime 'nope'"):
        open_model(file, runtime="nope")
    with pytest.raises(InputError, match="at least 1"):
        open_model(file, num_threads=0)


def test_installed_runtimes_have_versions() -> None:
    assert {"executorch", "litert"} <= set(runtime_versions())


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_integers_are_cast_only_when_they_fit(values: list[int]) -> None:
    spec = TensorSpec("ids", (len(values),), "int32")
    array = np.array(values, dtype=np.int64)
    if all(-(2**31) <= value < 2**31 for value in values):
        (cast,) = fit_inputs(HERE, [spec], [array])
        assert cast.dtype == np.int32
        assert cast.tolist() == values
    else:
        with pytest.raises(InputError, match="without loss"):
            fit_inputs(HERE, [spec], [array])


@given(st.lists(st.floats(allow_nan=True, width=64), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_floats_are_cast_only_when_nothing_is_lost(values: list[float]) -> None:
    spec = TensorSpec("x", (len(values),), "float32")
    array = np.array(values)
    with np.errstate(over="ignore"):
        exact = np.array_equal(array.astype(np.float32).astype(np.float64), array, equal_nan=True)
    if exact:
        assert fit_inputs(HERE, [spec], [array])[0].dtype == np.float32
    else:
        with pytest.raises(InputError, match="without loss"):
            fit_inputs(HERE, [spec], [array])


def test_signs_floats_and_booleans_are_not_cast_silently() -> None:
    for value, dtype in (
        (np.array([-1]), "uint8"),
        (np.array([1.0]), "int32"),
        (np.array([True]), "float32"),
    ):
        with pytest.raises(InputError, match="without loss"):
            fit_inputs(HERE, [TensorSpec("x", (1,), dtype)], [value])


def test_dynamic_shapes_are_bounded_when_the_file_says_so() -> None:
    spec = TensorSpec("x", (-1, -1), "float32", max_shape=(8, 3))
    assert fit_inputs(HERE, [spec], [np.zeros((2, 3), np.float32)])[0].shape == (2, 3)
    with pytest.raises(InputError, match=r"up to \[8, 3\]"):
        fit_inputs(HERE, [spec], [np.zeros((9, 3), np.float32)])
    assert spec.example_shape() == (8, 3)
