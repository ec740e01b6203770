"""The few ways in which edgeopt fails, each with the exit code it means.

0 success · 1 our own failure · 2 usage or bad input · 3 a gate failed · 130 interrupted (143 by SIGTERM, 129 by SIGHUP).
A message is one sentence that says what was wrong, where, and what to do.
"""

from __future__ import annotations

from typing import Any


class EdgeoptError(Exception):
    """Our own failure: something edgeopt should have been able to do."""

    exit_code = 1
    others: tuple[
        EdgeoptError, ...
    ] = ()  # what else failed beside it, where several files or devices were asked for


class InputError(EdgeoptError):
    """The user's input is wrong: an unknown profile, a corrupt file, a shape that doesn't fit."""

    exit_code = 2


class GateError(EdgeoptError):
    """A check the user asked for failed: parity, accuracy, budget, delegation, regression.

    ``bundle`` is what was made nevertheless (marked failed), where there is one.
    """

    exit_code = 3

    def __init__(self, message: str, bundle: Any = None) -> None:
        super().__init__(message)
        self.bundle = bundle
