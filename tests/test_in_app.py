"""Measuring in the sample app over adb. The phone's am, pm, pidof and logcat are scripts; the log they replay was
printed by the template's own Kotlin (tests/app_logs, written and compared by test_app_kotlin.py)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_fixtures import Phone
from device_standins import fake_payload, write_script

from edgeopt.android_harness.in_app import AppRunner, check_package, read_log
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.cli.app import main
from edgeopt.errors import EdgeoptError, InputError
from edgeopt.results.artifacts import Artifact
from edgeopt.results.bench import BenchResult
from edgeopt.results.device_bench import DeviceBenchOptions, bench_on_devices
from edgeopt.results.in_app import beside_shell

LOGS = Path(__file__).parent / "app_logs"
PACKAGE = "com.acme.vision.sample"
Phones = Callable[..., Phone]
REPORT = (LOGS / "report.log").read_text()
RUNS_MS = tuple(json.loads(REPORT.partition(" 1/1 ")[2])["runs_ms"])
# The shell's runner of these tests says 1 ms.
SENTENCE = (
    f"carried.pte, 2 threads: shell 1 ms, in the app {np.median(RUNS_MS):.3g} ms, {np.median(RUNS_MS):.1f}x"
)

AM = r"""#!/bin/sh
d="${0%/*}/app"
echo "$*" >> "$d/calls"
case "$1" in
force-stop) rm -f "$d/pid" ;;
start)
  cat "$d/answer"
  for word in "$@"; do [ "$last" = id ] && echo "$word" > "$d/id"; last="$word"; done
  [ -e "$d/dies" ] || echo 4210 > "$d/pid" ;;
esac
"""
LOGCAT = r"""#!/bin/sh
d="${0%/*}/app"
echo "--------- beginning of main"
sed "s/0a1b2c3d/$(cat "$d/id")/" "$d/log"
"""


class App:
    """The sample app installed on a stand-in phone: what it prints, and how it ends."""

    def __init__(self, phone: Phone, log: str, artifact: Path | None = None) -> None:
        tools = phone.device.tools
        self.folder = tools / "app"
        self.folder.mkdir()
        if artifact is not None:
            digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
            log = re.sub(r'("model_sha256": )"\w+"', rf'\1"{digest}"', log)
        self.log(log)
        (self.folder / "id").write_text("none")
        (self.folder / "answer").write_text("Starting: Intent { ... }\nStatus: ok\n")
        write_script(tools / "am", AM)
        write_script(tools / "logcat", LOGCAT)
        write_script(tools / "pm", "#!/bin/sh\necho package:/data/app/base.apk\n")
        write_script(tools / "pidof", '#!/bin/sh\ncat "${0%/*}/app/pid" 2>/dev/null\n')

    def log(self, text: str) -> None:
        (self.folder / "log").write_text(text)

    def dies(self) -> None:
        (self.folder / "dies").touch()

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def files(tmp_path: Path) -> list[Artifact]:
    found = []
    for name in ("other.tflite", "carried.pte"):
        (tmp_path / name).write_bytes(b"model " + name.encode())
        found.append(Artifact(tmp_path / name, name, name.rpartition(".")[2]))
    return found


@pytest.fixture(autouse=True)
def taken_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeopt.android_harness.device_facts._emulation", lambda *facts: None)


def golden(name: str = "report") -> str:
    return REPORT if name == "report" else (LOGS / f"{name}.log").read_text()


def bench(
    phone: Phone, files: Sequence[Artifact], folder: Path, **settings: Any
) -> tuple[BenchResult, list[str]]:
    payload = fake_payload(folder)
    device = DeviceBenchOptions(
        make_payload=lambda runtime: payload, compare_with_host=False, recover_s=5.0, wait_s=5.0, in_app=PACKAGE,
        **{"timeout_s": 10.0, **settings},
    )  # fmt: skip
    np.savez(folder / "inputs.npz", image=np.zeros((1, 4), np.float32))
    options = MeasureOptions(processes=2, max_time_s=0.1, num_runs=8, inputs=folder / "inputs.npz")
    return bench_on_devices([phone.target()], files, options, device, threads=(2,))


def sentence_of(phone: Phone, files: Sequence[Artifact], folder: Path, **settings: Any) -> str:
    with pytest.raises(EdgeoptError) as caught:
        bench(phone, files, folder, **settings)
    words = str(caught.value)
    assert words.endswith((".", "?")) and "\n" not in words
    return words


def test_app_and_shell_stand_side_by_side(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    stale = golden().replace("0a1b2c3d", "ffffffff").replace("0.3", "9.9")
    app = App(phone, stale + golden(), files[1].path)
    result, _ = bench(phone, files, tmp_path)
    assert not result.failures
    latencies = {r.target: r for r in result.run.records if r.metric == "latency_ms"}
    assert set(latencies) == {f"app:{phone.serial}", f"adb:{phone.serial}"}
    inside, shell = latencies[f"app:{phone.serial}"], latencies[f"adb:{phone.serial}"]
    assert inside.artifact == shell.artifact == "carried.pte"  # the other file isn't in the app
    assert inside.samples == (RUNS_MS, RUNS_MS) and inside.value == pytest.approx(np.median(RUNS_MS))
    assert inside.grade == "measured" and inside.runtime == "executorch" and inside.threads == 2
    assert inside.conditions["package"] == PACKAGE and inside.conditions["runner"] == "app"
    assert inside.conditions["delegates"] == "XNNPACK" and "package" not in shell.conditions
    assert {r.metric for r in result.run.records if r.target == inside.target} == {
        "latency_ms", "first_inference_ms", "load_ms", "peak_memory_mib",
    }  # fmt: skip
    (compared,) = beside_shell([r.as_json() for r in result.run.records])
    assert compared["ratio"] == pytest.approx(inside.value / 1.0)
    assert compared["sentence"] == SENTENCE
    starts = [call for call in app.calls() if call.startswith("start")]
    assert len(starts) == 3 and all(f"-S -W -n {PACKAGE}/.BenchmarkActivity" in call for call in starts)
    assert starts[0].endswith("--ei threads 2 --ei warmup 1 --ei runs 5") and starts[2].endswith(
        "--ei runs 8"
    )
    assert app.calls()[-1] == f"force-stop {PACKAGE}"
    assert phone.device.leftovers() == []


def test_a_report_in_parts_is_put_together(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    line = golden().rstrip("\n")
    head, text = line.split(" 1/1 ", 1)
    middle = len(text) // 2
    app = App(phone, line, files[1].path)
    whole = (app.folder / "log").read_text().split(" 1/1 ", 1)[1]
    app.log(f"{head} 1/2 {whole[:middle]}\n{head} 2/2 {whole[middle:]}\n")
    result, _ = bench(phone, files, tmp_path)
    assert not result.failures


def test_another_model_is_refused(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    App(phone, golden())
    words = sentence_of(phone, files, tmp_path)
    assert re.search(r"carries another model \(SHA-256 \w{12}\.\.\.\) than other.tflite, carried.pte", words)
    assert "--update" in words


def test_an_app_that_is_not_there(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    App(phone, golden())
    write_script(phone.device.tools / "pm", "#!/bin/sh\nexit 1\n")
    assert "is not installed on" in sentence_of(phone, files, tmp_path)


def test_an_app_that_is_another_one(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    app = App(phone, golden())
    answer = f"Error type 3\nError: Activity class {{{PACKAGE}/.BenchmarkActivity}} does not exist.\n"
    (app.folder / "answer").write_text(answer)
    assert "has no BenchmarkActivity: it is not the sample app" in sentence_of(phone, files, tmp_path)


def test_an_app_of_an_older_edgeopt(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    App(phone, golden().replace("0a1b2c3d 1/1 ", ""))
    assert "was made by an older edgeopt" in sentence_of(phone, files, tmp_path)


def test_a_model_that_the_app_cannot_run(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    App(phone, golden("failure"))
    words = sentence_of(phone, files, tmp_path)
    assert "can't run its model: asset edgeopt/tiny_net/model.pte is not the file that was exported" in words


JAVA_CRASH = f"""E/AndroidRuntime: FATAL EXCEPTION: main
E/AndroidRuntime: Process: com.other, PID: 1
E/AndroidRuntime: java.lang.Error: not ours
E/AndroidRuntime: FATAL EXCEPTION: benchmark
E/AndroidRuntime: Process: {PACKAGE}, PID: 4210
E/AndroidRuntime: java.lang.UnsatisfiedLinkError: no executorch
E/AndroidRuntime: \tat A.b(C.kt:1)
"""
NATIVE_CRASH = """F/libc    : Fatal signal 6 (SIGABRT), code -1 in tid 7 (main), pid 7 (com.other.sampler)
F/libc    : Fatal signal 11 (SIGSEGV), code 1 (SEGV_MAPERR) in tid 4231 (benchmark), pid 4210 (e.vision.sample)
"""


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (JAVA_CRASH, "java.lang.UnsatisfiedLinkError: no executorch"),
        (NATIVE_CRASH, "Fatal signal 11 (SIGSEGV)"),
        ("", "it ended without a word in the log"),
    ],
    ids=["java", "native", "silent"],
)
def test_an_app_that_crashes(
    phones: Phones, files: list[Artifact], tmp_path: Path, log: str, why: str
) -> None:
    phone = phones()
    App(phone, log).dies()
    words = sentence_of(phone, files, tmp_path)
    assert f"{PACKAGE} crashed on adb:{phone.serial}: {why}" in words and "not ours" not in words


def test_the_last_words_of_a_process_are_waited_for(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    """It dies between the reading of the log and the look at its process: the log has the reason by then."""
    phone = phones()
    app = App(phone, JAVA_CRASH)
    app.dies()
    late = LOGCAT.replace("sed ", '[ -e "$d/looked" ] || { touch "$d/looked"; exit; }\nsed ')
    write_script(phone.device.tools / "logcat", late)
    assert "UnsatisfiedLinkError: no executorch" in sentence_of(phone, files, tmp_path)


def test_an_interrupt_while_the_app_starts_stops_it(
    phones: Phones, files: list[Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = phones()
    app = App(phone, golden(), files[1].path)

    def interrupted(runner: AppRunner, said: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AppRunner, "_check_started", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench(phone, files, tmp_path)
    assert app.calls()[-1] == f"force-stop {PACKAGE}"
    assert phone.device.leftovers() == []


def test_an_app_that_says_nothing_is_stopped(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    app = App(phone, golden().replace("0a1b2c3d", "ffffffff"))
    assert "printed no result within 1 s and was stopped" in sentence_of(
        phone, files, tmp_path, timeout_s=1.0
    )
    assert app.calls()[-1] == f"force-stop {PACKAGE}"


def test_a_log_that_lost_lines(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    app = App(phone, golden().replace(" 1/1 ", " 2/2 "))
    assert "dropped a part of the app's report" in sentence_of(phone, files, tmp_path)
    assert len([call for call in app.calls() if call.startswith("start")]) == 3  # it was tried again


@pytest.mark.parametrize("broken", ['"runner": 2', '"where": "shell"', '"runs_ms": [x'])
def test_a_report_that_is_none(phones: Phones, files: list[Artifact], tmp_path: Path, broken: str) -> None:
    phone = phones()
    key = broken.partition(":")[0]
    App(phone, re.sub(rf"{key}: (\[[^]]*|[^,]+)", broken, golden()))
    assert "printed something that is no report" in sentence_of(phone, files, tmp_path)


def test_the_log_of_nobody() -> None:
    log = read_log("", "0a1b2c3d", PACKAGE)
    assert log.report is None and not log.alive and not log.rotated and log.crash is None


@pytest.mark.parametrize(
    "name", ["", "vision", "com.acme; reboot", "com..acme", "com.acme/.Other", "1com.acme"]
)
def test_what_is_no_package_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is not an app's id"):
        check_package(name)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--on", "host", "--in-app", "--package", PACKAGE], "--in-app goes with --on adb"),
        (["--on", "adb", "--in-app"], "--in-app needs the id"),
        (["--on", "adb", "--package", PACKAGE], "--package goes with --in-app"),
    ],
)
def test_options_that_do_not_go_together(
    words: list[str], sentence: str, files: list[Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(files[1].path), *words, "--no-store"]) == 2
    assert sentence in capsys.readouterr().err


def test_the_command_says_both_and_the_ratio(
    phones: Phones,
    files: list[Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    phone = phones()
    App(phone, golden(), files[1].path)
    payload = fake_payload(tmp_path)
    monkeypatch.setattr("edgeopt.results.device_bench.own_payload", lambda runtime: payload)
    monkeypatch.setattr("edgeopt.android_harness.device_measure._parity", lambda *everything: None)
    monkeypatch.setattr(
        "edgeopt.android_harness.discovery.targets_of", lambda on, accept_host_key: [phone.target()]
    )
    np.savez(tmp_path / "inputs.npz", image=np.zeros((1, 4), np.float32))
    words = [
        "bench", str(files[1].path), "--on", f"adb:{phone.serial}", "--in-app", "--package", PACKAGE, "-t", "2",
        "--inputs", str(tmp_path / "inputs.npz"), "--max-time", "0.1", "--processes", "1", "--no-store",
    ]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr()
    assert SENTENCE in printed.out
    assert f"app:{phone.serial}" in printed.out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [c["app"] for c in found["comparisons"]] == [f"app:{phone.serial}"]
    replaced = replace(files[1], precision=None)
    assert found["measurements"][0]["artifact_sha256"] == replaced.sha256()
