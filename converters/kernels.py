"""The kernels of a model file for the cost model, without running it and without a framework.

Captured programs have theirs from :func:`edgeopt.models.kernels.program_kernels`; all describe the same
model by the same work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..cost_model import Kernel
from ..cost_model.memory import MemoryFacts
from .file_reading import read_model_file

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
    from .kernels_pte import read_pte_work
    from .kernels_tflite import read_tflite

    path = Path(path)
    readers = {".pte": read_pte_work, ".tflite": read_tflite}
    kernels, memory = read_model_file(path, readers, "kernels can be read from .pte and .tflite files only")
    return FileWork(path, RUNTIME_OF[path.suffix], tuple(kernels), memory)
