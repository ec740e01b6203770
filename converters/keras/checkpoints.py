"""Keeps every finished epoch of a training, so that one that was cut off goes on (the worker's side).

A place follows from the model, the data, the versions, the code and every pass up to the one that trains there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

_PACKAGES = ("tf-keras", "tensorflow-model-optimization")
_CODE = ("techniques.py", "training.py", "rebuild.py")


@dataclass(frozen=True)
class Place:
    """Where one pass keeps its last finished epoch.

    Attributes:
        folder: of all passes; None keeps nothing.
        key: SHA-256 over everything that the pass follows from.
    """

    folder: Path | None
    key: str = ""

    def after(self, entry: dict[str, Any]) -> Place:
        """The place of the pass that comes next."""
        text = f"{self.key}\0{json.dumps(entry, sort_keys=True)}"
        return Place(self.folder, hashlib.sha256(text.encode()).hexdigest())

    def resume(self, model: Any) -> tuple[int, float]:
        """Give the compiled model what was kept: how many epochs are finished, and the last one's loss."""
        model.optimizer.build(model.trainable_variables)
        if self.folder is None or not self._file.is_file():
            return 0, float("nan")
        with np.load(self._file, allow_pickle=False) as kept:
            variables = [*model.weights, *model.optimizer.variables]
            if int(kept["count"]) != len(variables):
                return 0, float("nan")
            for index, variable in enumerate(variables):
                variable.assign(kept[f"v{index}"])
            return int(kept["epochs"]), float(kept["loss"])

    def keep(self, model: Any, epochs: int, loss: float) -> None:
        """Remember the model and its optimizer after so many epochs. Where nothing can be written, training goes on."""
        if self.folder is None:
            return
        values = [variable.numpy() for variable in (*model.weights, *model.optimizer.variables)]
        arrays = {f"v{index}": value for index, value in enumerate(values)}
        part = self._file.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.savez(file, count=len(values), epochs=epochs, loss=loss, **arrays)  # type: ignore[arg-type]
            part.replace(self._file)
        except OSError:
            part.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.key}.npz"


class Keeper(tf_keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps each epoch as it ends."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Loss and weights of a finite epoch."""
        loss = (logs or {}).get("loss", float("nan"))
        if np.isfinite(loss):
            self._place.keep(self.model, epoch + 1, loss)


def start_place(folder: str | None, model: Any, arrays: list[np.ndarray]) -> Place:
    """The place that the passes on ``model`` with these training data begin from."""
    if folder is None:
        return Place(None)
    digest = hashlib.sha256(model.to_json().encode())
    for value in (*model.get_weights(), *arrays):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    for name in _PACKAGES:
        digest.update(f"{name} {metadata.version(name)}".encode())
    for name in _CODE:
        digest.update((Path(__file__).parent / name).read_bytes())
    return Place(Path(folder), digest.hexdigest())
