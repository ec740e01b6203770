"""What is inside a .pte or .tflite file: operators, who executes them, weights, quantisation.

The figures an export reports (delegation coverage, share of the weights that is really int8) are read
back from the finished file, the same way ``edgeopt inspect`` reads anyone's file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .file_reading import read_model_file

# Bytes an element takes; int4 packs two to a byte.
ELEMENT_BYTES = {
    "float64": 8.0, "int64": 8.0, "float32": 4.0, "int32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int16": 2.0,
    "int8": 1.0, "uint8": 1.0, "bool": 1.0, "int4": 0.5,
}  # fmt: skip
_QUANTIZED = ("int8", "uint8", "int4")
_INTEGERS = (*_QUANTIZED, "int16")


@dataclass(frozen=True)
class OpReport:
    """One operator of a file.

    Attributes:
        op: the runtime's name for it.
        delegate: who executes it (``XNNPACK``), or None for the runtime's own kernels.
        macs: multiply-accumulates of one inference.
        output_shape: of its first output; empty when unknown.
        weight_dtype: dtype of its constant weight, or None.
        factor_dtype: dtype of what a product multiplies its input by: its weight, or another activation.
        layout: whether it only moves data (transpose, reshape, copy).
        name: what the file calls its output, or None.
    """

    op: str
    delegate: str | None = None
    macs: int = 0
    output_shape: tuple[int, ...] = ()
    weight_dtype: str | None = None
    factor_dtype: str | None = None
    layout: bool = False
    name: str | None = None


@dataclass(frozen=True)
class TensorReport:
    """An input or output of a file; ``quantization`` is (scale, zero point) or None."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: tuple[float, int] | None = None


@dataclass(frozen=True)
class FileReport:
    """The contents of one file.

    Attributes:
        weights: dtype -> number of constant weight elements.
        weight_bytes: bytes of all constant data in the file.
        tensor_dtypes: dtypes of the tensors between operators; empty where the file isn't read for them.
    """

    path: Path
    format: str
    size_bytes: int
    ops: tuple[OpReport, ...]
    inputs: tuple[TensorReport, ...]
    outputs: tuple[TensorReport, ...]
    weights: dict[str, int] = field(default_factory=dict)
    weight_bytes: int = 0
    schema_version: str = ""
    planned_arena_bytes: int | None = None
    tensor_dtypes: tuple[str, ...] = ()

    @property
    def delegates(self) -> dict[str, int]:
        """Delegate -> number of operators it executes."""
        return dict(Counter(op.delegate for op in self.ops if op.delegate))

    @property
    def left_behind(self) -> dict[str, int]:
        """Operators that no delegate executes -> how many of each; those with the most work first."""
        left = [op for op in self.ops if op.delegate is None]
        counts, macs = Counter(op.op for op in left), Counter[str]()
        for op in left:
            macs[op.op] += op.macs
        return {op: counts[op] for op in sorted(counts, key=lambda op: (-macs[op], -counts[op]))}

    @property
    def delegated_ops_ratio(self) -> float:
        """Share of the operators that a delegate executes, 0 to 1."""
        return sum(op.delegate is not None for op in self.ops) / len(self.ops) if self.ops else 0.0

    @property
    def delegated_macs_ratio(self) -> float | None:
        """Share of the multiply-accumulates that a delegate executes; None when the file has none."""
        total = sum(op.macs for op in self.ops)
        return sum(op.macs for op in self.ops if op.delegate) / total if total else None

    @property
    def transposes(self) -> int:
        """Operators that only change the layout of data."""
        return sum("transpose" in op.op.lower() or "permute" in op.op.lower() for op in self.ops)

    @property
    def quantized_weights_ratio(self) -> float:
        """Share of the weight elements (of the original weight bytes) stored in 8 bits or fewer."""
        total = sum(self.weights.values())
        return sum(self.weights.get(d, 0) for d in _QUANTIZED) / total if total else 0.0

    @property
    def quantized_macs_ratio(self) -> float | None:
        """Share of the multiply-accumulates that are computed in integers."""
        total = sum(op.macs for op in self.ops)
        return sum(op.macs for op in self.ops if op.factor_dtype in _INTEGERS) / total if total else None

    def summary(self) -> dict[str, Any]:
        """The figures a manifest keeps, as plain data."""
        return {
            "ops": len(self.ops),
            "delegates": self.delegates,
            "left_behind": self.left_behind,
            "delegated_ops_ratio": self.delegated_ops_ratio,
            "delegated_macs_ratio": self.delegated_macs_ratio,
            "transposes": self.transposes,
            "quantized_weights_ratio": self.quantized_weights_ratio,
            "quantized_macs_ratio": self.quantized_macs_ratio,
            "weights": self.weights,
            "weight_bytes": self.weight_bytes,
            "macs": sum(op.macs for op in self.ops),
            "planned_arena_bytes": self.planned_arena_bytes,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON."""
        data = asdict(self)
        data["path"] = str(self.path)
        return {**data, **self.summary(), "ops": [asdict(op) for op in self.ops]}


def inspect_file(path: Path | str) -> FileReport:
    """Read a .pte or .tflite file without running it.

    Raises:
        InputError: the file is missing, of another kind, corrupt or truncated.
    """
    from .inspect_pte import inspect_pte
    from .inspect_tflite import inspect_tflite

    readers = {".pte": inspect_pte, ".tflite": inspect_tflite}
    return read_model_file(Path(path), readers, "only .pte and .tflite files can be inspected")
