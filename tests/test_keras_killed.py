"""Keras exports whose worker is killed: what was trained is kept, and no bundle is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import QAT, SPARSIFY, trained, zeros

import edgeopt
from edgeopt.errors import EdgeoptError, InputError

pytestmark = [pytest.mark.keras, pytest.mark.slow, pytest.mark.usefixtures("trainings")]


def children(word: str) -> list[int]:
    """This process's children whose command holds ``word``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == os.getpid() and word.encode() in command:
                found.append(int(entry.name))
    return found


def test_a_training_that_was_cut_off_goes_on_where_it_was(
    keras_folder: Path, trainings: Path, tmp_path: Path
) -> None:
    passes = SPARSIFY.replace("epochs = 4", "epochs = 2") + QAT.replace("epochs = 1", "epochs = 3")
    before = set(children("converters.keras.worker"))
    said: list[str] = []

    def kill(doing: str) -> None:
        said.append(doing)
        if "epoch 2 of 3" in doing:
            for process in set(children("converters.keras.worker")) - before:
                os.kill(process, signal.SIGKILL)

    with pytest.raises(EdgeoptError, match="SIGKILL"):
        trained(keras_folder, tmp_path / "cut", passes, progress=kill)
    assert [line for line in said if "epoch 1 of 2" in line]
    assert len(list((trainings / "keras").iterdir())) == 2
    said.clear()
    bundle, found = trained(keras_folder, tmp_path / "cut", passes, progress=said.append)
    epochs = [line for line in said if "epoch" in line]
    assert len(epochs) == 2
    assert "pruning to 50%: 2 epochs were finished before" in epochs[0]
    assert "epoch 3 of 3" in epochs[1]
    assert zeros(found) >= 0.49 and {k.dtype for k in found} == {np.dtype(np.int8)}
    assert bundle.artifacts[0].metric > 0.9
    # Another recipe has a place of its own.
    said.clear()
    trained(
        keras_folder, tmp_path / "other", SPARSIFY.replace("epochs = 4", "epochs = 1"), progress=said.append
    )
    assert [line for line in said if "epoch 1 of 1" in line]


@pytest.mark.parametrize("moment", ["running the source model", "epoch 1"])
def test_a_killed_worker_leaves_no_bundle_and_one_sentence(
    keras_folder: Path, tmp_path: Path, moment: str
) -> None:
    (tmp_path / "qat.toml").write_text(QAT.replace("epochs = 1", "epochs = 3"))
    before = set(children("converters.keras.worker"))

    def kill(doing: str) -> None:
        if moment in doing:
            for process in set(children("converters.keras.worker")) - before:
                os.kill(process, signal.SIGKILL)

    options: dict[str, Any] = {}
    if moment == "epoch 1":
        options = {"recipe": str(tmp_path / "qat.toml"), "training": str(keras_folder / "train.npz")}
    with pytest.raises(EdgeoptError, match=r"ended TensorFlow's process with SIGKILL") as caught:
        edgeopt.export(
            str(keras_folder / "digits.keras"),
            profile="pixel7",
            output=tmp_path / "out",
            progress=kill,
            **options,
        )
    assert not isinstance(caught.value, InputError)
    assert [p.name for p in tmp_path.iterdir()] == ["qat.toml"]
    assert set(children("converters.keras.worker")) == before
