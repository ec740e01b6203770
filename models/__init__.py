"""Where a model comes from: the user's module, its example inputs and data, and its one capture.

Front door: :func:`load_source_model` (a spec, a file or a module → :class:`SourceModel`),
:func:`capture` (→ :class:`Capture`, done once for all formats), :class:`Finding` (a problem with its
place and a suggestion). This folder never transforms a model and never knows an output format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .findings import Finding

if TYPE_CHECKING:
    from .data import Evaluation, load_calibration, load_evaluation
    from .program import Capture, capture
    from .source import SourceModel, load_source_model

__all__ = [
    "Capture",
    "Evaluation",
    "Finding",
    "SourceModel",
    "capture",
    "load_calibration",
    "load_evaluation",
    "load_source_model",
]

_HOME = {
    "Capture": ".program",
    "capture": ".program",
    "Evaluation": ".data",
    "load_calibration": ".data",
    "load_evaluation": ".data",
    "SourceModel": ".source",
    "load_source_model": ".source",
}


def __getattr__(name: str) -> Any:
    # torch comes with these modules; a Finding must not bring it.
    if name not in _HOME:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(_HOME[name], __name__), name)
