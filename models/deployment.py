"""What an app must know beside the tensors: the classes' names, and how pixels become the image input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .source import SourceModel


def check_deployment(
    source: SourceModel,
    labels: Path | str | Sequence[str] | None,
    mean: str | Sequence[float] | None,
    std: str | Sequence[float] | None,
    *,
    channels_last: bool = False,
) -> dict[str, Any] | None:
    """The bundle's ``deployment`` section; None when nothing was given.

    Args:
        labels: one name a class: a list, or a file with one a line.
        mean, std: one figure a channel of the image input, which is (value / 255 - mean) / std.
        channels_last: images are laid out as Keras does it, (batch, height, width, channels).

    Raises:
        InputError: they don't fit the model's inputs and outputs.
    """
    if labels is None and mean is None and std is None:
        return None
    if (mean is None) != (std is None):
        raise InputError("--mean and --std belong together: give both, or neither.")
    names = _labels(labels)
    if names and not any(t.shape and t.shape[-1] == len(names) for t in source.outputs):
        raise InputError(
            f"--labels has {len(names)} names, and no output has a last axis of {len(names)}: the outputs are "
            f"{', '.join(str(t) for t in source.outputs)}."
        )
    means, stds = _figures("--mean", mean), _figures("--std", std)
    for option, figures in (("--mean", means), ("--std", stds)):
        if figures is not None and not any(
            _channels(t.shape, channels_last) == len(figures) for t in source.inputs
        ):
            raise InputError(
                f"{option} has {len(figures)} figures, and no input is an image with as many channels: the inputs "
                f"are {', '.join(str(t) for t in source.inputs)}."
            )
    if stds is not None and min(stds) <= 0:
        raise InputError("--std must be above 0: pixels are divided by it.")
    return {"labels": names, "mean": means, "std": stds}


def _channels(shape: tuple[int | str, ...], last: bool) -> int | None:
    """Channels of an image: on the second axis, or on the ``last``; None for anything else."""
    size = shape[3 if last else 1] if len(shape) == 4 else None
    return size if isinstance(size, int) and size in (1, 3) else None


def _labels(labels: Path | str | Sequence[str] | None) -> list[str]:
    if labels is None:
        return []
    if not isinstance(labels, str | Path):
        return [str(name) for name in labels]
    try:
        return Path(labels).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--labels {labels} can't be read as text ({error}): one name a line.") from error


def _figures(option: str, given: str | Sequence[float] | None) -> list[float] | None:
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else given
    try:
        figures = [float(part) for part in parts]
    except ValueError:
        figures = []
    if not figures or not all(math.isfinite(figure) for figure in figures):
        raise InputError(
            f"{option} {given} is not a list of figures: give one a channel, like 0.485,0.456,0.406."
        )
    return figures
