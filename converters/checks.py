"""Runs a finished file on check samples and on the user's evaluation, in the process that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..models.data import Evaluation, Sample
from ..models.predicting import Run, predictor, torch_run
from ..models.source import SourceModel
from ..models.state import preserved_state
from ..runtimes import LoadedModel, open_model
from .check_samples import run_samples
from .ordering import named_order
from .verification import Parity, compare


@dataclass(frozen=True)
class Checks:
    """What every file is checked against.

    Attributes:
        samples: inputs, per sample one array an input.
        reference: the source model's outputs on them.
        evaluation: the user's task metric, or None.
        baseline: the metric of the source model, or None.
        baseline_samples: how many samples that metric was taken on, when the user says.
    """

    source: SourceModel
    samples: tuple[tuple[np.ndarray, ...], ...]
    reference: tuple[tuple[np.ndarray, ...], ...]
    evaluation: Evaluation | None = None
    baseline: float | None = None
    baseline_samples: int | None = None
    min_snr_db: float | None = None


@dataclass(frozen=True)
class CheckResult:
    """Parity and metric of one file."""

    parity: tuple[Parity, ...]
    metric: float | None = None
    metric_samples: int | None = None
    runtime: str = ""
    io: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every output is within its tolerance."""
        return all(output.passed for output in self.parity)


def make_checks(
    source: SourceModel,
    calibration: Sequence[Sample] | None,
    evaluation: Evaluation | None,
    min_snr_db: float | None,
) -> Checks:
    """Choose the samples and run the source model on them once."""
    samples, reference = run_samples(source, calibration)
    _check_repeats(source, samples[0], reference[0])
    baseline, count = None, None
    if evaluation is not None:
        with preserved_state(source.module):
            baseline, count = evaluation(predictor(source, torch_run(source.run)), "the source model")
    arrays = tuple(tuple(t.numpy() for t in sample) for sample in samples)
    return Checks(source, arrays, reference, evaluation, baseline, count, min_snr_db)


def _check_repeats(source: SourceModel, sample: Sample, expected: Sequence[np.ndarray]) -> None:
    with preserved_state(source.module):
        again = [t.numpy() for t in source.run(sample)]
    for info, first, second in zip(source.outputs, expected, again, strict=True):
        if first.shape != second.shape or not np.allclose(
            first, second, rtol=1e-2, atol=1e-4, equal_nan=True
        ):
            raise InputError(
                f"{source.origin} gives another {info.name!r} when it is called again with the same inputs, so no file "
                "can be compared with it: keep what forward changes in a buffer (register_buffer), or take it as an input."
            )


def uninformative_outputs(checks: Checks) -> list[str]:
    """Outputs that the source model gives alike for every check input: parity on them proves little."""
    first, *others = checks.reference
    return [
        info.name
        for index, info in enumerate(checks.source.outputs)
        if others
        and all(
            o[index].shape != first[index].shape
            or np.array_equal(o[index], first[index], equal_nan=first[index].dtype.kind == "f")
            for o in others
        )
    ]


def check_file_outputs(path: Path, precision: str, checks: Checks) -> CheckResult:
    """Run ``path`` in its runtime and compare it with the source model.

    Raises:
        EdgeoptError: the runtime can't load or run the file.
    """
    model = open_model(path)
    try:
        run = _named_run(model, checks.source)
        found = [run(sample) for sample in checks.samples]
        names = [info.name for info in checks.source.outputs]
        parity = compare(checks.reference, found, names, precision, min_snr_db=checks.min_snr_db)
        metric, count = None, None
        if checks.evaluation is not None:
            metric, count = checks.evaluation(predictor(checks.source, run), path.name)
        io = {
            side: [
                {"name": s.name, "shape": list(s.shape), "dtype": s.dtype, "quantization": s.quantization}
                for s in specs
            ]
            for side, specs in (("inputs", model.inputs), ("outputs", model.outputs))
        }
        return CheckResult(tuple(parity), metric, count, model.runtime, io)
    finally:
        model.close()


def _named_run(model: LoadedModel, source: SourceModel) -> Run:
    """A function that runs ``model`` with inputs and outputs in the order of the source model."""
    return reordered(model, [info.name for info in source.inputs], [info.name for info in source.outputs])


def reordered(model: LoadedModel, inputs: Sequence[str], outputs: Sequence[str]) -> Run:
    """Run a file with its tensors in the order of the given names, where the file knows those names."""
    in_order = named_order([spec.name for spec in model.inputs], inputs)
    out_order = named_order(outputs, [spec.name for spec in model.outputs])

    def run(values: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(values) != len(inputs):
            raise InputError(f"{len(values)} arrays were given; the model takes {len(inputs)}.")
        found = model.run([values[i] for i in in_order])
        if len(found) != len(outputs):
            raise InputError(
                f"{model.path.name} gives {len(found)} outputs, the source model {len(outputs)}."
            )
        return [found[i] for i in out_order]

    return run
