"""What of a device the cost model uses: clusters with the peak of their vector units, caches, memory."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..device_profiles import Cluster, DeviceProfile
    from .corrections import Corrections

# Which instructions can compute a precision, narrowest first; a runtime takes the widest that is there.
PATHS = {"fp32": ("fp32",), "fp16": ("fp32", "fp16"), "int8": ("int8", "dot", "i8mm")}
PATHS["int4"] = PATHS["int8"]
PATH_NAMES = ("fp32", "fp16", "int8", "dot", "i8mm")
_NEEDS = {"fp16": "fp16", "dot": "dotprod", "i8mm": "i8mm"}
CORE_KINDS = {"x86": "x86", "loongson": "loongson", "riscv": "riscv", "sunway": "sunway"}
_ARM32 = ("cortex-a5", "cortex-a7", "cortex-a9", "cortex-a17")
# Typical memory of a device whose profile leaves it open, GB/s by what its fastest core streams (estimate).
_BANDWIDTH_OF_STREAM = 3.0


@dataclass(frozen=True)
class CoreCluster:
    """Equal cores on one clock.

    ``design`` is the core whose learned factors apply: a stand-in's where an x86 core isn't known. ``peaks`` is path (:data:`PATH_NAMES`) → multiply-accumulates a cycle of one core; ``stream_gb_s`` what
    one core reads from memory at most; ``l2_kib`` per core, or of the cluster when ``l2_shared``.
    """

    core: str
    design: str
    count: int
    mhz: float
    peaks: dict[str, float]
    in_order: bool
    l2_kib: float
    l2_shared: bool
    stream_gb_s: float

    @property
    def speed(self) -> float:
        """Float multiply-accumulates of one core, 10^6 a second."""
        return self.peaks["fp32"] * self.mhz


@dataclass(frozen=True)
class Machine:
    """A device as the cost model sees it; ``factors`` are what is known of this very device or chip
    beyond its data (component → natural logarithm of a factor on time), with the grade they earn;
    ``corrections`` what was measured of its kernels, on top of the factors."""

    name: str
    chip: str
    clusters: tuple[CoreCluster, ...]
    llc_kib: float
    bandwidth_gb_s: float
    factors: dict[str, float] = field(default_factory=dict)
    grade: str = "predicted"
    corrections: Corrections | None = None

    def with_llc(self, share: float) -> Machine:
        """The same with this much (natural logarithm of a share) of the cache behind the cores' own."""
        return replace(self, llc_kib=self.llc_kib * math.exp(share))

    @property
    def total_cores(self) -> int:
        """Cores of all clusters."""
        return sum(cluster.count for cluster in self.clusters)

    @property
    def fastest_first(self) -> tuple[CoreCluster, ...]:
        """Clusters by the speed of one core."""
        return tuple(sorted(self.clusters, key=lambda cluster: -cluster.speed))

    def chosen(self, threads: int) -> list[tuple[CoreCluster, int]]:
        """The clusters and how many cores of each ``threads`` threads take, fastest first.

        Raises:
            InputError: fewer cores than threads, or no thread at all.
        """
        if threads < 1:
            raise InputError(f"{threads} threads cannot be estimated; give 1 or more.")
        if threads > self.total_cores:
            raise InputError(
                f"{self.name} has {self.total_cores} cores; {threads} threads would only wait for each other: "
                f"give 1 to {self.total_cores}."
            )
        left, found = threads, []
        for cluster in self.fastest_first:
            take = min(left, cluster.count)
            if take:
                found.append((cluster, take))
            left -= take
        return found


@cache
def core_table() -> dict[str, dict[str, Any]]:
    """Core name → its figures (cores.toml)."""
    with Path(__file__).with_name("cores.toml").open("rb") as stream:
        table: dict[str, dict[str, Any]] = tomllib.load(stream)
    return {name: table[entry["like"]] if "like" in entry else entry for name, entry in table.items()}


@cache
def core_alias(core: str) -> str:
    """The core whose figures an entry of the table takes (itself when it has its own)."""
    with Path(__file__).with_name("cores.toml").open("rb") as stream:
        entry = tomllib.load(stream).get(core, {})
    return str(entry.get("like", core))


def core_kin(core: str) -> str:
    """The design whose factors stand in for those of a core's own design (itself when the table names none)."""
    return str(core_table().get(core, {}).get("kin", core_alias(core)))


def core_kind(core: str) -> str:
    """What cores of one instruction set have in common with each other (:data:`CORE_KINDS`)."""
    for prefix, kind in CORE_KINDS.items():
        if core.startswith(prefix):
            return kind
    return "arm32" if core_alias(core) in _ARM32 else "arm64"


def core_entry(
    core: str, *, isa: Iterable[str] = (), mhz: float = 0, arch: str = "arm64"
) -> tuple[str, bool]:
    """(the entry of the core table for a core, whether it is a stand-in for one the table doesn't know)."""
    if core in core_table() and not core.startswith("generic"):
        return core, False
    if arch == "x86_64":
        have = set(isa)
        return ("x86-avx512" if "avx512" in have else "x86-avx2" if "avx2" in have else "x86-sse2"), True
    if "i8mm" in set(isa):
        return "cortex-a710", True
    return ("cortex-a76" if mhz >= 2000 or core == "generic-big" else "cortex-a55"), True


def cluster_of(
    core: str,
    count: int,
    mhz: float,
    isa: Iterable[str],
    *,
    arch: str = "arm64",
    l2_kib: float | None = None,
    l2_shared: bool = False,
) -> CoreCluster:
    """A cluster from what is known of it; the core table fills the rest."""
    have = set(isa)
    known_as = core_entry(core, isa=have, mhz=mhz, arch=arch)[0]
    entry = core_table()[known_as]
    peaks = {"fp32": float(entry["fp32"]), "int8": float(entry["int8"])}
    if arch == "x86_64":
        if "vnni" in have and "dot" in entry:
            peaks["dot"] = float(entry["dot"])
    else:
        # A core whose entry lacks a path that its isa names computes it at twice the narrower one's rate.
        for path, feature in _NEEDS.items():
            if feature in have:
                narrower = {"fp16": "fp32", "dot": "int8", "i8mm": "dot"}[path]
                least = peaks.get(narrower, 0.0)
                peaks[path] = max(least, float(entry.get(path, 2.0 * least)))
    return CoreCluster(
        core=core,
        # Unknown Arm cores take what all Arm cores have in common: a name like theirs isn't one of them.
        design=known_as if arch == "x86_64" else core,
        count=count,
        mhz=float(mhz),
        peaks=peaks,
        in_order=bool(entry["in_order"]),
        l2_kib=float(l2_kib if l2_kib is not None else entry["l2_kib"]),
        l2_shared=l2_shared,
        stream_gb_s=float(entry["bandwidth"]),
    )


def machine_of(profile: DeviceProfile | Machine) -> Machine:
    """The :class:`Machine` of a profile.

    Raises:
        InputError: the profile says something no machine can be (a memory slower than a hundredth of what
            one core can stream, for instance).
    """
    if isinstance(profile, Machine):
        return profile
    clusters = tuple(_profile_cluster(profile, cluster) for cluster in profile.cpu.clusters)
    stream = max(cluster.stream_gb_s for cluster in clusters)
    bandwidth = profile.memory.bandwidth_gb_s
    if bandwidth is not None and bandwidth < 0.01 * stream:
        raise InputError(
            f"profile {profile.name}: memory.bandwidth_gb_s is {bandwidth:g}, less than a hundredth of what one "
            "of its cores alone would read: it is 10^9 bytes a second, so check its unit."
        )
    machine = Machine(
        name=profile.name,
        chip=profile.soc,
        clusters=clusters,
        llc_kib=float((profile.cpu.l3_kib or 0) + (profile.cpu.slc_kib or 0)),
        bandwidth_gb_s=float(bandwidth if bandwidth is not None else _BANDWIDTH_OF_STREAM * stream),
    )
    if profile.calibration is not None and stale_calibration(profile) is None:
        from .corrections import Corrections

        factors = dict(profile.calibration.factors)
        machine = replace(
            machine.with_llc(factors.get("llc", 0.0)),
            factors=factors,
            grade="calibrated",
            corrections=Corrections.of(profile.calibration),
        )
    return machine


def _profile_cluster(profile: DeviceProfile, cluster: Cluster) -> CoreCluster:
    return cluster_of(
        cluster.core,
        cluster.count,
        cluster.max_mhz,
        cluster.isa,
        arch=profile.arch,
        l2_kib=cluster.l2_kib,
        l2_shared=cluster.l2_shared,
    )


def stale_calibration(profile: DeviceProfile) -> str | None:
    """Why the calibration of ``profile`` isn't used, in words; None where it is, or where there is none."""
    from .constants import load_constants

    if profile.calibration is None or profile.calibration.constants == load_constants().fingerprint:
        return None
    return (
        f"the calibration of profile {profile.name} ({profile.calibration.date[:10]}) isn't used: it corrects another "
        "version of the cost model than this edgeopt has. Calibrate again (edgeopt profiles calibrate)."
    )


def unknown_cores(profile: DeviceProfile) -> list[tuple[str, str]]:
    """(core, stand-in) of each core of the profile that the core table doesn't know."""
    found = []
    for cluster in profile.cpu.clusters:
        entry, guessed = core_entry(cluster.core, isa=cluster.isa, mhz=cluster.max_mhz, arch=profile.arch)
        if guessed:
            found.append((cluster.core, entry))
    return found


def unknown_core_notes(profile: DeviceProfile) -> list[str]:
    """A sentence about each core of the profile for which another core's figures are taken."""
    return [
        f"{core} isn't known to the cost model: {stand_in}'s figures stand in for it, so the estimate is rough"
        for core, stand_in in dict.fromkeys(unknown_cores(profile))
    ]
