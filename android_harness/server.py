"""The server side of a comparison: the source model in PyTorch, on CUDA or on this CPU, through one class.

On CUDA times come from events on the stream and memory from the allocator; on the CPU from the clock and
from the process. A batch that doesn't fit is halved. Runs in a process of its own (``server_worker``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..converters.keras.spec import refuse_keras
from ..errors import EdgeoptError, InputError
from ..runtimes.isolation import run_job
from ..runtimes.scratch import ScratchFolder
from .accuracy import absolute_spec
from .conditions import Conditions, judge, snapshot

# Name of a precision -> dtype of what isn't quantised.
PRECISIONS = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8": "float32",
    "int8_weights": "float32",
}


@dataclass(frozen=True)
class ServerOptions:
    """What to measure on the server: device ("cpu" or "cuda"), precision, eager or compiled, batches."""

    device: str = "cpu"
    precision: str = "fp32"
    compiled: bool = False
    num_threads: int = 0  # 0: as many as PyTorch chooses
    largest_batch: int = 64
    seconds: float = 1.0
    energy: bool = False


@dataclass(frozen=True)
class BatchPoint:
    """One batch size: run times in ms of whole batches, items a second, peak memory in MiB of the device."""

    batch: int
    times_ms: tuple[float, ...]
    items_per_s: float
    peak_mib: float | None


class ServerModel:
    """A module on a device, timed by the device's own clock.

    Args:
        module: the source model in eval mode; example: one tensor an input, batch 1 on axis 0.

    Raises:
        EdgeoptError: the device isn't there.
        InputError: an unknown precision.
    """

    def __init__(self, module: Any, example: Sequence[Any], options: ServerOptions) -> None:
        import torch

        from ..runtimes.torch import torch_device

        if options.precision not in PRECISIONS:
            raise InputError(f"--server-precision knows {', '.join(PRECISIONS)}, not {options.precision!r}.")
        self._torch = torch
        self.device = torch_device(options.device)
        if options.num_threads:
            torch.set_num_threads(options.num_threads)
        self._dtype = getattr(torch, PRECISIONS[options.precision])
        self._example = [self._place(tensor) for tensor in example]
        self._module = module.to(device=self.device, dtype=self._dtype).eval()
        self.int8_share: float | None = None
        if options.precision.startswith("int8"):
            from .server_int8 import quantized

            self._module, self.int8_share = quantized(
                self._module, options.precision, self.device.type, compiled=options.compiled
            )
        self._call = torch.compile(self._module) if options.compiled else self._module

    def _place(self, tensor: Any) -> Any:
        return tensor.to(self.device, self._dtype) if tensor.is_floating_point() else tensor.to(self.device)

    def batch_inputs(self, batch: int) -> list[Any]:
        """The example repeated along axis 0.

        Raises:
            InputError: the inputs have no common batch axis of size 1.
        """
        if batch > 1 and any(t.ndim == 0 or t.shape[0] != 1 for t in self._example):
            raise InputError(
                "the model's example inputs have no batch axis of size 1: only batch 1 is measured."
            )
        return [t.repeat(batch, *[1] * (t.ndim - 1)) if batch > 1 else t for t in self._example]

    def outputs(self) -> list[np.ndarray]:
        """The outputs on the example, as float32 or as they are."""
        return self._run(self._example)

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for other inputs of the example's types, on the host."""
        return self._run([self._place(self._torch.from_numpy(np.ascontiguousarray(a))) for a in arrays])

    def _run(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        with self._torch.inference_mode():
            leaves, _ = self._torch.utils._pytree.tree_flatten(self._call(*inputs))
        return [(t.float() if t.is_floating_point() else t).cpu().numpy() for t in leaves]

    def point(self, batch: int, seconds: float) -> BatchPoint:
        """Measure one batch size: three warm-ups, then at least five runs.

        Raises:
            torch.OutOfMemoryError, RuntimeError: it doesn't fit or can't run.
        """
        inputs = self.batch_inputs(batch)
        if self.device.type == "cuda":
            self._torch.cuda.reset_peak_memory_stats()
        with self._torch.inference_mode():
            for _ in range(3):
                self._timed(inputs)
            times: list[float] = []
            end = time.perf_counter() + seconds
            while len(times) < 5 or (time.perf_counter() < end and len(times) < 10_000):
                times.append(self._timed(inputs))
        peak = self._torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else None
        return BatchPoint(batch, tuple(times), batch / (float(np.median(times)) / 1e3), peak)

    def _timed(self, inputs: Sequence[Any]) -> float:
        if self.device.type != "cuda":
            started = time.perf_counter()
            self._call(*inputs)
            return (time.perf_counter() - started) * 1e3
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._call(*inputs)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    def sweep(self, largest: int, seconds: float) -> tuple[list[BatchPoint], list[str]]:
        """Batches 1, 2, 4, ... up to ``largest``; when one doesn't fit, half of the way back is tried once.

        Returns:
            the points that ran, and notes about those that didn't.
        """
        points: list[BatchPoint] = []
        notes: list[str] = []
        batch, retried = 1, False
        while batch <= largest:
            try:
                points.append(self.point(batch, seconds))
            except InputError as error:
                notes.append(str(error))
                break
            except (self._torch.OutOfMemoryError, MemoryError):
                notes.append(f"batch {batch} does not fit into the memory of {self.device.type}")
                self._forget()
                fits = points[-1].batch if points else 0
                half = batch // 2 if batch // 2 > fits else (batch + fits) // 2
                if retried or half <= fits:
                    break
                batch, retried = half, True
                continue
            except RuntimeError as error:
                notes.append(f"batch {batch} can't be run: {' '.join(str(error).split())[:200]}")
                break
            if retried:
                break
            batch *= 2
        if not points:
            raise EdgeoptError(f"the source model can't be run on {self.device.type}: {'; '.join(notes)}.")
        return points, notes

    def count(self, seconds: float, batch: int = 1) -> int:
        """Run for a while and return the items done (for energy windows)."""
        inputs = self.batch_inputs(batch)
        runs, end = 0, time.perf_counter() + seconds
        with self._torch.inference_mode():
            while runs == 0 or time.perf_counter() < end:
                self._timed(inputs)
                runs += 1
        return runs * batch

    def _forget(self) -> None:
        if self.device.type == "cuda":
            self._torch.cuda.empty_cache()


def measure_server(
    model_spec: str, options: ServerOptions, evaluate: str | None = None
) -> tuple[dict[str, Any], Conditions]:
    """Measure the source model in a fresh process.

    Args:
        model_spec: what ``edgeopt export`` takes as MODEL.
        evaluate: what it takes as --eval, if the task metric is wanted.

    Returns:
        the worker's result (``points``, ``notes``, ``snr_db``, ``device``, ``energy``, ``accuracy``,
        ``int8_share``) and the conditions.

    Raises:
        InputError, EdgeoptError: the model doesn't load, the device isn't there.
    """
    refuse_keras(model_spec, "compare --server")
    path = Path(model_spec)
    job = {
        "options": asdict(options),
        "model": absolute_spec(model_spec),
        "evaluate": absolute_spec(evaluate) if evaluate else None,
    }
    with ScratchFolder("server") as folder:
        before, started = snapshot(), time.monotonic()
        result = run_job(
            "android_harness.server_worker",
            job,
            Path(folder),
            what=path,
            runtime="torch",
            timeout_s=1800,
        )
        return result, judge(before, snapshot(), time.monotonic() - started)
