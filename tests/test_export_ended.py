"""Exports that are ended on the way, and exports made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import edgeopt
from edgeopt.cli import main

MODEL = f"{Path(__file__).parent / 'sample_models.py'}"

pytestmark = pytest.mark.slow


def test_a_repeated_export_takes_its_files_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    samples = [torch.ones(1, 8)]

    def export(weight: float, **options: object) -> tuple[list[str], str]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()).eval()
        with torch.no_grad():
            model[0].weight[0, 0] = weight
        said: list[str] = []
        made = edgeopt.export(
            model, profile="pixel7", precision="fp32", example_inputs=samples[0], output=tmp_path / "b",
            force=True, progress=said.append, **options,
        )  # fmt: skip
        return said, made.artifacts[0].sha256

    first, sha256 = export(1.0)
    assert not any("from the cache" in what for what in first)
    again, same = export(1.0)
    assert sum("from the cache" in what for what in again) == 2 and same == sha256
    changed, other = export(2.0)
    assert not any("from the cache" in what for what in changed) and other != sha256
    anew, _ = export(1.0, use_cache=False)
    assert not any("from the cache" in what for what in anew)


def _start(out: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "edgeopt",
        "export",
        f"{MODEL}:net",
        "--no-cache",  # a cached file skips the stages at which this is killed
        "--profile",
        "pixel7",
        "-o",
        str(out),
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "after", ["capturing", "converting", "lowering to LiteRT", "checking", "writing the bundle"]
)
def test_killed_at_any_stage_nothing_looks_whole(after: str, tmp_path: Path) -> None:
    out = tmp_path / "b"
    process = _start(out)
    assert process.stderr is not None
    for line in process.stderr:
        if after in line.decode():
            break
    process.kill()
    if process.wait() == 0:
        return  # it was through before the kill reached it
    whole = [p for p in tmp_path.iterdir() if main(["verify", str(p), "-q"]) == 0]
    assert whole == []
    children = subprocess.run(["pgrep", "-f", str(out)], capture_output=True, text=True, check=False)
    deadline = time.monotonic() + 10
    while children.stdout.strip() and time.monotonic() < deadline:
        time.sleep(0.2)
        children = subprocess.run(["pgrep", "-f", str(out)], capture_output=True, text=True, check=False)
    assert not children.stdout.strip(), "a worker outlived its parent"


def test_ctrl_c_cleans_up_and_the_next_export_sweeps(tmp_path: Path) -> None:
    out = tmp_path / "b"
    process = _start(out)
    assert process.stderr is not None
    for line in process.stderr:
        if b"converting" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert list(tmp_path.iterdir()) == []
    # What a kill leaves behind, the next export of the same bundle removes.
    left = tmp_path / ".b.999999-abcd.partial"
    left.mkdir()
    edgeopt.export(f"{MODEL}:net", profile="pixel7", formats=("tflite",), precision="fp32", output=out)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_ctrl_c_in_the_middle_of_a_fork_is_not_lost() -> None:
    """Python ignores what is raised in the hooks around a fork, so the export once went on."""
    code = (
        "import os, signal, time\n"
        "from edgeopt.converters import workers\n"
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "tasks = [workers.Task('slow', lambda say: time.sleep(60))]\n"
        "try:\n"
        "    workers.run_tasks(tasks, max_parallel=1, on_progress=lambda task, what: None)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted,', len(workers.multiprocessing.active_children()), 'left')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=40
    )
    assert done.stdout == "interrupted, 0 left\n", done.stderr
