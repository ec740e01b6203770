"""The tables of a .pte file, through the flatbuffer compiler and the schemas that come with ExecuTorch.

ExecuTorch itself isn't imported: its Python reader takes seconds to load, flatc milliseconds.
"""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import EdgeoptError, InputError

SCALAR_TYPES = {
    "BYTE": "uint8", "CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "HALF": "float16",
    "FLOAT": "float32", "DOUBLE": "float64", "BOOL": "bool", "BFLOAT16": "bfloat16",
}  # fmt: skip
XNN_TYPES = {
    "xnn_datatype_fp32": "float32", "xnn_datatype_fp16": "float16", "xnn_datatype_bf16": "bfloat16",
    "xnn_datatype_qint8": "int8", "xnn_datatype_quint8": "uint8", "xnn_datatype_qcint8": "int8",
    "xnn_datatype_qdint8": "int8", "xnn_datatype_qpint8": "int8", "xnn_datatype_qcint4": "int4",
    "xnn_datatype_qbint4": "int4", "xnn_datatype_qint32": "int32", "xnn_datatype_qcint32": "int32",
    "xnn_datatype_int32": "int32",
}  # fmt: skip
_DELEGATE_NAMES = {"XnnpackBackend": "XNNPACK"}
_EXTENDED_HEADER = struct.Struct("<4sIQQ")
_XNN_HEADER = struct.Struct("<4x4sHIIIQ")


@dataclass(frozen=True)
class Delegate:
    """A part of the program that a delegate executes.

    ``values`` (id → tensor) and ``nodes`` are those of its own graph where that can be read (XNNPACK).
    """

    name: str
    values: dict[int, dict[str, Any]] = field(default_factory=dict)
    nodes: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class PteTables:
    """The program's tables; ``plan`` is its first method, ``delegates`` in the order of the plan's list."""

    program: dict[str, Any]
    plan: dict[str, Any]
    delegates: tuple[Delegate, ...]

    @property
    def instructions(self) -> list[dict[str, Any]]:
        """What the method does, in order."""
        found: list[dict[str, Any]] = self.plan["chains"][0]["instructions"]
        return found


def read_pte(data: bytes) -> PteTables:
    """The tables of a .pte file.

    Raises:
        InputError: truncated, or of another schema than the installed ExecuTorch's.
    """
    (program,) = _decode([_without_segments(data)], "exir/_serialize/program.fbs")
    plan = program["execution_plan"][0]
    payloads = [_payload(program, data, delegate) for delegate in plan["delegates"]]
    names = [_DELEGATE_NAMES.get(delegate["id"], delegate["id"]) for delegate in plan["delegates"]]
    readable = [_graph(payload) for name, payload in zip(names, payloads, strict=True) if name == "XNNPACK"]
    graphs = iter(_decode(readable, "backends/xnnpack/serialization/schema.fbs") if readable else [])
    delegates = tuple(
        _delegate(name, next(graphs)) if name == "XNNPACK" else Delegate(name) for name in names
    )
    return PteTables(program, plan, delegates)


def _delegate(name: str, graph: dict[str, Any]) -> Delegate:
    values = {}
    for entry in graph["xvalues"]:
        tensor = entry["xvalue_union"]
        # A quantised tensor wraps the plain one.
        plain = tensor.get("tensor_value", tensor)
        values[plain["id_out"]] = plain
    return Delegate(name, values, tuple(graph["xnodes"]))


def _without_segments(data: bytes) -> bytes:
    """The program's tables alone: weights and delegates' data follow them in segments of their own."""
    if len(data) < 8 + _EXTENDED_HEADER.size:
        return data
    magic, _, size, _ = _EXTENDED_HEADER.unpack_from(data, 8)
    return data[:size] if magic == b"eh00" and 0 < size <= len(data) else data


def _graph(payload: bytes) -> bytes:
    magic, _, offset, size, _, _ = _XNN_HEADER.unpack_from(payload)
    return payload[offset : offset + size] if magic == b"XH00" else payload


def _decode(buffers: Sequence[bytes], schema: str) -> list[dict[str, Any]]:
    package = importlib.util.find_spec("executorch")
    if package is None or not package.submodule_search_locations:
        raise EdgeoptError("executorch is not installed: pip install executorch to read .pte files.")
    home = Path(next(iter(package.submodule_search_locations)))
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(folder, f"buffer{index}.bin") for index in range(len(buffers))]
        for source, data in zip(sources, buffers, strict=True):
            source.write_bytes(data)
        flags = ["--json", "--strict-json", "--defaults-json", "--raw-binary", "-o", folder]
        command = [str(home / "data/bin/flatc"), *flags, str(home / schema), "--", *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(
                f"the file's tables don't fit ExecuTorch's schema ({(done.stdout or done.stderr).strip()[:200]})."
            )
        return [_parse(source.with_suffix(".json").read_text(encoding="utf-8")) for source in sources]


def _parse(text: str) -> dict[str, Any]:
    # flatc writes an unbounded clamp as inf, which JSON doesn't know; Python reads Infinity.
    parsed: dict[str, Any] = json.loads(re.sub(r"(?<=: )(-?)(\+?inf)(?=[,\s])", r"\1Infinity", text))
    return parsed


def _payload(program: dict[str, Any], data: bytes, delegate: dict[str, Any]) -> bytes:
    place = delegate["processed"]
    if place["location"] == "INLINE":
        return bytes(program["backend_delegate_data"][place["index"]]["data"])
    magic, _, _, base = _EXTENDED_HEADER.unpack_from(data, 8)
    if magic != b"eh00":
        raise InputError("the file's segment header is missing.")
    segment = program["segments"][place["index"]]
    start = base + segment["offset"]
    if start + segment["size"] > len(data):
        raise InputError("the file is truncated: a segment reaches past its end.")
    return data[start : start + segment["size"]]
