"""Runs a file in a process of its own: a runtime that dies takes nothing else with it.

Parent and child exchange one job file, one result file and npz archives in a temporary folder; the child's
output is kept out of the user's sight and quoted only when it dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EdgeoptError, InputError
from .files import check_file, runtime_for
from .scratch import ScratchFolder

if TYPE_CHECKING:
    import numpy as np

_PACKAGE = Path(__file__).resolve().parent.parent
# Another interpreter (the tflite-runtime environment) doesn't have edgeopt installed: give it the package.
_BOOTSTRAP = """
import importlib.util, runpy, sys
spec = importlib.util.spec_from_file_location(
    "edgeopt", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
package = importlib.util.module_from_spec(spec)
sys.modules["edgeopt"] = package
spec.loader.exec_module(package)
module = sys.argv[2]
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
_NOISE = (
    "cpuinfo",
    "INFO: Created",
    "ExperimentalWarning",
    "_warnings.warn(",
    "Failed to load ",
    "Reading file",
)


def python_command(module: str, python: Path | None = None) -> list[str]:
    """The command that runs ``edgeopt.<module>`` with this interpreter or another one (``python``)."""
    # -P: a file in the user's folder must not shadow a module of the standard library.
    if python is None:
        return [sys.executable, "-P", "-m", f"edgeopt.{module}"]
    return [str(python), "-c", _BOOTSTRAP, str(_PACKAGE), f"edgeopt.{module}"]


def run_isolated(
    path: Path | str,
    batches: Sequence[Sequence[np.ndarray]],
    *,
    num_threads: int = 1,
    timeout_s: float = 600.0,
    runtime: str | None = None,
    use_xnnpack: bool = True,
) -> list[list[np.ndarray]]:
    """Run a file on each of ``batches`` in a fresh process and return the outputs, batch by batch.

    Args:
        batches: one sequence of input arrays (in the order of the file) for each inference.
        timeout_s: seconds after which the process is ended.

    Raises:
        InputError: a missing, corrupt, truncated or too-new file; a wrong input shape or dtype.
        EdgeoptError: the runtime crashed, failed or took too long.
    """
    path = Path(path)
    check_file(path)
    runtime = runtime or runtime_for(path)
    with ScratchFolder("run") as folder:
        save_batches(Path(folder) / "inputs.npz", batches)
        job = {
            "path": str(path.resolve()),
            "runtime": runtime,
            "num_threads": num_threads,
            "use_xnnpack": use_xnnpack,
            "batches": len(batches),
        }
        run_job("runtimes.worker", job, Path(folder), what=path, runtime=runtime, timeout_s=timeout_s)
        return load_batches(Path(folder) / "outputs.npz", len(batches))


def run_job(
    module: str,
    job: Mapping[str, Any],
    folder: Path,
    *,
    what: Path,
    runtime: str,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run ``edgeopt.<module> FOLDER`` on ``job`` and return the result it left in ``FOLDER/result.json``.

    Args:
        what: the model file, for messages.
        environment: variables to set on top of this process's.

    Raises:
        InputError, EdgeoptError: what the child reported, or how it died (file and signal named).
    """
    (folder / "job.json").write_text(json.dumps({**job, "parent": os.getpid()}))
    result_file = folder / "result.json"
    result_file.unlink(missing_ok=True)
    command = [*python_command(module, interpreter_for(runtime)), str(folder)]
    log = folder / "log.txt"
    with log.open("wb") as stream:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        try:
            code = child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise EdgeoptError(
                f"{runtime} did not finish {what.name} within {timeout_s:g} s and was stopped: "
                "allow more time or check the file on a machine of its own."
            ) from None
        except KeyboardInterrupt:
            code = _end(child, signal.SIGINT)
            # A measuring worker answers an interrupt with what it has so far; any other just ends.
            if not result_file.is_file() or "error" in json.loads(result_file.read_text()):
                raise
        except BaseException:
            _end(child, signal.SIGTERM)
            raise
    return read_result(result_file, code, log, what, runtime)


def _end(child: subprocess.Popen[bytes], number: signal.Signals) -> int:
    child.send_signal(number)
    try:
        return child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def read_result(result_file: Path, code: int, log: Path, what: Path, runtime: str) -> dict[str, Any]:
    """The child's result, or the error it reported or died of."""
    if result_file.is_file():
        result: dict[str, Any] = json.loads(result_file.read_text())
        if "error" in result:
            kind = InputError if result["error"]["kind"] == "input" else EdgeoptError
            raise kind(result["error"]["message"])
        # A crash while shutting down, after the result was written whole, doesn't spoil the result.
        return result
    raise EdgeoptError(f"{what.name} {describe_death(code, runtime)}{last_words(log)}.")


def last_words(log: Path, lines: int = 3) -> str:
    """The last lines a dead child wrote, as the tail of a sentence; empty when it wrote nothing of use."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in said if not any(noise in line for noise in _NOISE)]
    return f"; its last words: {' | '.join(said[-lines:])[-400:]}" if said else ""


def describe_death(code: int, runtime: str) -> str:
    """How a child ended, as the middle of a sentence."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGKILL":
            return f"ended {runtime}'s process with SIGKILL (often: out of memory)"
        return f"crashed the {runtime} runtime ({name}): the file is damaged or hits a fault of the runtime"
    return f"ended {runtime}'s process with exit code {code} and no result"


def interpreter_for(runtime: str) -> Path | None:
    """The interpreter a runtime needs; None: this one."""
    if runtime != "tflite_runtime":
        return None
    from .tflite_runtime import environment_python

    return environment_python()


def save_batches(path: Path, batches: Sequence[Sequence[np.ndarray]]) -> None:
    """Write arrays as ``b<batch>_<position>`` into one uncompressed npz."""
    import numpy as np

    arrays = {f"b{i}_{j}": np.asarray(a) for i, batch in enumerate(batches) for j, a in enumerate(batch)}
    counts = np.array([len(batch) for batch in batches], dtype=np.int64)
    np.savez(path, counts=counts, **arrays)  # type: ignore[arg-type]


def load_batches(path: Path, expected: int) -> list[list[np.ndarray]]:
    """Read what :func:`save_batches` wrote."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        counts = archive["counts"]
        if len(counts) != expected:
            raise EdgeoptError(f"the worker returned {len(counts)} batches instead of {expected}.")
        return [[archive[f"b{i}_{j}"] for j in range(int(count))] for i, count in enumerate(counts)]
