"""This side of the worker: starts it, asks it, and turns what it says into results and errors."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EdgeoptError, InputError
from ...runtimes.isolation import describe_death, last_words, load_batches, python_command, save_batches
from ...runtimes.scratch import ScratchFolder
from .environment import keras_python

Progress = Callable[[str], None]
Predict = Callable[..., Any]


class KerasWorker:
    """A process with TensorFlow that holds the models of one export; end it with :meth:`close`.

    Args:
        progress: called with what the worker does.

    Raises:
        EdgeoptError: TensorFlow can't be had or doesn't start.
    """

    def __init__(self, progress: Progress) -> None:
        python = keras_python(progress)
        self.progress = progress
        self._scratch = ScratchFolder("keras")
        self.folder = Path(self._scratch.name)
        self._log = self.folder / "log.txt"
        # TensorFlow leaves files behind when it is ended from outside, as it always is.
        temporary = self.folder / "tmp"
        temporary.mkdir()
        command = [*python_command("converters.keras.worker", python), str(self.folder)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": "", "TMPDIR": str(temporary)},
            )
        self._finalizer = weakref.finalize(self, _end, self._process, self._scratch)
        progress("starting TensorFlow")
        self.versions: dict[str, str] = self.ask("start")

    def ask(self, what: str, predict: Predict | None = None, **arguments: Any) -> Any:
        """Send one request and wait for its answer.

        Args:
            predict: answers the worker when it asks back for a model's outputs.

        Raises:
            InputError: something is wrong with the user's model or data.
            EdgeoptError: TensorFlow failed, or its process died.
        """
        assert self._process.stdout is not None
        self._send({"do": what, **arguments})
        for line in self._process.stdout:
            answer = json.loads(line)
            if "progress" in answer:
                self.progress(answer["progress"])
            elif "predict" in answer and predict is not None:
                self._send(self._predicted(predict))
            elif "error" in answer:
                kind = InputError if answer["error"]["kind"] == "input" else EdgeoptError
                raise kind(answer["error"]["message"])
            else:
                return answer["result"]
        raise self._death()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._death() from None

    def _predicted(self, predict: Predict) -> dict[str, Any]:
        """Answer the user's evaluation, which runs in the worker and asks what a model gives."""
        found = predict(*load_batches(self.folder / "inputs.npz", 1)[0])
        names = list(found) if isinstance(found, dict) else None
        save_batches(self.folder / "outputs.npz", [list(found.values()) if names else [np.asarray(found)]])
        return {"names": names}

    def run(self, model: int, batches: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """The outputs of a model on each of ``batches``."""
        save_batches(self.folder / "inputs.npz", batches)
        self.ask("run", model=model, batches=len(batches))
        return load_batches(self.folder / "outputs.npz", len(batches))

    def write(
        self,
        model: int,
        path: Path,
        inputs: Sequence[dict[str, Any]],
        outputs: Sequence[str],
        calibration: Sequence[Sequence[np.ndarray]] | None = None,
    ) -> None:
        """Write a model as .tflite, static int8 when ``calibration`` is given or it was trained for it."""
        if calibration is not None:
            save_batches(self.folder / "calibration.npz", calibration)
        self.ask(
            "write",
            model=model,
            path=str(path.resolve()),
            inputs=list(inputs),
            outputs=list(outputs),
            calibration=None if calibration is None else len(calibration),
        )

    def close(self) -> None:
        """End the process and remove what was exchanged with it."""
        self._finalizer()

    def _death(self) -> EdgeoptError:
        code = self._process.wait()
        return EdgeoptError(f"the Keras model {describe_death(code, 'TensorFlow')}{last_words(self._log)}.")


def _end(process: subprocess.Popen[str], scratch: tempfile.TemporaryDirectory[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    scratch.cleanup()
