"""The emulated arm64 board: the artefact's real arm64 machine code under QEMU, counted and never timed.

Front door: :func:`setup` (once), :func:`run` (outputs and counts), :func:`check_parity` (against the host and
the source model), :func:`measure_on_emulator` (measurements), :func:`payload` (what a real board needs to run
the same runner), :class:`EmulatorTarget` (push, execute, pull). Nothing here may report QEMU's wall-clock as a latency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_FROM = {
    "Counts": ".counts",
    "Cpu": ".cpu",
    "EmulatedRun": ".execution",
    "EmulatorTarget": ".board",
    "Parity": ".parity",
    "check_parity": ".parity",
    "gate_counts": ".gating",
    "measure_on_emulator": ".measuring",
    "write_counts_baseline": ".gating",
    "cpu_of": ".cpu",
    "payload": ".toolchain",
    "run": ".execution",
    "setup": ".toolchain",
    "verify_on_emulator": ".verification",
}

__all__ = [
    "Counts",
    "Cpu",
    "EmulatedRun",
    "EmulatorTarget",
    "Parity",
    "check_parity",
    "cpu_of",
    "gate_counts",
    "measure_on_emulator",
    "payload",
    "run",
    "setup",
    "verify_on_emulator",
    "write_counts_baseline",
]

if TYPE_CHECKING:
    from .board import EmulatorTarget as EmulatorTarget
    from .counts import Counts as Counts
    from .cpu import Cpu as Cpu
    from .cpu import cpu_of as cpu_of
    from .execution import EmulatedRun as EmulatedRun
    from .execution import run as run
    from .gating import gate_counts as gate_counts
    from .gating import write_counts_baseline as write_counts_baseline
    from .measuring import measure_on_emulator as measure_on_emulator
    from .parity import Parity as Parity
    from .parity import check_parity as check_parity
    from .toolchain import payload as payload
    from .toolchain import setup as setup
    from .verification import verify_on_emulator as verify_on_emulator


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FROM[name], __name__), name)
