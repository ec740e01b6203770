"""Reads and writes .tflite flatbuffers as objects, for all that rewrite or look into such a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_model(data: Path | bytes) -> Any:
    """The ``ModelT`` of a file or of its bytes."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data if isinstance(data, bytes) else data.read_bytes(), 0)


def write_model(model: Any, path: Path) -> None:
    """Write ``model`` over the file it was read from."""
    import flatbuffers

    # The old size saves the builder from doubling its buffer again and again.
    builder = flatbuffers.Builder(path.stat().st_size + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def builtin_code(code: Any) -> int:
    """The ``BuiltinOperator`` of an operator code.

    Old converters wrote the 8-bit field only, newer ones both; whichever wasn't written is 0.
    """
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def operator_code(model: Any, operator: Any) -> int:
    """The ``BuiltinOperator`` that ``operator`` is."""
    return builtin_code(model.operatorCodes[operator.opcodeIndex])


def opcode_index(model: Any, builtin: int, *, version: int) -> int:
    """Where ``builtin`` stands among the model's operator codes; it is added as ``version`` where it is missing."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if builtin_code(code) == builtin:
            return index
    code = schema.OperatorCodeT()
    # The old field has 8 bits: 127 there says that the other one counts.
    code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
