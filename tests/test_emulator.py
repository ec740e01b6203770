"""The emulated board: parity, CPU fidelity and exact counts. Needs the toolchain (edgeopt emulator setup)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeopt.android_harness.emulator import (
    Cpu,
    EmulatorTarget,
    check_parity,
    cpu_of,
    measure_on_emulator,
    run,
)
from edgeopt.android_harness.emulator.cpu import CHECKED_FEATURES
from edgeopt.android_harness.emulator.execution import describe
from edgeopt.android_harness.emulator.measuring import measurements_of
from edgeopt.device_profiles import DeviceProfile, load_profile
from edgeopt.errors import EdgeoptError, InputError
from edgeopt.runtimes import run_isolated

pytestmark = [pytest.mark.slow, pytest.mark.emulator]

A53 = Cpu("cortex-a53", 4, 1400, ("neon",), 32, 512, None, "cortex-a53", l2_shared=True)
A76 = Cpu("cortex-a76", 4, 2400, ("neon", "fp16", "dotprod"), 64, 512, 2048, "cortex-a76")
X3 = Cpu(
    "cortex-x3", 1, 2900, ("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2"), 64, 1024, 4096,
    "max,sme=off,sve128=on",
)  # fmt: skip
FILES = (
    "cnn.pte", "cnn_int8.pte", "cnn_fp16.pte", "cnn.tflite", "cnn_dynamic.tflite", "encoder.pte",
    "encoder.tflite", "keyword.pte", "keyword_int8.pte",
)  # fmt: skip


def golden_input(models: Path, file: str) -> np.ndarray:
    name = Path(file).stem.split("_")[0]
    array: np.ndarray = np.load(models / "golden.npz")[f"{name}/input"]
    return array.astype(np.float16) if "fp16" in file else array


def golden_output(models: Path, file: str) -> np.ndarray:
    stem = Path(file).stem
    data = np.load(models / "golden.npz")
    name = stem if f"{stem}/output" in data.files else stem.split("_")[0]
    return np.asarray(data[f"{name}/output"])


@pytest.fixture(scope="session")
def host_outputs(emulated_models: Path) -> dict[str, np.ndarray]:
    return {
        file: run_isolated(emulated_models / file, [[golden_input(emulated_models, file)]])[0][0]
        for file in FILES
    }


@pytest.mark.parametrize("cpu", [A53, A76, X3], ids=lambda cpu: cpu.core)
@pytest.mark.parametrize("file", FILES)
def test_parity_three_ways(
    emulated_models: Path, host_outputs: dict[str, np.ndarray], file: str, cpu: Cpu
) -> None:
    done = run(emulated_models / file, [golden_input(emulated_models, file)], cpu, count=False)
    assert done.feature_problems == ()
    parity = check_parity(done.outputs, [host_outputs[file]], [golden_output(emulated_models, file)])
    assert parity.with_host is not None and parity.with_reference is not None
    assert parity.ok, parity.words
    if "int8" in file:  # integer arithmetic has one right answer
        assert parity.with_host.bit_equal, parity.words
    assert parity.with_reference.cosine > 0.99


@pytest.mark.parametrize("cluster", [0, 1, 2])
def test_every_cluster_of_a_phone_runs_with_its_own_features(emulated_models: Path, cluster: int) -> None:
    profile = load_profile("pixel7")
    done = run(
        emulated_models / "cnn_int8.pte",
        [golden_input(emulated_models, "cnn")],
        profile,
        count=False,
        cluster=cluster,
    )
    assert done.feature_problems == ()
    assert set(done.cpu_features) & set(CHECKED_FEATURES) == set(profile.cpu.clusters[cluster].isa) - {"neon"}


def test_the_kernels_believe_in_the_profiles_core(emulated_models: Path) -> None:
    # cpuinfo's own numbers for A53, A76 and X3 (cpuinfo.h, enum cpuinfo_uarch).
    for cpu, uarch in ((A53, 0x300353), (A76, 0x300376), (X3, 0x300503)):
        assert (
            int(
                run(
                    emulated_models / "cnn.pte", [golden_input(emulated_models, "cnn")], cpu, count=False
                ).uarch
                or "0",
                16,
            )
            == uarch
        )


@pytest.mark.parametrize(
    ("file", "cpu", "runs", "absent"),
    [
        ("cnn_int8.pte", A53, "int8_widening", ("dotprod", "i8mm")),
        ("cnn_int8.pte", A76, "dotprod", ("i8mm",)),
        ("cnn_int8.pte", X3, "i8mm", ()),
        ("cnn_dynamic.tflite", A53, "int8_widening", ("dotprod", "i8mm")),
        ("cnn_dynamic.tflite", A76, "dotprod", ("i8mm",)),
        ("cnn_dynamic.tflite", X3, "i8mm", ()),
        ("cnn_fp16.pte", A53, "fp32_fma", ("fp16_fma",)),
        ("cnn_fp16.pte", A76, "fp16_fma", ("fp32_fma",)),
        ("cnn.pte", A53, "fp32_fma", ("dotprod", "i8mm", "fp16_fma")),
    ],
)
def test_the_mix_proves_which_kernels_ran(
    emulated_models: Path, file: str, cpu: Cpu, runs: str, absent: tuple[str, ...]
) -> None:
    counts = run(emulated_models / file, [golden_input(emulated_models, file)], cpu).counts
    assert counts is not None
    mix = counts.mix()
    assert mix[runs] > 10_000
    assert sum(mix.values()) == counts.instructions
    for group in absent:
        assert mix[group] == 0, group


@pytest.mark.parametrize(
    "file", ["cnn.pte", "cnn_int8.pte", "cnn.tflite", "cnn_dynamic.tflite", "encoder.pte"]
)
def test_five_runs_count_the_same(emulated_models: Path, file: str) -> None:
    seen = [run(emulated_models / file, [golden_input(emulated_models, file)], A76).counts for _ in range(5)]
    assert all(counts is not None and counts.classes == seen[0].classes for counts in seen)  # type: ignore[union-attr]
    misses = [counts.misses["l1d"] for counts in seen if counts is not None]
    assert max(misses) <= 1.01 * min(misses)


@pytest.mark.parametrize("cpu", [A53, A76], ids=lambda cpu: cpu.core)
def test_executed_multiply_accumulates_equal_the_formula(emulated_models: Path, cpu: Cpu) -> None:
    counts = run(emulated_models / "exact.pte", [golden_input(emulated_models, "exact")], cpu).counts
    assert counts is not None
    assert counts.macs == {"fp32": 24 * 24 * 16 * 32, "fp16": 0, "int8": 0, "int16": 0}
    assert 4 * counts.classes["fp32_fma"] == 24 * 24 * 16 * 32


def test_load_is_kept_apart_from_the_inference(emulated_models: Path) -> None:
    done = run(emulated_models / "cnn.pte", [golden_input(emulated_models, "cnn")], A76)
    assert done.load_counts is not None and done.counts is not None
    assert done.load_counts.instructions > 1_000_000  # loading, linking and relocation
    assert done.load_counts.macs["fp32"] == 0


def test_sections_follow_the_profilers_events(emulated_models: Path) -> None:
    done = run(emulated_models / "cnn.pte", [golden_input(emulated_models, "cnn")], A76, per_op=True)
    assert done.counts is not None
    assert sum(section.counts.instructions for section in done.sections) == done.counts.instructions
    named = [section for section in done.sections if section.name]
    macs = [(section.name, section.counts.macs["fp32"]) for section in named if section.counts.macs["fp32"]]
    # conv, depthwise, pointwise, conv, linear: each at least its formula (kernels pad tiles).
    wanted = [("IGEMM", 110_592), ("DWConv", 36_864), ("GEMM", 131_072), ("IGEMM", 589_824), ("GEMM", 320)]
    assert len(macs) == len(wanted)
    for (name, got), (kind, least) in zip(macs, wanted, strict=True):
        assert name is not None and kind in name and least <= got <= 4.1 * least
    assert all(section.counts.total_macs == 0 for section in done.sections if section.name == "")


def test_operators_outside_the_delegate_are_named_too(emulated_models: Path) -> None:
    done = run(emulated_models / "encoder.pte", [golden_input(emulated_models, "encoder")], A76, per_op=True)
    names = [section.name for section in done.sections]
    assert names.count("native_call_native_layer_norm.out") == 2
    assert sum(name is not None and "Batch Matrix Multiply" in name for name in names) == 2


def test_threads_give_the_same_outputs_and_cannot_be_counted(emulated_models: Path) -> None:
    image = [golden_input(emulated_models, "cnn")]
    one, two = (run(emulated_models / "cnn.pte", image, A76, count=False, num_threads=n) for n in (1, 2))
    assert two.threads == 2
    np.testing.assert_array_equal(one.outputs[0], two.outputs[0])
    with pytest.raises(InputError, match="one thread"):
        run(emulated_models / "cnn.pte", image, A76, num_threads=2)


def test_measurements_have_the_one_shape(emulated_models: Path) -> None:
    profile = load_profile("pixel7")
    found = measure_on_emulator(
        emulated_models / "cnn.pte", [golden_input(emulated_models, "cnn")], profile, threads=(1, 2)
    )
    by_metric = {(m["metric"], m["threads"]): m for m in found}
    assert all(m["grade"] == "emulated" and m["target"] == "emulator" for m in found)
    assert by_metric["instructions", 1]["value"] > 100_000
    latency = by_metric["latency_ms", 1]
    assert latency["ci95"][0] < latency["value"] < latency["ci95"][1]
    assert "never timed" in latency["details"]["note"]
    with pytest.raises(InputError, match="has 2 cores"):
        measure_on_emulator(
            emulated_models / "cnn.pte", [golden_input(emulated_models, "cnn")], profile, threads=(4,)
        )
    json.dumps(found)


def test_a_cpu_that_is_not_the_profiles_is_said_in_a_sentence(emulated_models: Path) -> None:
    promised = replace(A76, isa=(*A76.isa, "i8mm"))
    done = run(emulated_models / "cnn.pte", [golden_input(emulated_models, "cnn")], promised)
    found = measurements_of(done, load_profile("raspberry_pi_5"))
    assert found[0]["warnings"] == [
        "the emulated cortex-a76 is not what profile raspberry_pi_5 says: i8mm is missing"
    ]


def test_the_payload_is_whole(emulated_models: Path) -> None:
    from edgeopt.android_harness.emulator import payload

    for runtime in ("executorch", "litert"):
        files = payload(runtime)
        assert {"ld-linux-aarch64.so.1", "libc.so.6", f"{runtime}_runner"} <= set(files)
        assert all(path.is_file() for path in files.values())


@pytest.mark.parametrize(("runtime", "file"), [("executorch", "cnn_int8.pte"), ("litert", "cnn.tflite")])
def test_the_payload_runs_on_a_board_without_a_c_library(
    emulated_models: Path, tmp_path: Path, host_outputs: dict[str, np.ndarray], runtime: str, file: str
) -> None:
    from edgeopt.android_harness.emulator import payload

    place = "/data/local/tmp/edgeopt"
    golden_input(emulated_models, file).tofile(tmp_path / "in.bin")
    with EmulatorTarget(A53) as board:
        assert board.describe().arch == "arm64"
        for name, path in payload(runtime).items():
            board.push(path, f"{place}/{name}")
        board.push(emulated_models / file, f"{place}/{file}")
        board.push(tmp_path / "in.bin", f"{place}/in.bin")
        flags = ["--model", file, "--input", "in.bin", "--output-prefix", "out", "--runs", "2"]
        loader = ["./ld-linux-aarch64.so.1", "--library-path", ".", f"./{runtime}_runner"]
        done = board.execute([*loader, *flags], timeout_s=120, folder=place)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["runtime"] == runtime and len(report["runs_ms"]) == 2
        board.pull(f"{place}/out0.bin", tmp_path / "out.bin")
        failed = board.execute([*loader, "--model", "absent.pte"], timeout_s=120, folder=place)
        assert failed.returncode == 2 and "runner: " in failed.stderr
        board.remove(place)
        with pytest.raises(EdgeoptError, match="is not on the emulated"):
            board.pull(f"{place}/out0.bin", tmp_path / "again.bin")
        with pytest.raises(EdgeoptError, match="leads out"):
            board.push(tmp_path / "in.bin", "../../etc/x")
    output = np.fromfile(tmp_path / "out.bin", np.float32).reshape(host_outputs[file].shape)
    assert check_parity([output], [host_outputs[file]]).ok


def test_describe_tells_the_inputs(emulated_models: Path) -> None:
    for file in ("cnn.pte", "cnn.tflite"):
        inputs = describe(emulated_models / file, A53)["inputs"]
        assert [(row["dtype"], row["shape"]) for row in inputs] == [("float32", [1, 3, 32, 32])]


@pytest.mark.parametrize("file", ["cnn.pte", "cnn.tflite"])
def test_wrong_inputs_end_as_one_sentence(emulated_models: Path, file: str) -> None:
    with pytest.raises(InputError, match="takes 1 inputs, 2 were given"):
        run(emulated_models / file, [np.zeros((1, 3, 32, 32), np.float32)] * 2, A53)
    with pytest.raises(InputError, match="is int8, the model wants float32"):
        run(emulated_models / file, [np.zeros((1, 3, 32, 32), np.int8)], A53)


def test_double_precision_inputs_are_narrowed(emulated_models: Path) -> None:
    image = golden_input(emulated_models, "cnn")
    narrow, wide = (
        run(emulated_models / "cnn.pte", [a], A53, count=False) for a in (image, image.astype(np.float64))
    )
    np.testing.assert_array_equal(narrow.outputs[0], wide.outputs[0])


@pytest.mark.parametrize("file", ["two.pte", "two.tflite"])
def test_two_inputs_and_integers_of_another_width(emulated_models: Path, runnable: Path, file: str) -> None:
    # LiteRT's converter made int32 of the int64 input: the same golden input fits both files.
    inputs = [np.arange(6, dtype=np.int64).reshape(1, 6), np.full((1, 6, 4), 2, np.float32)]
    done = run(runnable / file, inputs, A76, count=False)
    host = run_isolated(runnable / file, [inputs])[0]
    assert [output.shape for output in done.outputs] == [(1, 6, 4), (1,)]
    assert check_parity(done.outputs, host).ok
    assert done.outputs[1][0] == 15


def test_a_corrupt_file_ends_as_one_sentence(emulated_models: Path, tmp_path: Path) -> None:
    for name in ("broken.pte", "broken.tflite"):
        (tmp_path / name).write_bytes(b"not a model" * 100)
        with pytest.raises(EdgeoptError, match=r"^[^\n]+$"):
            run(tmp_path / name, [np.zeros(1, np.float32)], A53)


def test_instructions_the_cpu_lacks_end_as_one_sentence(emulated_models: Path) -> None:
    # A profile that promises more than its qemu_cpu has: the kernels trust the core's name and die.
    liar = Cpu("cortex-a76", 1, 2400, ("neon", "fp16", "dotprod"), 64, 512, None, "cortex-a53")
    with pytest.raises(EdgeoptError, match=r"cortex-a76 \(cortex-a53\) does not have"):
        run(emulated_models / "cnn_int8.pte", [golden_input(emulated_models, "cnn")], liar, count=False)


def test_a_cpu_that_qemu_lacks_is_the_profiles_mistake(emulated_models: Path) -> None:
    unknown = Cpu("cortex-a55", 1, 2000, ("neon",), 32, 128, None, "cortex-a55")
    with pytest.raises(InputError, match=r"no CPU 'cortex-a55': set the profile's reach\.emulator\.qemu_cpu"):
        run(emulated_models / "cnn.pte", [golden_input(emulated_models, "cnn")], unknown, count=False)


def test_x86_profiles_are_refused() -> None:
    with pytest.raises(InputError, match="arm64"):
        cpu_of(load_profile("host"))


def test_profiles_all_have_an_emulated_cpu() -> None:
    from edgeopt.device_profiles import list_profiles

    for entry in list_profiles():
        profile: DeviceProfile = load_profile(entry.name)
        if profile.arch != "arm64" or profile.kind == "host":
            continue
        cpu = cpu_of(profile)
        assert "max" not in cpu.qemu_cpu.split(",") or "sme=off" in cpu.qemu_cpu
