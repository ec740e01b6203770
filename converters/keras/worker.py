"""The worker: TensorFlow in a process of its own, asked one thing after another.

Run as ``python -m edgeopt.converters.keras.worker FOLDER``. A request is one line of JSON on stdin; the answer is
lines of JSON on stdout: ``{"progress": …}`` any number of times, then ``{"result": …}`` or ``{"error": …}``.
Arrays travel as npz files in FOLDER. What libraries print goes to stderr. The worker ends with its stdin.
"""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # tensorflow-model-optimization knows no other Keras
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import json
import logging
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ...errors import EdgeoptError, InputError
from ...wording import shortened


class Worker:
    """The models of one export, by number: 0 is the source, each recipe adds one.

    Args:
        folder: where arrays are exchanged.
    """

    def __init__(self, folder: Path, channel: TextIO) -> None:
        self._folder, self._channel = folder, channel
        self._models: list[Any] = []
        self._quantized: list[bool] = []
        self._origin = ""

    def serve(self) -> None:
        """Answer requests until stdin ends."""
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer: dict[str, Any] = {"result": getattr(self, f"do_{request.pop('do')}")(**request)}
            except EdgeoptError as error:
                kind = "input" if isinstance(error, InputError) else "edgeopt"
                answer = {"error": {"kind": kind, "message": str(error)}}
            except MemoryError:
                answer = {
                    "error": {"kind": "edgeopt", "message": "the Keras model does not fit into memory."}
                }
            except Exception as error:
                logging.getLogger(__name__).exception("request failed")
                text = shortened(" ".join(str(error).split()), 300)
                answer = {
                    "error": {
                        "kind": "edgeopt",
                        "message": f"TensorFlow failed: {type(error).__name__}: {text}.",
                    }
                }
            self._say(answer)

    def progress(self, what: str) -> None:
        """Tell the other side what is being done."""
        self._say({"progress": what})

    def _say(self, message: dict[str, Any]) -> None:
        self._channel.write(json.dumps(message) + "\n")
        self._channel.flush()

    def do_start(self) -> dict[str, str]:
        """Import everything; the versions."""
        import keras
        import tensorflow
        import tensorflow_model_optimization as tfmot
        import tf_keras

        tensorflow.get_logger().setLevel(logging.ERROR)
        return {
            "tensorflow": tensorflow.__version__,
            "keras": keras.__version__,
            "tf-keras": tf_keras.__version__,
            "tensorflow-model-optimization": tfmot.__version__,
        }

    def do_load(
        self, model: str, origin: str, trust_pickle: bool, model_args: dict[str, Any]
    ) -> dict[str, Any]:
        """Load the source model; what it takes and gives."""
        from .loading import load

        self._origin = origin
        loaded = load(model, origin, trust_pickle=trust_pickle, model_args=model_args)
        self._models, self._quantized = [loaded], [False]
        return {
            "kind": loaded.kind,
            "inputs": [{"name": t.name, "shape": t.shape, "dtype": t.dtype} for t in loaded.inputs],
            "outputs": loaded.output_names,
            "parameters": loaded.parameters,
            "weight_bytes": loaded.weight_bytes,
        }

    def do_run(self, model: int, batches: int) -> dict[str, bool]:
        """Run a model on every batch of ``inputs.npz`` and leave ``outputs.npz``."""
        import tensorflow as tf

        from ...models.resolve import brief
        from ...runtimes.isolation import load_batches, save_batches

        loaded = self._models[model]
        found = []
        for batch in load_batches(self._folder / "inputs.npz", batches):
            try:
                found.append(
                    [tf.convert_to_tensor(t).numpy() for t in loaded.call([tf.constant(a) for a in batch])]
                )
            except Exception as error:
                raise InputError(f"{self._origin} fails on the inputs: {brief(error)}.") from error
        save_batches(self._folder / "outputs.npz", found)
        return {"ok": True}

    def do_samples(self, data: str, names: list[str], limit: int) -> int:
        """Leave the samples that the user's function gives in ``calibration.npz``; how many they are."""
        from ...runtimes.isolation import save_batches
        from .training import load_samples

        samples = load_samples(data, names, limit)
        save_batches(self._folder / "calibration.npz", samples)
        return len(samples)

    def do_evaluate(self, function: str) -> Any:
        """The value of the user's evaluation, which asks the other side for a model's outputs."""
        from ...models.resolve import brief, resolve
        from ...runtimes.isolation import load_batches, save_batches

        def predict(*arrays: Any) -> Any:
            save_batches(self._folder / "inputs.npz", [[np.asarray(array) for array in arrays]])
            self._say({"predict": True})
            names = json.loads(sys.stdin.readline())["names"]
            (found,) = load_batches(self._folder / "outputs.npz", 1)
            return found[0] if names is None else dict(zip(names, found, strict=True))

        evaluate, _ = resolve(function, "--eval")
        try:
            value = evaluate(predict)
            return {k: float(v) for k, v in value.items()} if isinstance(value, dict) else float(value)
        except Exception as error:
            raise InputError(f"--eval {function} failed: {brief(error)}.") from error

    def do_train(
        self, passes: list[dict[str, Any]], data: str, names: list[str], kept: str | None
    ) -> dict[str, Any]:
        """Apply training passes to the source model; the number of the new model and what each pass did.

        Finished epochs are in the folder ``kept``, and are kept there.
        """
        from . import techniques
        from .checkpoints import start_place
        from .loading import from_object
        from .rebuild import to_tf_keras
        from .training import load_training_data

        source = self._models[0]
        if source.kind == "savedmodel":
            raise InputError(
                f"{self._origin} is a graph without layers: recipes that train need a .keras or .h5 file, or "
                "module:attribute."
            )
        training = load_training_data(data, names)
        model = source.model if source.kind == "tf_keras" else to_tf_keras(source.model, self._origin)
        state = techniques.State(model)
        changes = []
        place = start_place(kept, model, [*training.inputs, *training.targets])
        for entry in passes:
            place = place.after(entry)
            state, change = techniques.apply(entry, state, training, techniques.Work(self.progress, place))
            changes.append(change)
        self._models.append(from_object(state.model, self._origin))
        self._quantized.append(state.quantized)
        return {"model": len(self._models) - 1, "changes": changes, "rows": training.rows}

    def do_write(
        self, model: int, path: str, inputs: list[dict[str, Any]], outputs: list[str], calibration: int | None
    ) -> dict[str, bool]:
        """Write a model as .tflite; ``calibration`` is the number of samples in ``calibration.npz``."""
        from ...runtimes.isolation import load_batches
        from .writing import write_tflite

        samples = None if calibration is None else load_batches(self._folder / "calibration.npz", calibration)
        write_tflite(
            self._models[model],
            Path(path),
            inputs,
            outputs,
            quantized=self._quantized[model],
            calibration=samples,
        )
        return {"ok": True}


def main() -> None:
    """Keep stdout for answers alone and serve."""
    # The other side decides what Ctrl-C means, and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore")
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    folder = Path(sys.argv[1])
    Worker(folder, channel).serve()
    # The other side ends this process and removes the folder; it died if this one got here.
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
