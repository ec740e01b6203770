"""estimate(): latency, memory and energy on a device that isn't there, from a graph and a profile.

Files and bundles need neither torch nor a runtime; a model is captured first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .converters.keras.spec import refuse_keras
from .converters.kernels import RUNTIME_OF, read_work
from .cost_model import Estimate, Kernel, predict
from .cost_model.accelerators import AcceleratorEstimate, accelerator_estimates
from .cost_model.advice import Alternative, advice
from .cost_model.energy import EnergyEstimate, estimate_energy
from .cost_model.machine import stale_calibration, unknown_core_notes
from .cost_model.memory import MemoryEstimate, MemoryFacts, estimate_memory
from .cost_model.precisions import FASTER, in_precision, is_float32
from .device_profiles import DeviceProfile, load_profile
from .errors import InputError

FORMAT_OF = {"executorch": "pte", "litert": "tflite", "tflite_runtime": "tflite"}
MODEL_FILES = tuple(RUNTIME_OF)


@dataclass(frozen=True)
class Overrun:
    """What is expected to exceed a profile's budget: latency, peak memory, energy or size, in ``unit``."""

    what: str
    value: float
    budget: float
    unit: str
    profile: str

    @property
    def allowed(self) -> str:
        """Whose budget it is, and how much."""
        return f"{self.profile}'s budget of {self.budget:.3g} {self.unit}"

    @property
    def sentence(self) -> str:
        """The overrun in words."""
        return f"{self.what} of {self.value:.3g} {self.unit} is over {self.allowed}"


@dataclass(frozen=True)
class ArtifactEstimate:
    """What is expected of one file (or of one that an export would make) with one number of threads.

    Attributes:
        artifact: the file's name, or what it would be called.
        latency: with its band, grade and basis, and every kernel's share.
        energy: None where the profile has no figures of power.
        size_mib: of the file; None where there is none yet.
        overruns: the budgets of the profile that it is expected to exceed.
        advice: what takes the time and what would help, in words.
    """

    artifact: str
    format: str
    precision: str
    latency: Estimate
    memory: MemoryEstimate
    energy: EnergyEstimate | None
    size_mib: float | None
    overruns: tuple[Overrun, ...]
    advice: tuple[str, ...]

    @property
    def over_budget(self) -> tuple[str, ...]:
        """A sentence for each of the overruns."""
        return tuple(each.sentence for each in self.overruns)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = self.latency
        return {
            "artifact": self.artifact,
            "format": self.format,
            "precision": self.precision,
            "runtime": found.runtime,
            "threads": found.num_threads,
            "latency_ms": found.latency_ms,
            "band80": [found.low_ms, found.high_ms],
            "grade": found.grade,
            "basis": found.basis,
            "bounds": found.bounds,
            "memory": self.memory.to_dict(),
            "energy": self.energy.to_dict() if self.energy else None,
            "size_mib": self.size_mib,
            "over_budget": list(self.over_budget),
            "advice": list(self.advice),
        }

    def layers(self) -> list[dict[str, Any]]:
        """Every kernel with its share and what bounds it, in the order in which they run."""
        return [
            {
                "name": each.kernel.name,
                "kind": each.kernel.kind,
                "precision": each.kernel.precision,
                "delegate": each.kernel.delegate,
                "macs": each.kernel.macs,
                "bytes": each.kernel.bytes_moved,
                "latency_ms": each.latency_ms,
                "share": each.latency_ms / self.latency.latency_ms,
                "compute_ms": each.compute_ms,
                "memory_ms": each.memory_ms,
                "dispatch_ms": each.dispatch_ms,
                "bound": each.bound,
                "path": each.path,
            }
            for each in self.latency.kernels
        ]

    def measurements(self, target: str) -> list[dict[str, Any]]:
        """The figures in the form of measurements, with the grade of a prediction."""
        found = self.latency
        common = {"artifact": self.artifact, "target": target, "threads": found.num_threads}
        rows: list[dict[str, Any]] = [
            {"metric": "latency_ms", "value": found.latency_ms, "band80": [found.low_ms, found.high_ms],
             "grade": found.grade, **common},
            {"metric": "peak_memory_mib", "value": self.memory.peak_mib, "grade": "predicted", **common},
        ]  # fmt: skip
        if self.energy is not None:
            rows.append(
                {"metric": "energy_mj", "value": self.energy.dynamic_mj, "grade": "predicted", **common}
            )
        return rows


@dataclass(frozen=True)
class Estimates:
    """Everything that ``edgeopt estimate`` says of a model on a device."""

    model: str
    profile: DeviceProfile
    items: tuple[ArtifactEstimate, ...]
    accelerators: tuple[AcceleratorEstimate, ...]
    warnings: tuple[str, ...]

    def to_dict(self, *, per_layer: bool = False) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "model": self.model,
            "profile": self.profile.name,
            "estimates": [
                {**item.to_dict(), **({"layers": item.layers()} if per_layer else {})} for item in self.items
            ],
            "accelerators": [each.to_dict() for each in self.accelerators],
            "measurements": [row for item in self.items for row in item.measurements(self.profile.name)],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Candidate:
    artifact: str
    runtime: str
    precision: str
    kernels: tuple[Kernel, ...]
    memory: MemoryFacts
    size_mib: float | None = None


def estimate(
    model: Any,
    *,
    profile: str | DeviceProfile,
    num_threads: Sequence[int] = (),
    precision: str | Sequence[str] | None = None,
    runtime: str | None = None,
    progress: Callable[[str], None] | None = None,
    **source_options: Any,
) -> Estimates:
    """What ``model`` is expected to take on a device, without the device.

    Args:
        model: a bundle's folder, a .pte or .tflite file, or what ``export`` takes.
        profile: the target's name, a TOML path, or a loaded profile.
        num_threads: by default 1 and all cores of the fastest kind.
        precision: of a bundle, only files of these; of a float32 file or a model, what they would give.
        runtime: executorch, litert or tflite_runtime; by default what runs a file of its kind, and both for a
            model.
        source_options: how a model is loaded, see ``load_source_model``.

    Raises:
        InputError: no such model or profile, a corrupt file, more threads than cores, a precision that no file
            has and none can be foretold of.
    """
    target = profile if isinstance(profile, DeviceProfile) else load_profile(profile)
    wanted = _precisions(precision)
    name, candidates = _candidates(model, wanted, runtime, progress or (lambda what: None), source_options)
    threads = tuple(dict.fromkeys(num_threads)) or _usual_threads(target)
    items = [_estimated(candidate, target, count) for candidate in candidates for count in threads]
    warnings = unknown_core_notes(target)
    if stale := stale_calibration(target):
        warnings.append(stale)
    if any(
        each.kernel.delegate is None and each.kernel.macs for item in items for each in item.latency.kernels
    ):
        warnings.append("some layers run outside XNNPACK, of which less is known: they may take longer")
    elsewhere = accelerator_estimates(target, candidates[0].kernels)
    return Estimates(name, target, tuple(items), tuple(elsewhere), tuple(warnings))


def _precisions(given: str | Sequence[str] | None) -> tuple[str, ...]:
    from .optimizers.precision import parse_precision

    words = given.split(",") if isinstance(given, str) else given or ()
    return tuple(parse_precision(word).name for word in words)


def _usual_threads(profile: DeviceProfile) -> tuple[int, ...]:
    return tuple(dict.fromkeys((1, min(profile.big_cluster.count, 4))))


# What there is to estimate.


def _candidates(
    model: Any,
    wanted: tuple[str, ...],
    runtime: str | None,
    say: Callable[[str], None],
    source_options: dict[str, Any],
) -> tuple[str, list[_Candidate]]:
    path = Path(model) if isinstance(model, str | Path) else None
    if path is not None and path.is_dir() and (path / "manifest.json").is_file():
        return path.name, _of_bundle(path, wanted, runtime)
    if path is not None and path.suffix.lower() in MODEL_FILES:
        return path.name, _of_file(path, path.name, None, wanted, runtime)
    return _of_model(model, wanted, runtime, say, source_options)


def _of_bundle(path: Path, wanted: tuple[str, ...], runtime: str | None) -> list[_Candidate]:
    from .bundle import load_bundle

    bundle = load_bundle(path)
    artifacts = [
        each for each in bundle.artifacts if runtime is None or FORMAT_OF.get(runtime) == each.format
    ]
    if not artifacts:
        raise InputError(f"{path} has no file that {runtime} runs; it has {_names(bundle.artifacts)}.")
    chosen = [each for each in artifacts if not wanted or each.precision in wanted]
    missing = [name for name in wanted if name not in {each.precision for each in chosen}]
    found = [
        candidate
        for each in chosen
        for candidate in _of_file(bundle.artifact_path(each), each.file, each.precision, (), runtime)
    ]
    plain = [each for each in artifacts if each.precision == "fp32"]
    if missing and not plain:
        raise InputError(
            f"{path} has no file in {', '.join(missing)} and no float32 file to foretell one from; it has "
            f"{_names(bundle.artifacts)}."
        )
    for each in plain if missing else ():
        found += _of_file(bundle.artifact_path(each), each.file, "fp32", tuple(missing), runtime)
    return found


def _names(artifacts: Sequence[Any]) -> str:
    return ", ".join(each.file for each in artifacts) or "none"


def _of_file(
    path: Path, name: str, precision: str | None, wanted: tuple[str, ...], runtime: str | None
) -> list[_Candidate]:
    work = read_work(path)
    chosen = runtime or work.runtime
    if FORMAT_OF.get(chosen, path.suffix[1:]) != path.suffix[1:]:
        raise InputError(f"{name} is no file that {chosen} runs: leave --runtime out, or give another file.")
    own = precision or _precision_of(work.kernels)
    size = work.memory.file_bytes / 2**20
    if not wanted or wanted == (own,):
        return [_Candidate(name, chosen, own, work.kernels, work.memory, size)]
    return [
        _Candidate(f"{name} in {each}", chosen, each, tuple(in_precision(work.kernels, each, chosen)), _narrowed(work.memory, each, chosen))
        for each in wanted
    ]  # fmt: skip


def _precision_of(kernels: Sequence[Kernel]) -> str:
    """What a file's arithmetic is done in, where no manifest says it."""
    macs: dict[str, int] = {}
    for kernel in kernels:
        macs[kernel.precision] = macs.get(kernel.precision, 0) + kernel.macs
    main = max(macs, key=lambda name: macs[name]) if macs else "fp32"
    if main != "int8":
        return main
    floats = any(kernel.precision == "fp32" and kernel.kind in ("elementwise", "pool") for kernel in kernels)
    return "int8-dynamic" if floats and kernels[0].precision == "fp32" else "int8-static"


def _narrowed(memory: MemoryFacts, precision: str, runtime: str) -> MemoryFacts:
    """The memory of a float32 file exported in another precision: weights and what is computed shrink."""
    weights = {"fp32": 1.0, "fp16": 0.5, "int4-dynamic": 0.125, "int4-weights": 0.125}.get(precision, 0.25)
    arena = (
        0.25 if precision == "int8-static" else 0.5 if (precision, runtime) == ("fp16", "executorch") else 1.0
    )
    # Where LiteRT computes in float, it widens the weights when it loads the file.
    widened = runtime == "litert" and (precision == "fp16" or precision.endswith("-weights"))
    rest = memory.file_bytes - memory.weight_bytes
    return MemoryFacts(
        file_bytes=int(rest + weights * memory.weight_bytes),
        weight_bytes=int(weights * memory.weight_bytes),
        arena_bytes=int(arena * memory.arena_bytes),
        table_bytes=int(weights * memory.table_bytes),
        unpacked_bytes=memory.weight_bytes - memory.table_bytes if widened else 0,
        io_bytes=memory.io_bytes,
    )


def _of_model(
    model: Any,
    wanted: tuple[str, ...],
    runtime: str | None,
    say: Callable[[str], None],
    source_options: dict[str, Any],
) -> tuple[str, list[_Candidate]]:
    refuse_keras(model, "estimate")
    say("loading PyTorch and the model")
    from .models import capture, load_source_model
    from .models.kernels import program_kernels
    from .models.memory import program_memory

    source = load_source_model(model, **source_options)
    say("capturing the model")
    program = capture(source).program
    found = []
    for each in (runtime,) if runtime else ("executorch", "litert"):
        kind = FORMAT_OF.get(each)
        if kind is None:
            raise InputError(f"nothing can be foretold for runtime {each!r}; known: {', '.join(FORMAT_OF)}.")
        kernels = program_kernels(program, kind)  # type: ignore[arg-type]
        if not kernels:
            raise InputError(f"there is nothing to estimate: {source.origin} computes nothing.")
        memory = program_memory(program)
        for name in wanted or ("fp32",):
            suffix = "" if name == "fp32" else f".{name}"
            found.append(
                _Candidate(
                    f"model{suffix}.{kind}", each, name, tuple(in_precision(kernels, name, each)),
                    _narrowed(memory, name, each),
                )
            )  # fmt: skip
    return source.name, found


# What is said of each.


def _estimated(candidate: _Candidate, profile: DeviceProfile, threads: int) -> ArtifactEstimate:
    found = predict(candidate.kernels, profile, runtime=candidate.runtime, num_threads=threads)
    memory = estimate_memory(candidate.memory, candidate.kernels, candidate.runtime)
    energy = estimate_energy(found, profile)
    return ArtifactEstimate(
        artifact=candidate.artifact,
        format=FORMAT_OF[candidate.runtime],
        precision=candidate.precision,
        latency=found,
        memory=memory,
        energy=energy,
        size_mib=candidate.size_mib,
        overruns=tuple(_over(profile, candidate, found, memory, energy)),
        advice=tuple(advice(found, _alternatives(candidate, profile, threads))),
    )


def _alternatives(candidate: _Candidate, profile: DeviceProfile, threads: int) -> list[Alternative]:
    def time(kernels: Sequence[Kernel], count: int) -> float:
        return predict(kernels, profile, runtime=candidate.runtime, num_threads=count).latency_ms

    found = []
    if is_float32(candidate.kernels) and candidate.precision == "fp32":
        for name in FASTER:
            changed = in_precision(candidate.kernels, name, candidate.runtime)
            if changed != list(candidate.kernels):
                found.append(Alternative(name, time(changed, threads)))
    for count in _usual_threads(profile):
        if count > threads:
            found.append(Alternative(f"{count} threads", time(candidate.kernels, count)))
    return found


def _over(
    profile: DeviceProfile,
    candidate: _Candidate,
    found: Estimate,
    memory: MemoryEstimate,
    energy: EnergyEstimate | None,
) -> list[Overrun]:
    budgets = profile.budgets
    size = candidate.size_mib
    checks = (
        ("latency", found.latency_ms, budgets.latency_ms, "ms"),
        ("peak memory", memory.peak_mib, budgets.peak_memory_mib, "MiB"),
        ("energy", energy.dynamic_mj if energy else None, budgets.energy_mj, "mJ"),
        ("size", size, budgets.size_mib, "MiB"),
    )
    return [
        Overrun(what, value, budget, unit, profile.name)
        for what, value, budget, unit in checks
        if value is not None and budget is not None and value > budget
    ]
