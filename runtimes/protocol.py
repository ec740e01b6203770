"""What every runtime looks like from outside: tensors with names, shapes and dtypes, and one model to run.

Must never import a runtime or torch: a .tflite file is run without either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..wording import counted

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a file.

    ``shape`` has -1 where the file accepts more than one size. ``max_shape`` is the largest shape when the
    file records one (.pte does, without saying which axes may shrink). ``quantization`` is
    ``(scale, zero_point)`` of a per-tensor quantised tensor: real = scale * (stored - zero_point).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: tuple[float, int] | None = None
    max_shape: tuple[int, ...] | None = None

    def example_shape(self) -> tuple[int, ...]:
        """A concrete shape this tensor accepts: the largest one when known, else 1 for every free axis."""
        if self.max_shape is not None:
            return self.max_shape
        return tuple(1 if size < 0 else size for size in self.shape)


class LoadedModel(ABC):
    """A file that a runtime has loaded and is ready to run.

    Subclasses set ``inputs`` and ``outputs`` (in the order of the file) and fill in the three steps that
    :meth:`run` is made of, so that a measurement can time the middle one alone.
    """

    path: Path
    runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    load_ms: float  # what the runtime itself took to load the file
    takes_any_inputs: bool = False  # the file doesn't tell its inputs: they go to it unchecked
    planned_bytes: int | None = None  # activation memory the file plans for, when the format records it

    @abstractmethod
    def prepare(self, inputs: Sequence[np.ndarray]) -> None:
        """Hand over inputs that already have the dtypes and shapes of ``self.inputs``."""

    @abstractmethod
    def invoke(self) -> None:
        """One inference on the prepared inputs."""

    @abstractmethod
    def fetch(self) -> list[np.ndarray]:
        """Copies of the outputs of the last :meth:`invoke`, in the order of the file."""

    def close(self) -> None:  # noqa: B027 - not every runtime holds something to give back
        """Give back what the runtime holds; the model can't be run afterwards."""

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One inference: inputs and outputs in the order of the file.

        Raises:
            InputError: a wrong number of inputs, a shape or a dtype the file doesn't take.
            EdgeoptError: the runtime refused or failed.
        """
        self.prepare(fit_inputs(self.path, self.inputs, inputs))
        self.invoke()
        return self.fetch()

    def run_named(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Like :meth:`run` with tensors by name."""
        missing = [spec.name for spec in self.inputs if spec.name not in inputs]
        if missing or len(inputs) != len(self.inputs):
            expected = ", ".join(spec.name for spec in self.inputs)
            raise InputError(
                f"{self.path.name} takes the inputs {expected}, not {', '.join(inputs) or 'none'}."
            )
        outputs = self.run([inputs[spec.name] for spec in self.inputs])
        return {spec.name: value for spec, value in zip(self.outputs, outputs, strict=True)}


def fit_inputs(path: Path, specs: Sequence[TensorSpec], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``inputs`` checked against ``specs`` and cast where nothing is lost by it.

    Raises:
        InputError: naming the input, what was expected and what was found.
    """
    import numpy as np

    if len(inputs) != len(specs):
        expected = ", ".join(describe(spec) for spec in specs)
        raise InputError(
            f"{path.name} takes {counted(len(specs), 'input')} ({expected}), but {len(inputs)} were given."
        )
    return [_fit(path, spec, np.asarray(value)) for spec, value in zip(specs, inputs, strict=True)]


def describe(spec: TensorSpec) -> str:
    """``name: dtype[1×3×?]``, as error messages and tables show a tensor."""
    shape = "×".join("?" if size < 0 else str(size) for size in spec.shape)
    return f"{spec.name}: {spec.dtype}[{shape}]"


def _fit(path: Path, spec: TensorSpec, value: np.ndarray) -> np.ndarray:
    import numpy as np

    same_rank = value.ndim == len(spec.shape)
    if not same_rank or any(
        size not in (-1, found) for size, found in zip(spec.shape, value.shape, strict=True)
    ):
        raise InputError(
            f"{path.name} expects input {describe(spec)}, but the array given has shape {list(value.shape)}."
        )
    if spec.max_shape is not None and any(f > m for f, m in zip(value.shape, spec.max_shape, strict=True)):
        raise InputError(
            f"{path.name} was exported for inputs {spec.name} up to {list(spec.max_shape)}, "
            f"but the array given has shape {list(value.shape)}."
        )
    # numpy has no bfloat16: such inputs travel as float32 and the runtime narrows them.
    dtype = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    if value.dtype == dtype:
        return np.ascontiguousarray(value) if value.ndim else value
    cast = _lossless_cast(value, dtype)
    if cast is None:
        scale = (
            f" (scale {spec.quantization[0]:g}, zero point {spec.quantization[1]})"
            if spec.quantization
            else ""
        )
        raise InputError(
            f"{path.name} expects input {describe(spec)}{scale}, but the array given is {value.dtype} and "
            f"can't be cast to {spec.dtype} without loss: convert it first."
        )
    return cast


def _lossless_cast(value: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    import numpy as np

    kinds = {value.dtype.kind, dtype.kind}
    if not (kinds <= {"i", "u"} or kinds == {"f"}):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        cast = value.astype(dtype)
        back = cast.astype(value.dtype)
    # A negative number survives int → uint → int: compare signs as well.
    if kinds <= {"i", "u"} and not np.array_equal(cast < 0, value < 0):
        return None
    return cast if np.array_equal(back, value, equal_nan=dtype.kind == "f") else None
