"""Inputs for a run when the user gives a file of them, or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from .execution import describe

if TYPE_CHECKING:
    import numpy as np

    from ...device_profiles import DeviceProfile
    from .cpu import Cpu


def inputs_for(
    artifact: Path, archive: Path | None, profile: DeviceProfile | Cpu, *, seed: int = 0
) -> list[np.ndarray]:
    """The arrays of ``archive`` in its order, or seeded random ones of the shapes the file takes.

    Random floats are normal, integers 0 or 1: the cost of a network hardly depends on their values.

    Raises:
        InputError: the archive or the artefact is missing or unreadable.
    """
    import numpy as np

    if archive is not None:
        try:
            data = np.load(archive)
            return [data] if isinstance(data, np.ndarray) else [data[name] for name in data.files]
        except (OSError, ValueError) as error:
            raise InputError(f"{archive} is not a readable .npz file ({error})") from error
    generator = np.random.default_rng(seed)
    arrays = []
    for row in describe(artifact, profile)["inputs"]:
        shape = [max(size, 1) for size in row["shape"]]
        if row["dtype"].startswith("float"):
            arrays.append(generator.standard_normal(shape).astype(row["dtype"]))
        else:
            arrays.append(generator.integers(0, 2, shape).astype(row["dtype"]))
    return arrays


def golden_inputs(folder: Path) -> list[np.ndarray] | None:
    """The first golden sample of a bundle; None when the folder is not one."""
    from ...bundle import MANIFEST, load_bundle

    if not (folder / MANIFEST).is_file():
        return None
    inputs, _ = load_bundle(folder).golden()
    return inputs[0] if inputs else None
