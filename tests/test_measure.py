"""The measurement protocol: steady state, fresh processes, conditions, sustained runs, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child_processes import wait_until_busy

from edgeopt.android_harness import measure as protocol
from edgeopt.android_harness.conditions import Conditions, judge, snapshot
from edgeopt.android_harness.measure import MeasureOptions, check_options, measure, timeline, worst_of
from edgeopt.android_harness.measure_worker import example_inputs, until_tight, warm_up
from edgeopt.android_harness.session import Session, interleave
from edgeopt.android_harness.target import HostTarget
from edgeopt.errors import EdgeoptError, InputError
from edgeopt.runtimes import TensorSpec

QUICK = MeasureOptions(processes=2, max_time_s=2, run_time_s=0.2)


class Clock:
    """Stands for a loaded model: each inference takes what the list says, in turn, then the last one."""

    def __init__(self, times: list[float]) -> None:
        self.times = times
        self.calls = 0

    def once(self) -> float:
        self.calls += 1
        return self.times[min(self.calls, len(self.times)) - 1]

    def for_seconds(self, seconds: float, *, least: int = 1, most: int = 10**9) -> list[float]:
        taken: list[float] = []
        while len(taken) < least or (sum(taken) < seconds * 1e3 and len(taken) < most):
            taken.append(self.once())
        return taken


class Never:
    asked = False


def test_warm_up_lasts_until_the_time_no_longer_falls() -> None:
    falling = [10 * 0.9**i for i in range(20)]
    bench: Any = Clock([*falling, *[1.2] * 500])
    warm = warm_up(bench, 3, 5.0, Never())  # type: ignore[arg-type]
    assert warm["steady"]
    assert bench.calls >= 20


def test_warm_up_gives_up_and_says_so() -> None:
    bench: Any = Clock([1000 * 0.97**i for i in range(3000)])
    warm = warm_up(bench, 3, 0.0, Never())  # type: ignore[arg-type]
    assert not warm["steady"]
    assert warm["warmup_runs"] >= 3


def test_a_fixed_number_of_runs_is_kept() -> None:
    bench: Any = Clock([1.0])
    assert len(until_tight(bench, {"num_runs": 7}, Never())) == 7  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_threads": 0}, "--num-threads"),
        ({"cpu_affinity": (9999,)}, "--cpu-affinity names CPU 9999"),
        ({"processes": 0}, "--processes"),
        ({"rate_hz": 0.0}, "--rate"),
        ({"duration_s": -1.0}, "--duration"),
        ({"num_runs": 0}, "--num-runs"),
        ({"inputs": Path("no.npz")}, r"no\.npz does not exist"),
    ],
)
def test_wrong_options_name_the_option(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_options(replace(QUICK, **changes))


def test_example_inputs_fit_their_specs() -> None:
    specs = [
        TensorSpec("x", (-1, 3), "float32"),
        TensorSpec("q", (4,), "int8"),
        TensorSpec("ids", (5,), "int64"),
        TensorSpec("mask", (2,), "bool"),
    ]
    values = example_inputs(specs)
    assert [v.dtype.name for v in values] == ["float32", "int8", "int64", "bool"]
    assert values[0].shape == (1, 3)
    assert set(values[2].tolist()) <= {0, 1}
    with pytest.raises(InputError, match="--inputs"):
        example_inputs([TensorSpec("s", (1,), "bytes")])


def fake_take(
    monkeypatch: pytest.MonkeyPatch, problems: list[list[str]], times: list[list[float]]
) -> list[int]:
    """Replace the fresh process by prepared results; returns a counter of how many were started."""
    started: list[int] = []

    def take(path: Path, runtime: str, options: MeasureOptions) -> protocol.Take:
        number = len(started)
        started.append(number)
        at = min(number, len(problems) - 1)
        result = {
            "times_ms": times[min(number, len(times) - 1)],
            "partial": False,
            "steady": True,
            "warmup_runs": 3,
        }
        return protocol.Take(result, Conditions({"device": "test"}, tuple(problems[at])))

    monkeypatch.setattr(protocol, "_take", take)
    monkeypatch.setattr(protocol, "check_file", lambda path: None)
    return started


def test_bad_processes_are_repeated_and_not_averaged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_take(monkeypatch, [["hot"], [], [], []], [[9.0] * 50, [1.0] * 50])
    found = measure(Path("a.tflite"), MeasureOptions(processes=2))
    assert found.summary.median_ms == 1.0
    assert found.conditions["good"]
    assert any("1 of 3 processes were left out" in w for w in found.warnings)


def test_when_all_conditions_are_bad_the_measurement_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_take(monkeypatch, [["load average 9"]], [[1.0] * 50])
    found = measure(Path("a.tflite"), MeasureOptions(processes=2, max_time_s=0.01))
    assert not found.conditions["good"]
    assert found.conditions["problems"] == ["load average 9"]
    assert any("measured under bad conditions" in w for w in found.warnings)


def test_processes_are_added_until_the_interval_is_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = fake_take(monkeypatch, [[]], [[1.0] * 50])
    measure(Path("a.tflite"), MeasureOptions(processes=3))
    assert len(tight) == 3
    scattered = fake_take(monkeypatch, [[]], [[1.0] * 50, [1.2] * 50, [0.9] * 50, [1.0] * 50])
    measure(Path("a.tflite"), MeasureOptions(processes=3, ci_goal=0.05))
    assert len(scattered) > 4


def test_the_worst_of_each_kind_of_problem_is_kept() -> None:
    found = worst_of(["others used 20% of it", "others used 51% of it", "90 °C", "others used 3% of it"])
    assert found == ["others used 51% of it", "90 °C"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pte", "tflite"])
def test_a_file_is_measured_in_fresh_processes(runnable: Path, suffix: str) -> None:
    found = measure(runnable / f"cnn.{suffix}", QUICK)
    assert found.summary.runs >= 10
    assert 0.05 < found.summary.median_ms < 500
    assert found.summary.min_ms <= found.summary.median_ms
    result = found.takes[0].result
    assert result["load_ms"] > 0
    assert result["first_inference_ms"] > 0
    assert 0 <= result["peak_mib"] < 500
    assert result["cpu_ms"] == pytest.approx(found.summary.median_ms, rel=2)
    assert (result["planned_mib"] is not None) == (suffix == "pte")


@pytest.mark.slow
def test_a_sustained_run_keeps_the_pace_of_a_camera(runnable: Path) -> None:
    found = measure(runnable / "cnn.tflite", replace(QUICK, duration_s=1.5, rate_hz=20.0))
    assert 20 <= found.summary.runs <= 31
    points = timeline(found.takes[0], bins=5)
    assert [t for t, _ in points] == sorted(t for t, _ in points)
    assert all(value > 0 for _, value in points)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(runnable: Path) -> None:
    def interrupt() -> None:
        try:
            wait_until_busy(os.getpid(), "measure_worker", 2.0)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    found = measure(runnable / "cnn.tflite", MeasureOptions(duration_s=60.0))
    assert found.partial
    assert found.summary.runs > 3


@pytest.mark.slow
def test_sessions_take_turns(runnable: Path) -> None:
    with Session(runnable / "cnn.tflite", QUICK) as a, Session(runnable / "two.tflite", QUICK) as b:
        taken = interleave([a, b], slices=3, slice_s=0.01)
        assert [len(one) for one in taken] == [3, 3]
        assert np.median(taken[0][0]) > np.median(taken[1][0])
        assert b.count(0.05) > 5


def test_what_other_processes_take_of_a_slice_is_not_counted() -> None:
    """A run longer than the scheduler's slice, beside a process that never rests on the same CPU."""
    code = """
import json, os, subprocess, sys, time
from edgeopt.android_harness.measure_worker import Bench
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
class Model:
    def prepare(self, inputs):
        pass
    def invoke(self):
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
bench = Bench.__new__(Bench)
bench.model, bench.inputs, bench.one_thread = Model(), [], True
busy = "print(1, flush=True)\\nwhile True: pass"
neighbour = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
try:
    neighbour.stdout.readline()
    wall = time.perf_counter()
    times, broken = bench.slice(0.8, 8)
    wall = time.perf_counter() - wall
finally:
    neighbour.kill()
print(json.dumps([sorted(times)[len(times) // 2], broken, len(times), 1e3 * wall / len(times)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    median_ms, broken, runs, wall_ms = json.loads(done.stdout)
    assert broken > runs / 2
    assert wall_ms > 28  # the neighbour had its share
    assert 19.5 < median_ms < 22


@pytest.mark.slow
def test_a_session_that_dies_names_file_and_signal(runnable: Path) -> None:
    with Session(runnable / "cnn.tflite", QUICK) as session:
        _ = session.start
        session._child.send_signal(signal.SIGSEGV)
        with pytest.raises(EdgeoptError, match=r"cnn\.tflite crashed the litert runtime \(SIGSEGV\)"):
            session.run(0.01)


def fake_root(root: Path, *, khz: int, celsius: float, status: str, busy: int, steal: int) -> Path:
    files = {
        "proc/stat": f"cpu  {busy} 0 0 1000 0 0 0 {steal} 0 0\n",
        "proc/loadavg": "0.5 0.4 0.3 1/100 999\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": f"{khz}\n",
        "sys/class/thermal/thermal_zone0/temp": f"{round(celsius * 1000)}\n",
        "sys/class/power_supply/BAT0/type": "Battery\n",
        "sys/class/power_supply/BAT0/status": f"{status}\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "0\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_conditions_are_judged_in_words(tmp_path: Path) -> None:
    quiet = snapshot(fake_root(tmp_path / "a", khz=2_000_000, celsius=40, status="Full", busy=100, steal=0))
    assert judge(quiet, quiet, 1.0).problems == ()
    assert judge(quiet, quiet, 1.0).facts["governor"] == "schedutil"
    bad = snapshot(
        fake_root(tmp_path / "b", khz=1_000_000, celsius=91, status="Discharging", busy=1100, steal=200)
    )
    words = " | ".join(judge(quiet, bad, 2.0).problems)
    for part in ("other processes used", "hypervisor", "clock fell by 50%", "91 °C", "battery"):
        assert part in words


def test_the_host_target_has_the_verbs(tmp_path: Path) -> None:
    host = HostTarget()
    (tmp_path / "a").write_text("hello")
    host.push(tmp_path / "a", str(tmp_path / "far/b"))
    done = host.execute(["cat", str(tmp_path / "far/b")], timeout_s=10)
    assert (done.returncode, done.stdout) == (0, "hello")
    host.pull(str(tmp_path / "far/b"), tmp_path / "back/c")
    assert (tmp_path / "back/c").read_text() == "hello"
    host.remove(str(tmp_path / "far"))
    host.remove(str(tmp_path / "far"))
    assert not (tmp_path / "far").exists()
    with pytest.raises(EdgeoptError, match="no-such-command"):
        host.execute(["no-such-command"], timeout_s=1)
    with pytest.raises(EdgeoptError, match="did not end within"):
        host.execute(["sleep", "5"], timeout_s=0.1)
    assert host.describe().arch
