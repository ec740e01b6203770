"""What happens when devices misbehave: each fault with its sentence, and two hundred at random.

The runner is a shell script on a native stand-in, so that a run takes a fraction of a second.
"""

from __future__ import annotations

import platform
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from device_benches import QUICK, QUICKEST, Phones, assert_clean, bench, latencies
from device_daemon import Faults
from device_fixtures import Phone
from device_standins import BATTERY, THERMAL, fake_payload

from edgeopt.android_harness import lease as leases
from edgeopt.android_harness.device_session import DeviceSession
from edgeopt.device_profiles import DeviceProfile, load_profile
from edgeopt.errors import EdgeoptError
from edgeopt.results.artifacts import Artifact
from edgeopt.results.device_bench import DeviceBenchOptions, bench_on_devices

RUNS_A_FILE = 2  # shell lines with the runner under QUICKEST: the first process and a timed one


@pytest.fixture
def files(tmp_path: Path) -> list[Artifact]:
    """Two model files; the runner of these tests doesn't read them."""
    found = []
    for name in ("first.tflite", "second $(x) 'n\n.tflite"):
        (tmp_path / name).write_bytes(b"model " + name.encode())
        found.append(Artifact(tmp_path / name, name, "tflite"))
    return found


@pytest.fixture(autouse=True)
def taken_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in on x86 is found out and not timed; these tests need the timed road, so they hide it."""
    monkeypatch.setattr("edgeopt.android_harness.device_facts._emulation", lambda *facts: None)


def test_a_quiet_run_gives_every_figure(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    result, warnings = bench([phone], files, tmp_path)
    assert not result.failures and not warnings
    assert latencies(result) == [file.name for file in files]
    latency = next(r for r in result.run.records if r.metric == "latency_ms")
    assert latency.value == pytest.approx(1.0) and latency.grade == "measured"
    assert latency.target == f"adb:{phone.serial}" and latency.runtime_version == "2.3.0"
    assert latency.conditions["good"] and latency.conditions["battery_percent"] == 81
    assert latency.conditions["skin_c"] == [30.2, 30.2] and latency.conditions["thermal_status"] == "none"
    assert latency.conditions["profile"] == "pixel7"
    memory = next(r for r in result.run.records if r.metric == "peak_memory_mib")
    assert memory.value == pytest.approx(20.0)
    assert_clean(phone)


def test_a_stand_in_is_found_out_and_never_timed(
    phones: Phones, files: list[Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("EDGEOPT_STATE_DIR", str(tmp_path / "state"))
    if platform.machine() == "aarch64":
        pytest.skip("a native stand-in on arm64 is real arm64")
    phone = phones()
    result, warnings = bench([phone], files[:1], tmp_path)
    assert latencies(result) == []
    assert re.search(r"is emulated by an emulator on \w+: no latency", warnings[0])
    assert_clean(phone)


SENTENCES = {
    "killed": (["kill -9 $$"] * 9, "was killed (SIGKILL): most likely the system was short of memory"),
    "crashed": (["kill -SEGV $$"], "crashed (SIGSEGV)"),
    "illegal": (["kill -ILL $$"], "used an instruction that its CPU does not have"),
    "garbage": (["echo '{\"runner\": 1, '; head -c 3000 /dev/urandom"] * 9, "printed no result"),
    "refused": (["echo 'runner: the model takes 2 inputs, 1 were given' >&2; exit 2"], "the model takes 2 inputs"),
    "disk full": (["echo 'runner: cannot write out0.bin: No space left on device' >&2; exit 2"], "has no space left"),
    "cannot start": (["echo 'sh: ./fake_runner: can'\"'\"'t execute: Permission denied' >&2; exit 126"], "can't be started"),
    "unknown exit": (["echo boom >&2; exit 3"], "ended with exit code 3: boom"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SENTENCES)
def test_each_way_a_runner_fails_has_its_sentence(
    phones: Phones, files: list[Artifact], tmp_path: Path, fault: str
) -> None:
    phone = phones()
    scripts, words = SENTENCES[fault]
    phone.daemon.faults.instead = list(scripts)
    phone.daemon.faults.match = "./fake_runner"
    with pytest.raises(EdgeoptError, match=re.escape(words)) as caught:
        bench([phone], files[:1], tmp_path)
    assert "\n" not in str(caught.value)
    assert_clean(phone)


def test_a_runner_killed_once_is_started_again(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    phone.daemon.faults.match = "./fake_runner"
    phone.daemon.faults.instead = ["kill -9 $$", "echo {}"]
    result, _ = bench([phone], files, tmp_path)
    assert latencies(result) == [file.name for file in files] and not result.failures
    assert_clean(phone)


def test_a_hung_runner_is_stopped_and_the_next_file_goes_on(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    phone = phones()
    phone.daemon.faults.match = "./fake_runner"
    phone.daemon.faults.hang_shell = 1
    result, _ = bench([phone], files, tmp_path, timeout_s=1.0)
    assert [str(f) for f in result.failures] == [
        f"the runner on adb:{phone.serial} did not end within 1 s and was stopped."
    ]
    assert latencies(result) == [files[1].name]
    assert_clean(phone)


def test_a_cable_pulled_for_a_moment_costs_nothing(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    phone = phones()
    phone.daemon.faults.match = "./fake_runner"
    phone.daemon.faults.skip, phone.daemon.faults.drop_shell = 1, 1
    result, _ = bench([phone], files, tmp_path)
    assert latencies(result) == [file.name for file in files] and not result.failures
    assert_clean(phone)


def test_a_cable_pulled_for_good_keeps_what_was_measured(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    phone = phones()
    phone.daemon.faults.match = "./fake_runner"
    phone.daemon.faults.skip, phone.daemon.faults.drop_shell, phone.daemon.faults.stay_away_s = 4, 1, 1e9
    result, warnings = bench([phone], files, tmp_path, recover_s=1.0)
    assert latencies(result) == [files[0].name]
    assert re.search(r"was lost and did not come back within 1 s", str(result.failures[0]))
    assert any("the next run on this device removes it" in warning for warning in warnings)
    # Back again: the next run removes what had to stay.
    phone.daemon._away_until = 0.0
    phone.daemon.faults.stay_away_s = 0.0
    assert phone.device.leftovers()
    assert phone.target().wait_back(20)
    result, warnings = bench([phone], files[:1], tmp_path)
    assert latencies(result) == [files[0].name] and not warnings
    assert_clean(phone)


def test_a_loss_within_a_file_keeps_its_processes_so_far(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    phone = phones()
    phone.daemon.faults.match = "./fake_runner"
    phone.daemon.faults.skip, phone.daemon.faults.drop_shell, phone.daemon.faults.stay_away_s = 2, 1, 1e9
    result, _ = bench([phone], files[:1], tmp_path, recover_s=1.0)
    latency = next(r for r in result.run.records if r.metric == "latency_ms")
    assert latency.partial and latency.details["processes"] == 1
    assert latency.warnings[0].startswith("cut short after 1 process(es): adb:")


def test_no_space_left_on_the_device(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    phone.daemon.faults.push_failure = "couldn't write: No space left on device"
    with pytest.raises(EdgeoptError, match=r"has no space left for fake_runner \(0\.0 MB\): free some"):
        bench([phone], files, tmp_path)
    assert_clean(phone)


def test_a_file_damaged_on_the_way_is_pushed_again_once(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    phone = phones()
    phone.daemon.faults.corrupt_push = 1
    result, _ = bench([phone], files[:1], tmp_path)
    assert not result.failures
    phone.daemon.faults.corrupt_push = 9
    with pytest.raises(EdgeoptError, match=r"arrived damaged on adb:.*twice"):
        bench([phone], files[:1], tmp_path)
    assert_clean(phone)


def test_a_32_bit_device_and_an_old_android_are_refused(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    old, narrow = phones("OLD"), phones("NARROW")
    for phone, key, value in (
        (old, "ro.build.version.sdk", "24"),
        (narrow, "ro.product.cpu.abilist", "armeabi-v7a"),
    ):
        path = phone.device.tools / "props.txt"
        path.write_text(re.sub(rf"\[{key}\]: \[[^\]]*\]", f"[{key}]: [{value}]", path.read_text()))
    with pytest.raises(EdgeoptError, match=r"\(API 24\); Android 8\.0 \(API 26\) is the oldest"):
        bench([old], files, tmp_path)
    with pytest.raises(EdgeoptError, match="its ABIs are armeabi-v7a; the payload is 64-bit Arm"):
        bench([narrow], files, tmp_path)
    assert old.device.leftovers() == narrow.device.leftovers() == []


def test_an_x86_board_is_refused(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones(machine="x86_64")
    (phone.device.tools / "props.txt").write_text("")
    with pytest.raises(EdgeoptError, match="it runs x86_64 programs; the payload is 64-bit Arm"):
        bench([phone], files, tmp_path)


def test_the_other_devices_go_on(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    good, bad = phones("GOOD"), phones("BAD")
    bad.daemon.faults.match = "./fake_runner"
    bad.daemon.faults.instead = ["kill -SEGV $$"] * 2
    result, _ = bench([good, bad], files, tmp_path)
    assert {r.target for r in result.run.records if r.metric == "latency_ms"} == {f"adb:{good.serial}"}
    assert len(latencies(result)) == 2
    assert (
        all(f"adb:{bad.serial}" in str(failure) for failure in result.failures) and len(result.failures) == 2
    )
    assert_clean(good)
    assert_clean(bad)


def test_bad_conditions_are_repeated_and_left_out(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    """The device throttles in one process only: the runner raises the status, and the next one lowers it."""
    phone = phones()
    hot = phone.device.tools / "hot.txt"
    hot.write_text(THERMAL.replace("Thermal Status: 0", "Thermal Status: 3"))
    calm = phone.device.tools / "calm.txt"
    calm.write_text(THERMAL)
    now, count = phone.device.tools / "thermalservice.txt", phone.device.base.parent / "count"
    body = (
        f"n=$(($(cat '{count}' 2>/dev/null || echo 0) + 1)); echo $n > '{count}'; "
        f"if [ $n = 2 ]; then cp '{hot}' '{now}'; else cp '{calm}' '{now}'; fi"
    )
    result, _ = bench([phone], files[:1], tmp_path, body)
    latency = next(r for r in result.run.records if r.metric == "latency_ms")
    assert latency.conditions["good"] and latency.details["processes_left_out"] == 2
    assert "2 of 4 processes were left out because their conditions were bad" in latency.warnings


def test_conditions_that_stay_bad_are_said(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    (phone.device.tools / "battery.txt").write_text(
        BATTERY.replace("level: 81", "level: 7").replace("USB powered: true", "USB powered: false")
    )
    result, _ = bench([phone], files[:1], tmp_path)
    latency = next(r for r in result.run.records if r.metric == "latency_ms")
    assert not latency.conditions["good"] and latency.details["processes"] == 4
    assert any("the battery is at 7%" in warning for warning in latency.warnings)


def test_a_hot_device_is_waited_for_and_measured_when_the_limit_is_over(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    phone = phones()
    path = phone.device.tools / "thermalservice.txt"
    path.write_text(THERMAL.replace("mValue=30.2", "mValue=39.0"))
    result, _ = bench([phone], files[:1], tmp_path, cool_timeout_s=0.3)
    latency = next(r for r in result.run.records if r.metric == "latency_ms")
    assert any(
        re.search(r"was still at 39 °C after \d s of cooling \(goal 33 °C\)", w) for w in latency.warnings
    )


def test_a_lease_keeps_two_from_one_device(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    phone = phones()
    told: list[str] = []
    with (
        leases.lease("28281FDH", "x", wait_s=0, say=told.append),
        pytest.raises(EdgeoptError, match=r"is in use by process \d+; waited 0\.3 s.*--wait"),
    ):
        bench([phone], files, tmp_path, wait_s=0.3)
    assert phone.device.leftovers() == []
    result, _ = bench([phone], files[:1], tmp_path)
    assert latencies(result)


def test_an_interrupt_cleans_up_and_keeps_what_was_measured(
    phones: Phones, files: list[Artifact], tmp_path: Path
) -> None:
    phone = phones()
    payload = fake_payload(tmp_path)
    seen: list[str] = []

    def say(name: str, what: str) -> None:
        seen.append(what)
        if what.startswith("second") and what.endswith("first process"):
            raise KeyboardInterrupt

    options = DeviceBenchOptions(make_payload=lambda runtime: payload, compare_with_host=False)
    result, _ = bench_on_devices([phone.target()], files, QUICK, options, say=say)
    assert result.interrupted and latencies(result) == [files[0].name]
    assert_clean(phone)


def test_ctrl_c_while_tidying_up_leaves_nothing(phones: Phones) -> None:
    phone = phones()
    target = phone.target()
    remove, pressed = target.remove, []

    def interrupted(path: str) -> None:
        if not pressed:
            pressed.append(path)
            raise KeyboardInterrupt
        remove(path)

    with pytest.raises(KeyboardInterrupt), DeviceSession(target, recover_s=5.0):
        target.remove = interrupted  # type: ignore[method-assign]
    assert pressed
    assert_clean(phone)


def test_a_session_ends_what_still_runs(phones: Phones, tmp_path: Path) -> None:
    phone = phones()
    with DeviceSession(phone.target(), recover_s=5.0) as session:
        session.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 &"], timeout_s=5.0)
        assert phone.device.processes()
    assert_clean(phone)


def _random_fault(chance: random.Random, phone: Phone) -> str:
    """Set one fault up; its name."""
    faults = phone.daemon.faults
    faults.match = chance.choice(["./fake_runner"] * 4 + ["sha256sum", "mkdir", "thermalservice", "rm -rf"])
    faults.skip = chance.randrange(0, 6)
    kind = chance.choice(
        ["drop", "drop away", "gone", "push drop", "push full", "push damage", "hang", "kill", "crash", "garbage",
         "noise", "exit"]
    )  # fmt: skip
    if kind == "drop":
        faults.drop_shell = chance.choice([1, 2])
    elif kind in ("drop away", "gone"):
        faults.drop_shell = 1
        faults.stay_away_s = 0.2 if kind == "drop away" else 1e9
    elif kind == "push drop":
        faults.drop_push = 1
    elif kind == "push full":
        faults.push_failure = "write failed: No space left on device"
    elif kind == "push damage":
        faults.corrupt_push = chance.choice([1, 2, 3])
    elif kind == "hang":
        faults.match, faults.hang_shell = "./fake_runner", 1
    else:
        script = {
            "kill": "kill -9 $$", "crash": "kill -SEGV $$", "garbage": "head -c 500 /dev/urandom",
            "noise": "head -c 2000000 /dev/zero; exit 9", "exit": "exit 1",
        }[kind]  # fmt: skip
        faults.instead = [script] * chance.choice([1, 4])
    return kind


@pytest.mark.slow
def test_two_hundred_random_faults(phones: Phones, files: list[Artifact], tmp_path: Path) -> None:
    """No hang, one clear sentence each, nothing left behind, no result lost that was there before the fault.

    Four phones take fifty each, side by side.
    """
    pixel7 = load_profile("pixel7")
    attached = [phones(f"PHONE{number}") for number in range(4)]

    def fifty(number: int) -> tuple[int, int]:
        folder = tmp_path / f"work-{number}"
        folder.mkdir()
        return _fifty_faults(attached[number], files, folder, pixel7, random.Random(20261122 + number))

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(fifty, range(4)))
    survived, failed = (sum(column) for column in zip(*outcomes, strict=True))
    print(f"{survived} runs survived their fault, {failed} ended with a sentence")
    assert survived + failed == 200 and survived > 40 and failed > 40


def _fifty_faults(
    phone: Phone, files: list[Artifact], folder: Path, profile: DeviceProfile, chance: random.Random
) -> tuple[int, int]:
    """How many of fifty runs survived their fault, and how many ended with a sentence."""
    identity = re.search(r"ro.serialno\]: \[(\w+)", (phone.device.tools / "props.txt").read_text())
    assert identity
    survived = failed = 0
    for number in range(50):
        phone.daemon.faults = Faults()
        kind = _random_fault(chance, phone)
        match, skip = phone.daemon.faults.match, phone.daemon.faults.skip
        started = time.monotonic()
        where = f"{phone.serial}, {number}: {kind} at {match!r} after {skip}"
        first_is_safe = match == "./fake_runner" and skip >= RUNS_A_FILE and not kind.startswith("push")
        try:
            result, _ = bench(
                [phone], files, folder, measure=QUICKEST, profile=profile, cool_down=False, timeout_s=1.5,
                recover_s=0.3 if kind == "gone" else 5.0,
            )  # fmt: skip
            sentences = [str(failure) for failure in result.failures]
            assert not first_is_safe or files[0].name in latencies(result), where
        except EdgeoptError as error:
            sentences = [str(error)]
            assert not first_is_safe, f"{where}: {error}"
        survived += not sentences
        failed += bool(sentences)
        assert time.monotonic() - started < 30, where
        clear = (len(s) < 400 and "\n" not in s and "Traceback" not in s for s in sentences)
        assert all(clear), (where, sentences)
        phone.daemon.faults = Faults()
        phone.daemon._away_until = 0.0
        assert phone.target().wait_back(20), where
        if phone.device.leftovers():
            # The device was away at the end: the journal knows, and the next contact removes it.
            assert leases.leftovers(identity[1]) or leases.leftovers(phone.target().address), where
            with DeviceSession(phone.target()):
                pass
        assert_clean(phone)
    return survived, failed
