"""The CPU that QEMU shows to the guest: instruction set, identity and caches of one cluster of a profile.

Kernel libraries choose their code by two things: what the kernel announces (``getauxval``, which QEMU's
``-cpu`` decides) and which core they believe to run on (``/proc/cpuinfo``, which we write). Both follow
the profile here. Only one cluster is shown, because a benchmark is pinned to one cluster on a device too,
and because a guest's ``getcpu`` answers with the host's CPU number, so that a mixed set would make the
choice of kernels depend on where the host happened to schedule the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...device_profiles.cores import ARM_PARTS
from ...errors import InputError

if TYPE_CHECKING:
    from ...device_profiles import DeviceProfile

_PART_OF = {core: part for part, core in ARM_PARTS.items()}
# Features whose presence or absence decides which kernels run; the ones read back and checked.
CHECKED_FEATURES = ("fp16", "dotprod", "i8mm", "bf16", "sve", "sve2", "sme")
# Where a profile leaves a cache open: the cores' usual sizes (Arm technical reference manuals).
_DEFAULT_L1D_KIB = 32
_DEFAULT_L2_KIB = 256
_V8_2_FEATURES = "atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop"
_KERNEL_NAME = {"dotprod": "asimddp", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve", "sve2": "sve2"}
# QEMU 7.2's SME is wrong, so "max" never goes without sme=off.
_QEMU_CPUS = frozenset({"cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1"})


@dataclass(frozen=True)
class Cpu:
    """One cluster as the guest sees it. Sizes in KiB, clock in MHz."""

    core: str
    count: int
    max_mhz: int
    isa: tuple[str, ...]
    l1d_kib: int
    l2_kib: int
    l3_kib: int | None
    qemu_cpu: str
    l2_shared: bool = False

    @property
    def checked_isa(self) -> frozenset[str]:
        """The part of ``isa`` that decides which kernels run."""
        return frozenset(self.isa) & frozenset(CHECKED_FEATURES)

    def unexpected_features(self, seen: Iterable[str]) -> list[str]:
        """Words about each difference between what the guest saw and the profile; empty = as it must be.

        bf16 is left out: QEMU cannot switch it off beside i8mm, and no kernel of either runtime uses it.
        """
        seen_set = frozenset(seen) - {"bf16"}
        wanted = self.checked_isa - {"bf16"}
        checked = frozenset(CHECKED_FEATURES)
        return [f"{name} is missing" for name in sorted(wanted - seen_set)] + [
            f"{name} is there and must not be" for name in sorted((seen_set & checked) - wanted)
        ]


def cpu_of(profile: DeviceProfile, cluster: int | None = None) -> Cpu:
    """The CPU of a profile's ``cluster`` (index; None = the big one).

    Raises:
        InputError: the profile is not arm64, or has no such cluster.
    """
    if profile.arch != "arm64":
        raise InputError(
            f"profile {profile.name} is {profile.arch}; the emulator runs arm64 ones (edgeopt profiles list)"
        )
    clusters = profile.cpu.clusters
    if cluster is not None and not 0 <= cluster < len(clusters):
        raise InputError(f"profile {profile.name} has clusters 0 to {len(clusters) - 1}, not {cluster}")
    chosen = profile.big_cluster if cluster is None else clusters[cluster]
    reach = profile.reach.emulator
    named = reach.qemu_cpu if reach is not None and chosen == profile.big_cluster else None
    return Cpu(
        core=chosen.core,
        count=chosen.count,
        max_mhz=chosen.max_mhz,
        isa=tuple(chosen.isa),
        l1d_kib=chosen.l1d_kib or _DEFAULT_L1D_KIB,
        l2_kib=chosen.l2_kib or _DEFAULT_L2_KIB,
        l3_kib=profile.cpu.l3_kib,
        qemu_cpu=safe_qemu_cpu(named) if named else qemu_cpu_for(chosen.core, chosen.isa),
        l2_shared=chosen.l2_shared,
    )


def qemu_cpu_for(core: str, isa: Iterable[str]) -> str:
    """The ``-cpu`` of QEMU 7.2 with the instructions of ``isa`` and no more."""
    features = frozenset(isa)
    if core in _QEMU_CPUS and not features & {"i8mm", "sve"}:
        return core
    if features & {"i8mm", "sve", "sve2"}:
        # Phone cores with SVE have 128-bit vectors; sve128=on alone leaves the longer ones off.
        return "max,sme=off,sve128=on" if "sve" in features else "max,sme=off,sve=off"
    if features & {"dotprod", "fp16"}:
        return "cortex-a76"
    return "cortex-a72" if core in {"cortex-a72", "cortex-a73", "cortex-a75"} else "cortex-a53"


def safe_qemu_cpu(text: str) -> str:
    """``text`` with ``sme=off`` added to ``max``: QEMU 7.2 computes SME wrongly."""
    words = text.split(",")
    if words[0] == "max" and "sme=off" not in words:
        words.insert(1, "sme=off")
    return ",".join(words)


def write_identity(cpu: Cpu, root: Path) -> None:
    """Write ``proc/cpuinfo`` and ``sys/devices/system/cpu`` of the cluster below ``root``.

    QEMU opens them there before the host's. Without them the guest would read an x86 ``/proc/cpuinfo``,
    and without ``possible`` and ``present`` XNNPACK does not initialise.
    """
    part = _PART_OF.get(cpu.core)
    if part is None:
        raise InputError(
            f"core {cpu.core} has no known MIDR part number, so the kernels could not tell it; "
            f"known cores: {', '.join(sorted(_PART_OF))}"
        )
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
    if "fp16" in cpu.isa or "dotprod" in cpu.isa:
        features = " ".join([features, _V8_2_FEATURES])
    extra = [_KERNEL_NAME[name] for name in cpu.isa if name in _KERNEL_NAME]
    features = " ".join([features, *extra])
    blocks = [
        f"processor\t: {index}\nBogoMIPS\t: 38.40\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0x{part:03x}\nCPU revision\t: 0\n"
        for index in range(cpu.count)
    ]
    _write(root / "proc" / "cpuinfo", "\n".join(blocks))
    system = root / "sys" / "devices" / "system" / "cpu"
    every = f"0-{cpu.count - 1}\n" if cpu.count > 1 else "0\n"
    for name in ("possible", "present", "online"):
        _write(system / name, every)
    for index in range(cpu.count):
        _write(system / f"cpu{index}" / "cpufreq" / "cpuinfo_max_freq", f"{cpu.max_mhz * 1000}\n")
        _write(system / f"cpu{index}" / "cpufreq" / "cpuinfo_min_freq", f"{cpu.max_mhz * 1000}\n")
        _write(system / f"cpu{index}" / "topology" / "physical_package_id", "0\n")
        _write(system / f"cpu{index}" / "topology" / "core_siblings_list", every)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
