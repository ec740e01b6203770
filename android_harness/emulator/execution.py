"""Runs an artefact's arm64 machine code under QEMU, and counts one inference of it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import EdgeoptError, InputError
from ...runtimes.scratch import ScratchFolder
from .counts import Counts, Phases, read_phases
from .cpu import Cpu, cpu_of, write_identity
from .toolchain import Toolchain, load

if TYPE_CHECKING:
    import numpy as np

    from ...device_profiles import DeviceProfile

RUNTIME_OF = {".pte": "executorch", ".tflite": "litert"}
# Two inferences before the counted one: the first allocates, the second finds the heap as it stays.
WARMUP = 2
# Associativity of the simulated caches: what Arm's cores have at these levels (technical reference manuals).
_WAYS = {"l1d": 4, "l2": 8, "l3": 16}


@dataclass(frozen=True)
class Section:
    """A part of the inference between two readings of the profiler's clock.

    ``name`` is the operator that ran in it, "" for the runtime's own work around operators (the profiler's
    own bookkeeping included), None where the runtime does not tell.
    """

    name: str | None
    counts: Counts


@dataclass(frozen=True)
class EmulatedRun:
    """One run on the emulated board.

    ``counts`` belongs to one steady inference, ``load_counts`` to everything before the first one; both
    are None without counting. ``sections`` splits the inference at the profiler's clock readings. There is
    no time in here: QEMU's wall-clock says nothing about a device.
    """

    artifact: Path
    outputs: tuple[np.ndarray, ...]
    cpu: Cpu
    runtime: str
    runtime_version: str
    threads: int
    cpu_features: tuple[str, ...]
    uarch: str | None
    planned_memory_bytes: int | None
    feature_problems: tuple[str, ...]
    toolchain: str
    counts: Counts | None = None
    load_counts: Counts | None = None
    sections: tuple[Section, ...] = ()


def run(
    artifact: Path | str,
    inputs: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    profile: DeviceProfile | Cpu,
    *,
    num_threads: int = 1,
    count: bool = True,
    per_op: bool = False,
    cluster: int | None = None,
    method: str = "forward",
    timeout_s: float = 1800.0,
) -> EmulatedRun:
    """Run ``artifact`` (.pte or .tflite) on the emulated CPU of ``profile``.

    Args:
        inputs: arrays in the order of the file's inputs (a mapping's values are taken in its order).
        profile: the device, or a :class:`Cpu` made by :func:`cpu_of`.
        num_threads: more than one can be run but not counted: waiting threads spin, so counts would
            differ from run to run.
        count: count one inference with the QEMU plugin.
        per_op: also split the inference at the runtime's own profiler events.
        cluster: which cluster of the profile; the big one when left out.

    Raises:
        InputError: unknown format, wrong inputs, threads with counting.
        EdgeoptError: the emulator is not set up, or the guest crashed.
    """
    path = Path(artifact)
    runtime = runtime_of(path)
    if count and num_threads != 1:
        raise InputError("counting needs one thread (waiting threads spin); use num_threads=1 or count=False")
    cpu = profile if isinstance(profile, Cpu) else cpu_of(profile, cluster)
    arrays = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
    toolchain = load()
    with ScratchFolder("emulated") as name:
        guest = _Guest(Path(name), toolchain, cpu, path, runtime)
        flags = guest.write_inputs(arrays)
        flags += ["--method", method, "--num-threads", str(num_threads), "--output-prefix", "out"]
        flags += ["--warmup", str(WARMUP), "--runs", "1"]
        flags += ["--markers"] if count else []
        flags += ["--profile", "profile.bin"] if per_op else []
        report = guest.execute(flags, count=count, per_op=per_op, timeout_s=timeout_s)
        phases = read_phases(guest.folder / "counts.jsonl") if count else None
        return _result(guest, report, phases)


def describe(
    artifact: Path | str, profile: DeviceProfile | Cpu, *, method: str = "forward"
) -> dict[str, Any]:
    """What the arm64 runner says of a file without running it: ``inputs`` with dtype and shape.

    Raises:
        InputError: unknown format or unreadable file.
        EdgeoptError: the emulator is not set up.
    """
    path = Path(artifact)
    cpu = profile if isinstance(profile, Cpu) else cpu_of(profile)
    with ScratchFolder("emulated") as name:
        guest = _Guest(Path(name), load(), cpu, path, runtime_of(path))
        return guest.execute(["--describe", "--method", method], count=False, per_op=False, timeout_s=600.0)


def runtime_of(path: Path) -> str:
    """The runtime whose runner takes the file.

    Raises:
        InputError: the emulator runs .pte and .tflite files only, and this one must exist.
    """
    runtime = RUNTIME_OF.get(path.suffix)
    if runtime is None:
        raise InputError(f"{path.name} is not a .pte or .tflite file, the two formats the emulator runs")
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    return runtime


class _Guest:
    """One guest's root and working folder. Names are the same in every run, so that counts are too."""

    def __init__(self, folder: Path, toolchain: Toolchain, cpu: Cpu, artifact: Path, runtime: str) -> None:
        self.folder = folder
        self.toolchain = toolchain
        self.cpu = cpu
        self.artifact = artifact
        root = folder / "root"
        write_identity(cpu, root)
        (root / "lib").symlink_to(toolchain.sysroot / "lib")
        (root / "rt").mkdir()
        for library in toolchain.runtime_libraries(runtime):
            (root / "rt" / library.name).symlink_to(library)
        (folder / "runner").symlink_to(toolchain.runner(runtime))
        self._model = f"model{artifact.suffix}"
        (folder / self._model).symlink_to(artifact.resolve())

    def write_inputs(self, arrays: list[np.ndarray]) -> list[str]:
        """Raw files beside the runner, and the flags that name them."""
        import numpy as np

        flags = []
        for index, array in enumerate(arrays):
            file = f"in{index}.bin"
            np.ascontiguousarray(array).tofile(self.folder / file)
            shape = "x".join(str(size) for size in np.shape(array))
            flags += ["--input", f"{file}@{shape}:{np.asarray(array).dtype.name}"]
        return flags

    def execute(self, flags: list[str], *, count: bool, per_op: bool, timeout_s: float) -> dict[str, Any]:
        """Run the runner under QEMU and return its line of JSON."""
        command = [
            str(self.toolchain.qemu), "-L", str(self.folder / "root"), "-cpu", self.cpu.qemu_cpu,
            "-seed", "1", "-U", "LD_LIBRARY_PATH", "-E", "LD_LIBRARY_PATH=/rt:/lib",
        ]  # fmt: skip
        if count:
            command += ["-plugin", self._plugin_argument(per_op)]
        command += ["./runner", "--model", self._model, *flags]
        # A fixed environment: its size moves the guest's stack, and with it the cache misses.
        environment = {"LD_LIBRARY_PATH": self.toolchain.host_libraries}
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, timeout=timeout_s,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EdgeoptError(
                f"the emulated run did not end within {timeout_s:g} s; give a smaller input or more time"
            ) from None
        out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        if done.returncode != 0:
            _explain(done.returncode, err, self.cpu)
        try:
            report: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise EdgeoptError("the arm64 runner ended without a result line") from None
        return report

    def _plugin_argument(self, per_op: bool) -> str:
        words = [str(self.toolchain.counter), "out=counts.jsonl", f"cache_from={WARMUP - 1}"]
        for level, size in (("l1d", self.cpu.l1d_kib), ("l2", self.cpu.l2_kib), ("l3", self.cpu.l3_kib)):
            if size:
                words.append(f"{level}={size}:{_WAYS[level]}")
        return ",".join([*words, "per_op=1"] if per_op else words)


def _explain(returncode: int, err: str, cpu: Cpu) -> None:
    """Turn a failed run into one sentence."""
    words = [line.removeprefix("runner: ") for line in err.splitlines() if line.startswith("runner: ")]
    if words:
        raise InputError(f"the model could not be run on the emulated board: {words[-1]}")
    if -returncode == signal.SIGILL or "Illegal instruction" in err:
        raise EdgeoptError(
            f"the model's code used an instruction that {cpu.core} ({cpu.qemu_cpu}) does not have; "
            "compare the profile's isa with its qemu_cpu"
        )
    if "unable to find CPU model" in err:
        raise InputError(
            f"QEMU 7.2 has no CPU {cpu.qemu_cpu!r}: set the profile's reach.emulator.qemu_cpu to one it has "
            "(cortex-a53, cortex-a72, cortex-a76, ...), or remove reach.emulator: then the isa decides"
        )
    name = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
    last = next((line for line in reversed(err.splitlines()) if line.strip()), "no message")
    raise EdgeoptError(f"the emulated run ended with {name}: {last}")


def _result(guest: _Guest, report: dict[str, Any], phases: Phases | None) -> EmulatedRun:
    import numpy as np

    outputs = tuple(
        np.fromfile(guest.folder / row["file"], dtype=row["dtype"]).reshape(row["shape"])
        for row in report["outputs"]
    )
    return EmulatedRun(
        artifact=guest.artifact,
        outputs=outputs,
        cpu=guest.cpu,
        runtime=report["runtime"],
        runtime_version=report["runtime_version"],
        threads=report["threads"],
        cpu_features=tuple(report["cpu_features"]),
        uarch=report["uarch"],
        planned_memory_bytes=report["planned_memory_bytes"],
        feature_problems=tuple(guest.cpu.unexpected_features(report["cpu_features"])),
        toolchain=guest.toolchain.fingerprint,
        counts=phases.runs[-1] if phases else None,
        load_counts=phases.load if phases else None,
        sections=_sections(report["sections"], phases) if phases else (),
    )


def _sections(names: list[str], phases: Phases) -> tuple[Section, ...]:
    """Sections with their names, when the runner named each; the last one, after its last reading, is "".

    ExecuTorch's tracer tells what every reading of the clock ends; LiteRT's profiler does not.
    """
    named: list[str | None] = [*names, ""]
    if len(named) != len(phases.sections):
        named = [None] * len(phases.sections)
    return tuple(Section(name, counts) for name, counts in zip(named, phases.sections, strict=True))
