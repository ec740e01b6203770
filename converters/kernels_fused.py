"""What XNNPACK makes of a graph before it runs it: steps that vanish into their neighbours.

Seen in op profiles of both runtimes (ExecuTorch 1.5, LiteRT 2.3), and in XNNPACK's subgraph.c:

- a zero padding of height and width becomes the padding of the convolution that reads it;
- a function of one int8 value, written as widen, function, narrow, becomes one look-up in a table of 256 entries;
- activations that a product takes as int8 with a range found as it runs are converted while they are packed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ..cost_model import Kernel

_CONVERTS = ("convert", "quantize", "dequantize")


@dataclass(frozen=True)
class Step:
    """A kernel with the activations that it reads and writes, by their numbers in the graph.

    ``constants``: it also reads stored values that differ from place to place.
    """

    kernel: Kernel
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    constants: bool = False

    @property
    def widens(self) -> bool:
        """Whether it makes floats of int8 values."""
        return self._converts and self.kernel.precision != "int8"

    @property
    def narrows(self) -> bool:
        """Whether it makes int8 values of floats."""
        return self._converts and self.kernel.precision == "int8"

    @property
    def _converts(self) -> bool:
        return self.kernel.op in _CONVERTS

    @property
    def is_function(self) -> bool:
        """Whether it computes each value of the output from one of the input and nothing else."""
        single = len(self.reads) == 1 and len(self.writes) == 1 and not self.constants
        return single and self.kernel.kind == "elementwise" and not self._converts


def clamped(step: Step) -> list[Step]:
    """A sum or a product with bounds: XNNPACK clamps it in a kernel of its own."""
    kernel = step.kernel
    clamp = replace(
        kernel, name=f"{kernel.name}.clamp", op="clamp", bytes_in=kernel.bytes_out, bytes_weights=0
    )
    between = tuple(-1 - index for index in step.writes)
    return [replace(step, writes=between), Step(clamp, between, step.writes)]


def with_tables(steps: Sequence[Step], kept: Collection[int]) -> list[Step]:
    """``steps`` with each widening, functions and narrowing that follow one another as one look-up in a table.

    Args:
        kept: activations that are also read elsewhere; nothing that makes them vanishes.
    """
    readers = Counter(index for step in steps for index in step.reads)
    makers = {index: step for step in steps for index in step.writes}

    def before(step: Step) -> Step | None:
        """What makes the input of ``step`` for it alone."""
        if len(step.reads) != 1:
            return None
        alone = readers[step.reads[0]] == 1 and step.reads[0] not in kept
        return makers.get(step.reads[0]) if alone else None

    gone: set[int] = set()
    tables: dict[int, Step] = {}
    for last in steps:
        chain, step = [], before(last) if last.narrows else None
        while step is not None and step.is_function:
            chain.append(step)
            step = before(step)
        functions = [each.kernel for each in chain if each.kernel.op != "clamp"]
        if step is None or not step.widens or not functions:
            continue
        gone |= {id(each) for each in (step, *chain)}
        kernel = replace(
            last.kernel, name=functions[0].name, op=functions[0].op, bytes_in=step.kernel.bytes_in
        )
        tables[id(last)] = Step(kernel, step.reads, last.writes)
    return [tables.get(id(step), step) for step in steps if id(step) not in gone]
