"""What a device profile may say: frozen pydantic models with the unit of every figure in its name.

Every number needs a source (see :mod:`.checks`), so that nobody takes a guess for a datasheet.
Clusters stand in the order in which the Linux kernel numbers the CPUs (on phones: slowest first).
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from .calibration import Calibration
from .cores import core_rank

Kind = Literal["phone", "board", "host", "generic"]
Arch = Literal["arm64", "x86_64"]
Os = Literal["android", "linux", "macos", "windows"]
ArmIsa = Literal["neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2", "sme"]
X86Isa = Literal["avx2", "avx512", "vnni"]
Isa = Literal[ArmIsa, X86Isa]
AcceleratorKind = Literal["gpu", "npu", "dsp", "tpu"]
AcceleratorStatus = Literal["works", "unverified", "known_bad"]
Runtime = Literal["executorch", "litert", "tflite_runtime", "onnxruntime", "torch"]
Delegate = Literal["xnnpack", "vulkan", "qnn", "gpu", "npu", "nnapi", "cuda", "tensorrt", "coreml"]
RailMethod = Literal["odpm", "fuel_gauge", "ina3221", "pmic", "rapl", "external", "none"]

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
CoreName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Version = Annotated[str, Field(min_length=1, max_length=40)]
CacheKib = Annotated[int, Field(strict=True, ge=1, le=4 << 20)]  # KiB of a cache: up to 4 GiB
Mebibytes = Annotated[int, Field(strict=True, ge=1, le=16 << 20)]  # up to 16 TiB
Milliwatts = Annotated[float, Field(strict=True, gt=0, le=2_000_000, allow_inf_nan=False)]
Celsius = Annotated[float, Field(strict=True, gt=0, le=150, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class OperatingSystem(_Model):
    """What the device runs; ``api_level`` and ``min_sdk`` are Android's."""

    name: Os
    version: Version
    api_level: Annotated[int, Field(strict=True, ge=21, le=99)] | None = None
    min_sdk: Annotated[int, Field(strict=True, ge=21, le=99)] | None = None


class Cluster(_Model):
    """Cores of one kind that share a clock.

    ``isa`` is what an application may use, which can be less than the silicon has (some kernels hide
    SVE). ``l2_kib`` is per core unless ``l2_shared``: then one cache of that size serves the cluster.
    """

    core: CoreName
    count: Annotated[int, Field(strict=True, ge=1, le=1024)]
    max_mhz: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    isa: tuple[Isa, ...]
    l1d_kib: CacheKib | None = None
    l2_kib: CacheKib | None = None
    l2_shared: StrictBool = False


class Cpu(_Model):
    """The clusters and the caches behind them (``l3_kib`` chip-wide, ``slc_kib`` system level)."""

    clusters: Annotated[tuple[Cluster, ...], Field(min_length=1, max_length=64)]
    l3_kib: CacheKib | None = None
    slc_kib: CacheKib | None = None
    note: Text | None = None


class Memory(_Model):
    """``bandwidth_gb_s`` is theoretical (10^9 bytes/s) unless the source says otherwise.

    ``app_budget_mib`` is what one application may use without the system ending it.
    """

    ram_mib: Mebibytes
    bandwidth_gb_s: Annotated[float, Field(strict=True, gt=0, le=10_000, allow_inf_nan=False)] | None = None
    app_budget_mib: Mebibytes
    kind: Text | None = None


class Accelerator(_Model):
    """Something faster than the CPU. ``reach`` says how each runtime gets to it, in words."""

    name: Text
    kind: AcceleratorKind
    status: AcceleratorStatus
    note: Text
    reach: dict[Runtime, Text] = Field(default_factory=dict)


class RuntimeSupport(_Model):
    """One runtime on this device; ``min_version`` is the oldest that is promised to load our files."""

    delegates: tuple[Delegate, ...] = ()
    min_version: Version | None = None
    note: Text | None = None


class Runtimes(_Model):
    """The runtimes that exist for this device."""

    executorch: RuntimeSupport | None = None
    litert: RuntimeSupport | None = None
    tflite_runtime: RuntimeSupport | None = None
    onnxruntime: RuntimeSupport | None = None
    torch: RuntimeSupport | None = None


class Rail(_Model):
    """One power channel: what it covers and how it is read (``path``: file or command)."""

    name: Text
    covers: Text
    method: RailMethod
    path: Text | None = None
    note: Text | None = None


class Power(_Model):
    """``idle_mw`` of the whole device (screen off for phones); ``active_mw_per_core`` is what one busy
    core adds at its highest clock, one figure per cluster in the order of ``cpu.clusters``."""

    idle_mw: Milliwatts | None = None
    active_mw_per_core: tuple[Milliwatts, ...] | None = None
    rails: tuple[Rail, ...] = ()
    note: Text | None = None


class Thermal(_Model):
    """``throttle_c`` of the chip, ``skin_limit_c`` of the case where the system starts to slow down;
    start a measurement below ``cool_down_c`` (of the skin sensor where there is one, else the chip)."""

    throttle_c: Celsius | None = None
    skin_limit_c: Celsius | None = None
    cool_down_c: Celsius | None = None


class Budgets(_Model):
    """What a model should keep to; a file that exceeds it is warned of."""

    latency_ms: Annotated[float, Field(strict=True, gt=0, le=1e7, allow_inf_nan=False)] | None = None
    size_mib: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] | None = None
    peak_memory_mib: Annotated[float, Field(strict=True, gt=0, le=1e7, allow_inf_nan=False)] | None = None
    energy_mj: Annotated[float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False)] | None = None


class Adb(_Model):
    """A connected phone is this device when each property listed has one of the values listed."""

    match: dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]]


class Ssh(_Model):
    """A board is this device when its device tree's model contains ``device_tree_match``."""

    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.-]{0,31}$")]
    device_tree_match: Text | None = None


class Emulator(_Model):
    """``qemu_cpu`` is QEMU's ``-cpu``, with the big cluster's instructions and no more."""

    qemu_cpu: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._=,-]{0,99}$")]
    note: Text | None = None


class Reach(_Model):
    """How the device is reached; what is missing isn't possible or isn't known."""

    adb: Adb | None = None
    ssh: Ssh | None = None
    emulator: Emulator | None = None


class DeviceProfile(_Model):
    """A target as data. ``sources`` maps a dotted key or a prefix of one to where the figure is from."""

    schema_version: Literal[1] = 1
    name: Name
    title: Text
    vendor: Text
    soc: Text
    year: Annotated[int, Field(strict=True, ge=2005, le=2100)] | None = None
    kind: Kind
    arch: Arch
    aliases: tuple[Text, ...] = ()
    notes: Text | None = None
    os: OperatingSystem
    cpu: Cpu
    memory: Memory
    accelerators: tuple[Accelerator, ...] = ()
    runtimes: Runtimes
    power: Power = Power()
    thermal: Thermal = Thermal()
    budgets: Budgets = Budgets()
    reach: Reach = Reach()
    calibration: Calibration | None = None
    sources: dict[str, Annotated[str, Field(min_length=1, max_length=1000)]]

    @model_validator(mode="after")
    def _consistent(self) -> DeviceProfile:
        from .checks import find_problems

        problems = find_problems(self)
        if problems:
            text = "; ".join(f"{key}: {what}" for key, what in problems)
            raise PydanticCustomError("profile", "{text}", {"text": text, "problems": problems})
        return self

    @cached_property
    def big_cluster(self) -> Cluster:
        """The cluster whose single core is fastest: by core generation, then by clock."""
        return max(self.cpu.clusters, key=lambda cluster: (core_rank(cluster.core), cluster.max_mhz))

    @property
    def total_cores(self) -> int:
        """Cores of all clusters."""
        return sum(cluster.count for cluster in self.cpu.clusters)

    def has_isa(self, feature: str, *, cluster: Cluster | int | None = None) -> bool:
        """Whether ``cluster`` (an index, a cluster, or None for every cluster) has ``feature``.

        Raises:
            ValueError: ``feature`` isn't one of the known ISA features.
        """
        if feature not in ISA_FEATURES:
            raise ValueError(f"unknown ISA feature {feature!r}; known: {', '.join(ISA_FEATURES)}")
        if cluster is None:
            return all(feature in each.isa for each in self.cpu.clusters)
        chosen = self.cpu.clusters[cluster] if isinstance(cluster, int) else cluster
        return feature in chosen.isa

    def active_mw(self, cluster: Cluster | int) -> float | None:
        """mW that one busy core of ``cluster`` adds at its highest clock; None when not known."""
        if self.power.active_mw_per_core is None:
            return None
        index = cluster if isinstance(cluster, int) else self.cpu.clusters.index(cluster)
        return self.power.active_mw_per_core[index]

    def source_of(self, key: str) -> str | None:
        """The source of the figure at dotted ``key``: the longest entry that covers it."""
        from .checks import covering_source

        found = covering_source(key, self.sources)
        return self.sources[found] if found is not None else None

    def figures(self) -> dict[str, float]:
        """Every number of the profile by its dotted key (``cpu.clusters.0.max_mhz``), but for the calibration's,
        which says itself where it is from."""
        from .checks import numeric_leaves

        return dict(numeric_leaves(self.model_dump(exclude={"sources", "calibration"}, exclude_none=True)))

    def is_estimate(self, key: str) -> bool:
        """Whether the figure at ``key`` is an estimate rather than something published or read."""
        return (self.source_of(key) or "").lower().startswith("estimate")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without what the profile leaves open."""
        return self.model_dump(mode="json", exclude_none=True)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the profile as canonical JSON: the same content, the same fingerprint."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


ISA_FEATURES: tuple[str, ...] = (*get_args(ArmIsa), *get_args(X86Isa))
