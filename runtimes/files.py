"""What kind of file it is, and whether it can be whole: checked before a runtime sees it.

The runtimes trust what they are given; a truncated file ends some of them with a signal. These checks read
the headers only: ExecuTorch's extended header (schema/extended_header.cpp in executorch), the TFLite
flatbuffer identifier, and the zip directory of a PyTorch package.
"""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

from ..errors import InputError

# suffix -> runtime that runs it unless the user names another.
RUNTIME_OF_SUFFIX = {
    ".pte": "executorch",
    ".tflite": "litert",
    ".pt2": "torch",
    ".onnx": "onnxruntime",
}
_PTE_MAGIC = b"ET12"
_TFLITE_MAGIC = b"TFL3"
_EXTENDED_HEADER = b"eh00"


def runtime_for(path: Path) -> str:
    """The runtime for a file of this name.

    Raises:
        InputError: no runtime is known for the suffix.
    """
    try:
        return RUNTIME_OF_SUFFIX[path.suffix.lower()]
    except KeyError:
        known = ", ".join(RUNTIME_OF_SUFFIX)
        raise InputError(f"{path} is not a file edgeopt can run: it knows {known}.") from None


def check_name(path: Path) -> None:
    """Refuse a path that the runtimes, which are written in C++, can't be given.

    Raises:
        InputError: it isn't UTF-8.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path.absolute()).decode(errors="replace")
        raise InputError(f"{shown}: this path is not UTF-8, which the runtimes need: rename it.") from None


def check_file(path: Path) -> None:
    """Refuse a file that is missing, empty, truncated, of another kind, or from a newer format version.

    Raises:
        InputError: with one sentence saying which of these it is.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}: give a model file.")
    check_name(path)
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty (0 bytes): export or copy it again.")
    suffix = path.suffix.lower()
    with path.open("rb") as stream:
        head = stream.read(64)
    if suffix == ".pte":
        _check_pte(path, head, size)
    elif suffix == ".tflite":
        _check_identifier(path, head, size, _TFLITE_MAGIC, "a TensorFlow Lite model")
    elif suffix == ".pt2" and not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is not a PyTorch package (a .pt2 is a zip archive): export or copy it again."
        )


def _check_identifier(path: Path, head: bytes, size: int, magic: bytes, kind: str) -> None:
    if size < 16:
        raise InputError(f"{path} is only {size} bytes long and can't be {kind}: export or copy it again.")
    found = head[4:8]
    if found != magic:
        letters = magic.rstrip(b"0123456789")
        same_family = found.startswith(letters) and found[len(letters) :].isdigit()
        if same_family and found > magic:
            raise InputError(
                f"{path} has format {found.decode()}, newer than the {magic.decode()} this runtime reads: "
                "upgrade the runtime or export it again."
            )
        raise InputError(
            f"{path} is not {kind} (no {magic.decode()} mark at byte 4): export or copy it again."
        )
    root = struct.unpack_from("<I", head)[0]
    if root + 4 > size:
        raise InputError(f"{path} is truncated: its root table is at byte {root} of {size}; copy it again.")


def _check_pte(path: Path, head: bytes, size: int) -> None:
    _check_identifier(path, head, size, _PTE_MAGIC, "an ExecuTorch program")
    if head[8:12] != _EXTENDED_HEADER or len(head) < 40:
        return
    length = struct.unpack_from("<I", head, 12)[0]
    program_bytes, segment_offset = struct.unpack_from("<QQ", head, 16)
    segment_bytes = struct.unpack_from("<Q", head, 32)[0] if length >= 32 else 0
    needed = max(program_bytes, segment_offset + segment_bytes)
    if needed > size:
        raise InputError(
            f"{path} is truncated: {needed} bytes are declared, {size} are there; copy it again."
        )
