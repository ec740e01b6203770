"""What a model needs of memory while it runs: the file, packed weights, the arena, and the peak of all."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .kernels import MAC_KINDS, Kernel

_MIB = 2.0**20


@dataclass(frozen=True)
class MemoryFacts:
    """What a graph says of its memory, in bytes.

    Attributes:
        file_bytes: of the file.
        weight_bytes: of the constants as they are stored.
        table_bytes: of tables that are looked up in: only the rows asked for are ever read.
        unpacked_bytes: of float copies that are made of narrower constants when the file is loaded.
        io_bytes: of inputs and outputs.
        arena_bytes: the most that activations take at one moment.
    """

    file_bytes: int
    weight_bytes: int
    arena_bytes: int
    table_bytes: int = 0
    unpacked_bytes: int = 0
    io_bytes: int = 0


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one loaded model in MiB, above what the runtime takes before it is loaded.

    ``packed_mib`` is the copy of the weights that XNNPACK lays out for its kernels.
    """

    arena_mib: float
    weights_mib: float
    packed_mib: float
    peak_mib: float

    def to_dict(self) -> dict[str, float]:
        """Plain data for JSON."""
        return {
            "planned_arena_mib": self.arena_mib,
            "weights_mib": self.weights_mib,
            "packed_weights_mib": self.packed_mib,
            "peak_memory_mib": self.peak_mib,
        }


def estimate_memory(facts: MemoryFacts, kernels: Sequence[Kernel], runtime: str) -> MemoryEstimate:
    """The peak of loading and of running, and what the runtime itself takes.

    ExecuTorch reads a delegate's data, packs it and drops it, so that the file's bytes and the arena don't meet.
    LiteRT leaves the file mapped, of which a table's pages are loaded as they are asked for, and keeps the float
    copies of widened weights beside the packed ones. Checked against resident memory in docs/estimate.md
    (benchmarks/memory_table.py).
    """
    packed = sum(kernel.bytes_weights for kernel in kernels if kernel.delegate and kernel.kind in MAC_KINDS)
    if runtime == "executorch":
        peak = packed + max(facts.file_bytes, facts.arena_bytes)
    else:
        peak = packed + facts.file_bytes - facts.table_bytes + facts.unpacked_bytes + facts.arena_bytes
    peak += _beside("copies_of_io", runtime) * facts.io_bytes
    return MemoryEstimate(
        arena_mib=facts.arena_bytes / _MIB,
        weights_mib=facts.weight_bytes / _MIB,
        packed_mib=packed / _MIB,
        peak_mib=peak / _MIB + runtime_mib(runtime),
    )


@cache
def _runtimes() -> dict[str, dict[str, float]]:
    with Path(__file__).with_name("memory.toml").open("rb") as stream:
        return tomllib.load(stream)


def runtime_mib(runtime: str) -> float:
    """What a runtime takes beside its model (its code's pages, its thread pool); 0 where it wasn't measured."""
    return _beside("runtime_mib", runtime)


def _beside(what: str, runtime: str) -> float:
    return _runtimes()[what].get(runtime, 0.0)


def peak_bytes(
    steps: Sequence[tuple[Iterable[int], Iterable[int]]],
    sizes: Mapping[int, float],
    inputs: Iterable[int] = (),
    outputs: Iterable[int] = (),
) -> int:
    """The most bytes alive at one step: a tensor lives from the step that writes it to the last that reads it.

    Args:
        steps: (tensors read, tensors written), in order.
        sizes: tensor → bytes; what isn't listed takes none (constants).
        inputs, outputs: alive from the beginning, or to the end.
    """
    last = {tensor: len(steps) for tensor in outputs}
    for index, (reads, writes) in reversed(list(enumerate(steps))):
        for tensor in (*reads, *writes):
            last.setdefault(tensor, index)
    alive = {tensor for tensor in inputs if tensor in sizes}
    most = sum(sizes[tensor] for tensor in alive)
    for index, (_, writes) in enumerate(steps):
        alive |= {tensor for tensor in writes if tensor in sizes}
        most = max(most, sum(sizes[tensor] for tensor in alive))
        alive = {tensor for tensor in alive if last.get(tensor, -1) > index}
    return int(most)
