"""The kernels of a model file for the cost model, without running it and without a framework.

Captured programs have theirs from :func:`edgeopt.models.kernels.program_kernels`; all describe the same
model by the same work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..cost_model import Kernel
from ..cost_model.memory import MemoryFacts
from ..errors import InputError

# Who runs a file of each kind, as the cost model calls it.
RUNTIME_OF = {".pte": "executorch", ".tflite": "litert"}


@dataclass(frozen=True)
class FileWork:
    """What a file asks of a device: its kernels in the order in which they run, and its memory."""

    path: Path
    runtime: str
    kernels: tuple[Kernel, ...]
    memory: MemoryFacts


def file_kernels(path: Path | str) -> list[Kernel]:
    """The kernels of a .pte or .tflite file. Errors as of :func:`read_work`."""
    return list(read_work(path).kernels)


def read_work(path: Path | str) -> FileWork:
    """The :class:`FileWork` of a .pte or .tflite file.

    Raises:
        InputError: the file is missing, of another kind, corrupt or truncated.
    """
    from ..runtimes import check_file

    path = Path(path)
    check_file(path)
    if path.suffix == ".pte":
        from .kernels_pte import read_pte_work as read
    elif path.suffix == ".tflite":
        from .kernels_tflite import read_tflite as read
    else:
        raise InputError(f"{path.name}: kernels can be read from .pte and .tflite files only.")
    try:
        kernels, memory = read(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} can't be read as a {path.suffix} file ({type(error).__name__}: {error}): it is corrupt or "
            "was written by a newer version."
        ) from error
    return FileWork(path, RUNTIME_OF[path.suffix], tuple(kernels), memory)
