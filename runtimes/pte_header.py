"""The few facts of a .pte flatbuffer that the runtime's Python interface doesn't tell.

Field numbers follow executorch/schema/program.fbs (they are append-only, so that old files stay readable).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

_SCHEMA_VERSION = 0  # Program.version that ExecuTorch 1.x writes and reads
_TENSOR = 5  # KernelTypes.Tensor in program.fbs
_DYNAMIC = (1, 2)  # TensorShapeDynamism: DYNAMIC_BOUND, DYNAMIC_UNBOUND


@dataclass(frozen=True)
class PteFacts:
    """What ``read_pte`` found for the method ``forward`` (or the only method).

    ``planned_bytes`` is the size of the memory-planned arenas; ``input_dynamic``/``output_dynamic`` say for
    each tensor whether its shape may change; ``delegates`` counts delegate calls by backend id;
    ``operators`` lists the kernels called outside delegates.
    """

    version: int
    method: str
    planned_bytes: int
    input_dynamic: tuple[bool, ...]
    output_dynamic: tuple[bool, ...]
    delegates: dict[str, int]
    operators: tuple[str, ...]


def read_pte(path: Path) -> PteFacts:
    """Read the program's flatbuffer.

    Raises:
        InputError: the flatbuffer is broken or of a newer schema version.
    """
    try:
        # Mapped, not read: a large program's weights must not pass through this process's memory.
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            facts = _read(data)
    except Exception as error:  # the flatbuffers package raises struct.error, IndexError, TypeError, ...
        raise InputError(
            f"{path} is corrupt ({type(error).__name__} in its header): export it again."
        ) from error
    if facts.version > _SCHEMA_VERSION:
        raise InputError(
            f"{path} has ExecuTorch schema version {facts.version}, newer than the {_SCHEMA_VERSION} this "
            "runtime reads: upgrade executorch or export it again."
        )
    return facts


def _read(data: mmap.mmap) -> PteFacts:
    import flatbuffers
    from flatbuffers.number_types import Int8Flags, Int64Flags, Uint8Flags, Uint32Flags
    from flatbuffers.table import Table

    def field(table: Any, number: int) -> int:
        return int(table.Offset(4 + 2 * number))

    def scalar(table: Any, number: int, flags: Any) -> int:
        offset = field(table, number)
        return int(table.Get(flags, table.Pos + offset)) if offset else 0

    def vector(table: Any, number: int) -> tuple[int, int]:
        offset = field(table, number)
        return (table.Vector(offset), table.VectorLen(offset)) if offset else (0, 0)

    def tables(table: Any, number: int) -> list[Any]:
        start, length = vector(table, number)
        return [Table(data, table.Indirect(start + 4 * i)) for i in range(length)]

    def numbers(table: Any, number: int, flags: Any, width: int) -> list[int]:
        start, length = vector(table, number)
        return [int(table.Get(flags, start + width * i)) for i in range(length)]

    def text(table: Any, number: int) -> str:
        offset = field(table, number)
        return table.String(table.Pos + offset).decode() if offset else ""

    def is_dynamic(value: Any) -> bool:
        # EValue: val_type (0), val (1); Tensor: shape_dynamism is field 8.
        if scalar(value, 0, Uint8Flags) != _TENSOR:
            return False
        tensor = Table(data, value.Indirect(value.Pos + field(value, 1)))
        return scalar(tensor, 8, Int8Flags) in _DYNAMIC

    root = Table(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))
    plans = tables(root, 1)
    plan = next((p for p in plans if text(p, 0) == "forward"), plans[0])
    # ExecutionPlan: name 0, values 2, inputs 3, outputs 4, chains 5, operators 6, delegates 7,
    # non_const_buffer_sizes 8.
    values = tables(plan, 2)
    from flatbuffers.number_types import Int32Flags

    sides = [numbers(plan, side, Int32Flags, 4) for side in (3, 4)]
    names = [text(op, 0) + (f".{text(op, 1)}" if text(op, 1) else "") for op in tables(plan, 6)]
    backends = [text(delegate, 0) for delegate in tables(plan, 7)]
    delegates: dict[str, int] = {}
    operators: list[str] = []
    for chain in tables(plan, 5):
        for instruction in tables(chain, 2):
            kind = scalar(instruction, 0, Uint8Flags)
            if kind not in (1, 2):  # InstructionArguments: KernelCall 1, DelegateCall 2
                continue
            call = Table(data, instruction.Indirect(instruction.Pos + field(instruction, 1)))
            index = scalar(call, 0, Int32Flags)
            if kind == 1:
                operators.append(names[index])
            else:
                delegates[backends[index]] = delegates.get(backends[index], 0) + 1
    return PteFacts(
        version=scalar(root, 0, Uint32Flags),
        method=text(plan, 0),
        planned_bytes=sum(numbers(plan, 8, Int64Flags, 8)),
        input_dynamic=tuple(is_dynamic(values[i]) for i in sides[0]),
        output_dynamic=tuple(is_dynamic(values[i]) for i in sides[1]),
        delegates=delegates,
        operators=tuple(operators),
    )
