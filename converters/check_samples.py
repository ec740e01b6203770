"""Which inputs a file is checked on, and the source model's outputs on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..errors import EdgeoptError, InputError
from ..models.data import Sample
from ..models.resolve import brief
from ..models.source import SourceModel
from ..models.state import preserved_state

CHECK_SAMPLES = 8
# Drawn beside the example when there are no calibration samples.
_VARIATIONS = 3
Arrays = tuple[tuple[np.ndarray, ...], ...]


class _Labelled(NamedTuple):
    """A sample and what a message calls it."""

    what: str
    sample: Sample


def run_samples(source: SourceModel, calibration: Sequence[Sample] | None) -> tuple[list[Sample], Arrays]:
    """The samples to check on, and the source model's outputs on them.

    Calibration samples when there are any, else the example and seeded variations of it: noise like it, or, of
    a model that fails on noise (it may take some input as an index), its numbers in another order, or none.
    With dynamic dimensions also their smallest and largest size.

    Raises:
        InputError: the source model fails on a calibration sample or at a size that it should take.
    """
    failure: EdgeoptError | None = None
    for choice in _choices(source, calibration):
        try:
            return [sample for _, sample in choice], _reference(source, choice)
        except EdgeoptError as error:
            failure = error
    assert failure is not None
    raise failure


def _choices(source: SourceModel, calibration: Sequence[Sample] | None) -> Iterator[list[_Labelled]]:
    """Sets of samples, the one that says most first."""
    if calibration:
        stride = max(1, len(calibration) // CHECK_SAMPLES)
        taken = range(0, len(calibration), stride)[:CHECK_SAMPLES]
        chosen = [_Labelled(f"calibration sample {i}", calibration[i]) for i in taken]
        yield chosen + _extremes(source, chosen[0].sample)
        return
    example = _Labelled("the example inputs", source.example)
    extremes = _extremes(source, source.example)
    vary: Callable[[torch.Tensor, torch.Generator], torch.Tensor]
    for vary in (_vary, _reorder):
        generator = torch.Generator().manual_seed(0)
        drawn = [tuple(vary(t, generator) for t in source.example) for _ in range(_VARIATIONS)]
        yield [example, *(_Labelled("inputs drawn from the example", sample) for sample in drawn), *extremes]
    yield [example, *extremes]


def _reference(source: SourceModel, samples: Sequence[_Labelled]) -> Arrays:
    found = []
    # A file begins with the state that the model was captured in, and meets the samples in the same order.
    with preserved_state(source.module):
        for what, sample in samples:
            try:
                found.append(tuple(t.numpy() for t in source.run(sample)))
            except EdgeoptError:
                raise
            except Exception as error:
                raise InputError(
                    f"{source.origin} fails on {what}: {brief(error)}; "
                    "give values and sizes that forward can take."
                ) from error
    return tuple(found)


def _vary(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Another tensor that such an input could be: noise of the same mean and spread, or the same numbers
    in another order where they are whole (indices, counts and masks come as floats too)."""
    if not tensor.is_floating_point() or _holds_whole_numbers(tensor):
        return _reorder(tensor, generator)
    spread = float(tensor.double().std()) if tensor.numel() > 1 else 1.0
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    return (noise * (spread or 1.0) + float(tensor.double().mean())).to(tensor.dtype)


def _holds_whole_numbers(tensor: torch.Tensor) -> bool:
    # All alike tells nothing: zeros and ones are what people write for an input of any kind.
    return bool(torch.equal(tensor, tensor.round())) and bool((tensor != tensor.flatten()[:1]).any())


def _reorder(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    order = torch.randperm(tensor.numel(), generator=generator)
    return tensor.flatten()[order].reshape(tensor.shape)


def _extremes(source: SourceModel, sample: Sample) -> list[_Labelled]:
    """``sample`` at the smallest and the largest size of the dynamic dimensions."""
    if not source.dynamic:
        return []
    dims = {dim.name: dim for dim in source.dynamic.values()}
    found = []
    for sizes in ({n: d.low for n, d in dims.items()}, {n: d.high for n, d in dims.items()}):
        resized = tuple(_resize(t, i, sizes, source) for i, t in enumerate(sample))
        found.append(_Labelled(", ".join(f"{name}={size}" for name, size in sizes.items()), resized))
    return found


def _resize(tensor: torch.Tensor, index: int, sizes: dict[str, int], source: SourceModel) -> torch.Tensor:
    for axis in range(tensor.ndim):
        dim = source.dynamic.get((index, axis))
        if dim is not None:
            size = sizes[dim.name]
            repeats = [1] * tensor.ndim
            repeats[axis] = -(-size // tensor.shape[axis])
            tensor = tensor.repeat(*repeats).narrow(axis, 0, size)
    return tensor.contiguous()
