"""The process that holds TensorFlow leaves nothing behind, however either side ends; without TensorFlow itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgeopt.converters.keras import client

# Answers like the worker, after it has made a temporary file as TensorFlow's autograph does.
_LITTERS = """
import json, sys, tempfile
name = tempfile.NamedTemporaryFile(prefix="__autograph_generated_file", delete=False).name
for line in sys.stdin:
    print(json.dumps({"result": {"file": name}}), flush=True)
"""


def test_what_a_conversion_leaves_in_its_temporary_folder_goes_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "keras_python", lambda progress: Path(sys.executable))
    monkeypatch.setattr(client, "python_command", lambda module, python: [str(python), "-c", _LITTERS])
    worker = client.KerasWorker(lambda what: None)
    left = Path(worker.versions["file"])
    assert left.exists() and left.parent != Path(tempfile.gettempdir())
    worker.close()
    assert not left.exists() and not worker.folder.exists()


def test_the_worker_removes_its_folder_when_the_other_side_died(tmp_path: Path) -> None:
    from edgeopt.runtimes.isolation import python_command

    folder = tmp_path / "exchange"
    (folder / "tmp").mkdir(parents=True)
    command = [*python_command("converters.keras.worker", Path(sys.executable)), str(folder)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not folder.exists()
