"""The clock of an x86 machine that hides it, as virtual machines do: measured once and kept.

What /proc/cpuinfo shows there is the nominal clock: 2.6 GHz of cores that ran at 4.1, and estimates that were too slow
by as much.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from ..disk import cache_folder

# A hundred times add rax, rdx, each of which waits for the one before: a cycle each on every core of the last twenty
# years. Then dec rdi; jnz back; ret. A shorter loop is slower where another machine's work shares the core, as two
# threads of one core take turns at its branches.
_CHAIN = 100
_BODY = bytes((0x48, 0x01, 0xD0)) * _CHAIN + bytes((0x48, 0xFF, 0xCF))
_LOOP = _BODY + bytes((0x0F, 0x85)) + (-len(_BODY) - 6).to_bytes(4, "little", signed=True) + bytes((0xC3,))
_TURNS = 20_000
_TRIES = 40


def kept_mhz(model: str, shown_mhz: float, measure: Callable[[], float | None] | None = None) -> int | None:
    """The clock of this machine to the next 100 MHz; None where it can't be measured or isn't believable.

    The first answer for a ``model`` is kept in the user's cache: a boost clock moves with what else the silicon does,
    and a profile shouldn't.

    Args:
        model: what the machine says its processor is.
        shown_mhz: the clock that it shows; a tenth less or three times as much is believed.
        measure: instead of :func:`measured_mhz`.
    """
    file = _file()
    key = {"model": model, "shown_mhz": round(shown_mhz, -2)}
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if {name: kept[name] for name in key} == key and 100 <= int(kept["mhz"]) <= 10_000:
            return int(kept["mhz"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = (measure or measured_mhz)()
    if found is None or not 0.9 * shown_mhz <= found <= 3 * shown_mhz:
        return None
    mhz = int(round(found, -2))
    _keep(file, {**key, "mhz": mhz, "measured": time.strftime("%Y-%m-%d")})
    return mhz


def measured_mhz() -> float | None:
    """Cycles a microsecond, by a chain of instructions that take one each: the fastest of some tries of less than a
    millisecond, 30 ms altogether, as neighbours slow down most of them on a busy machine.

    None where the system allows no code of our own, or where the processor isn't an x86-64.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except (OSError, ValueError, AttributeError):
        return None
    memory.write(_LOOP)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    loop = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(start)
    best = 0.0
    for _ in range(_TRIES):
        # Of this thread: what other processes take of the core isn't counted.
        before = time.thread_time_ns()
        loop(_TURNS)
        taken = time.thread_time_ns() - before
        if taken > 0:
            best = max(best, _TURNS * _CHAIN * 1e3 / taken)
    return best or None


def _file() -> Path:
    return cache_folder() / "host_clock.json"


def _keep(file: Path, content: dict[str, object]) -> None:
    """A cache that can't be written is no reason to fail: the clock is measured again then."""
    part = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
