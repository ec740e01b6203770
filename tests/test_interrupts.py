"""Commands that are ended by a signal: by SIGTERM or a closed terminal as by Ctrl-C, and without any chance to tidy up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from child_processes import wait_until_busy

SAMPLES = Path(__file__).parent / "sample_models.py"
pytestmark = pytest.mark.slow


def _start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgeopt", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        # A suite that nohup started ignores SIGHUP, and its children would.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def _bench(runnable: Path, folder: Path) -> subprocess.Popen[str]:
    child = _start(["bench", str(runnable / "cnn.tflite"), "--json", "--duration", "60"], folder)
    wait_until_busy(child.pid, "measure_worker", 2.0)
    return child


def _working_in(folder: Path) -> list[str]:
    """Command lines of the processes that were given a file or folder in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(folder).encode() in command:
            found.append(command.decode(errors="replace"))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_bench_that_is_ended_keeps_what_it_measured(
    number: signal.Signals, runnable: Path, tmp_path: Path
) -> None:
    child = _bench(runnable, tmp_path)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number, err
    found = json.loads(out)
    assert found["measurements"][0]["partial"] and found["ok"] is False
    assert [error.partition(":")[0] for error in found["errors"]] == [f"ended by {number.name}"]
    assert not list(tmp_path.iterdir()) and not _working_in(tmp_path)


def test_a_bench_that_is_killed_leaves_no_process_behind(runnable: Path, tmp_path: Path) -> None:
    child = _bench(runnable, tmp_path)
    assert _working_in(tmp_path)
    child.kill()
    child.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while _working_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _working_in(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGTERM, "ended by SIGTERM"), (signal.SIGINT, "interrupted")]
)
def test_an_export_that_is_ended_says_so_and_tidies_up(
    number: signal.Signals, words: str, tmp_path: Path
) -> None:
    temporary, out = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    out.mkdir()
    child = _start(
        ["export", f"{SAMPLES}:net", "--no-cache", "--json", "--profile", "pixel7", "-o", str(out / "b")],
        temporary,
    )
    wait_until_busy(child.pid, "edgeopt", 0.5)  # the process of a format
    child.send_signal(number)
    found, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number, err
    assert json.loads(found)["errors"] == [words]
    assert not list(out.iterdir()) and not list(temporary.glob("edgeopt*"))


def test_a_closed_terminal_does_not_end_what_nohup_started(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from edgeopt.cli import interrupts\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with interrupts.taken_as_ctrl_c():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except KeyboardInterrupt:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"  # the group's copy must not cut the tidying up short
        "        print(interrupts.reason(), interrupts.exit_code())\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["ended", "by", "SIGTERM", "143", "True"]
