"""What this machine is, for the ``host`` profile: read from /proc and /sys, or from sysctl on macOS.

Only what could be read is returned; host.toml's defaults stand for the rest.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .checks import IMPLIES, IMPOSSIBLE
from .cores import ARM_PARTS, x86_core

READ = "read from this machine"
_ARM_FLAGS = {
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}
_ISA_ORDER = ("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2", "sme", "avx2", "avx512", "vnni")
_CPU = "sys/devices/system/cpu"


Clock = Callable[[str, float], int | None]


def describe_machine(
    root: Path = Path("/"),
    *,
    system: str | None = None,
    machine: str | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """An overlay for host.toml (same keys, with ``sources``) of what this machine says of itself.

    Args:
        root: where ``proc`` and ``sys`` stand (another folder in tests).
        system: ``platform.system()`` unless given.
        machine: ``platform.machine()`` unless given.
        clock: measures the clock of an x86 Linux machine that hides it, from the processor's name and what is shown
            (:func:`clock.kept_mhz`); without it the clock of the moment is taken.
    """
    system = system or platform.system()
    machine = (machine or platform.machine()).lower()
    arch = "arm64" if machine in ("arm64", "aarch64") else "x86_64"
    overlay: dict[str, Any] = {"arch": arch, "sources": {}}
    names = {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}
    if system in names:
        overlay["os"] = {"name": names[system], "version": platform.release() or "unknown"}
    if system == "Linux":
        _read_linux(root, arch, overlay, clock if arch == "x86_64" else None)
    elif system == "Darwin":
        _read_macos(arch, overlay)
    return overlay


def _read_linux(root: Path, arch: str, overlay: dict[str, Any], clock: Clock | None) -> None:
    processors = _processors(_text(root / "proc/cpuinfo"))
    model = _model_name(root, processors)
    if model:
        overlay["soc"] = model
        overlay["title"] = f"This machine ({model})"
    clusters = _clusters(root, arch, processors)
    if clusters:
        overlay["cpu"] = {"clusters": clusters}
        overlay["sources"]["cpu.clusters"] = f"{READ} (/proc/cpuinfo, /sys/devices/system/cpu)"
        for index, cluster in enumerate(clusters):
            guess = cluster.pop("clock_guess")
            if not guess:
                continue
            source = f"estimate: {guess}"
            measured = clock(model, cluster["max_mhz"]) if clock and len(clusters) == 1 else None
            if measured:
                cluster["max_mhz"] = measured
                source = "measured by a loop of one instruction a cycle; this machine hides its clock"
            overlay["sources"][f"cpu.clusters.{index}.max_mhz"] = source
        l3_kib = _cache_kib(root, 0, level=3)
        if l3_kib:
            overlay["cpu"]["l3_kib"] = l3_kib
            overlay["sources"]["cpu.l3_kib"] = f"{READ} (/sys/devices/system/cpu/cpu0/cache)"
    ram_mib = _ram_mib(root)
    if ram_mib:
        _set_memory(overlay, ram_mib, f"{READ} (/proc/meminfo, or the cgroup's limit when lower)")
    if (root / "sys/class/powercap/intel-rapl:0/energy_uj").exists():
        path = "/sys/class/powercap/intel-rapl:0/energy_uj"
        rail = {"name": "package-0", "covers": "CPU package", "method": "rapl", "path": path}
        overlay["power"] = {"rails": [rail]}


def _set_memory(overlay: dict[str, Any], ram_mib: int, source: str) -> None:
    overlay["memory"] = {"ram_mib": ram_mib, "app_budget_mib": max(1, ram_mib * 3 // 4)}
    overlay["sources"]["memory.ram_mib"] = source
    overlay["sources"]["memory.app_budget_mib"] = "estimate: three quarters of this machine's RAM"


def _processors(cpuinfo: str) -> list[dict[str, str]]:
    """One dict a logical CPU, in the kernel's order; empty when ``cpuinfo`` isn't understood."""
    processors: list[dict[str, str]] = []
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if colon and key == "processor" and value.isdigit():
            processors.append({})
        if colon and processors:
            processors[-1][key] = value
    return processors


def _model_name(root: Path, processors: list[dict[str, str]]) -> str:
    device_tree = _text(root / "proc/device-tree/model").strip("\0 \n")
    name = device_tree or (processors[0].get("model name", "") if processors else "")
    return re.sub(r"\s+", " ", name)[:120]


def _clusters(root: Path, arch: str, processors: list[dict[str, str]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, int | None], list[int]] = {}
    for index, processor in enumerate(processors):
        # On x86 each core may have a boost clock of its own: the kind of core makes the cluster there.
        khz = _max_khz(root, index) if arch == "arm64" else None
        groups.setdefault((_core_name(root, arch, index, processor), khz), []).append(index)
    return [_cluster(root, arch, core, members, processors) for (core, _), members in groups.items()]


def _cluster(
    root: Path, arch: str, core: str, members: list[int], processors: list[dict[str, str]]
) -> dict[str, Any]:
    first = members[0]
    khz = max((_max_khz(root, index) or 0 for index in members), default=0)
    shown = max((_number(processors[index].get("cpu MHz", "")) for index in members), default=0.0)
    isa = _isa(arch, processors[first])
    if set(isa) & IMPOSSIBLE.get(core, set()):
        # An emulator or hypervisor that shows one core's name with another's instructions.
        core = _slug(f"{core}-like", core)
    # A shown clock moves with the load: to the next 100 MHz, so that the profile's fingerprint stays.
    mhz = round(khz / 1000) if khz else round(shown, -2)
    cluster: dict[str, Any] = {
        "core": core,
        "count": min(_physical_cores(members, processors), 1024),
        "max_mhz": int(mhz) if 100 <= mhz <= 10_000 else 1000,
        "isa": isa,
        "l2_shared": _shared_by_cores(root, first, processors),
        "clock_guess": _clock_guess(khz, shown),
    }
    l1d_kib, l2_kib = (_cache_kib(root, first, level=level) for level in (1, 2))
    if l1d_kib:
        cluster["l1d_kib"] = l1d_kib
    if l2_kib and l2_kib >= (l1d_kib or 0):
        cluster["l2_kib"] = l2_kib
    return cluster


def _clock_guess(khz: int, shown: float) -> str | None:
    """What the cluster's clock rests on when the machine doesn't tell its highest one."""
    if khz:
        return None
    if shown:
        return "the clock of the moment; this machine hides its maximum"
    return "a placeholder; this machine tells no clock"


def _core_name(root: Path, arch: str, index: int, processor: dict[str, str]) -> str:
    if arch == "arm64":
        part = processor.get("CPU part", "")
        implementer = processor.get("CPU implementer", "")
        if implementer.lower() == "0x41" and re.fullmatch(r"0x[0-9a-fA-F]{1,4}", part):
            return ARM_PARTS.get(int(part, 16), _slug(f"arm-{part}", "arm"))
        return _slug(f"arm-{implementer or 'unknown'}-{part or 'unknown'}", "arm")
    if index in _cpu_list(_text(root / "sys/devices/cpu_atom/cpus")):
        return "x86-efficiency"
    if known := x86_core(processor):
        return known
    name = processor.get("model name", "").split("@")[0]
    return _slug(re.sub(r"\((r|tm)\)|\bcpu\b|processor", " ", name.lower()), "x86")


def _slug(text: str, fallback: str) -> str:
    """``text`` as a core's name: lower-case ASCII words joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:60].strip("-") or fallback


def _isa(arch: str, processor: dict[str, str]) -> list[str]:
    if arch == "arm64":
        flags = set(processor.get("Features", "").split())
        have = {ours for flag, ours in _ARM_FLAGS.items() if flag in flags}
        for feature, needed in IMPLIES:
            # A kernel that hides what a feature stands on has in effect hidden the feature.
            if needed not in have:
                have.discard(feature)
    else:
        flags = set(processor.get("flags", "").split())
        have = {"avx2"} & flags
        if {"avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq"} <= flags:
            have.add("avx512")
        if "avx2" in flags and flags & {"avx512_vnni", "avx_vnni"}:
            have.add("vnni")
    return [feature for feature in _ISA_ORDER if feature in have]


def _physical_cores(members: list[int], processors: list[dict[str, str]]) -> int:
    """Cores, not hardware threads, where /proc/cpuinfo tells them apart."""
    ids = {
        (processors[index].get("physical id", "0"), processors[index].get("core id", f"cpu{index}"))
        for index in members
    }
    return len(ids)


def _max_khz(root: Path, index: int) -> int | None:
    text = _text(root / f"{_CPU}/cpu{index}/cpufreq/cpuinfo_max_freq").strip()
    return int(text) if text.isdigit() and 100_000 <= int(text) <= 10_000_000 else None


def _cache_folders(root: Path, index: int, level: int) -> Iterable[Path]:
    for folder in sorted((root / f"{_CPU}/cpu{index}/cache").glob("index*")):
        kind = _text(folder / "type").strip()
        if _text(folder / "level").strip() == str(level) and kind in ("Data", "Unified"):
            yield folder


def _cache_kib(root: Path, index: int, *, level: int) -> int | None:
    for folder in _cache_folders(root, index, level):
        match = re.fullmatch(r"(\d+)([KM]?)", _text(folder / "size").strip())
        if match and int(match[1]):
            return int(match[1]) * (1024 if match[2] == "M" else 1)
    return None


def _shared_by_cores(root: Path, index: int, processors: list[dict[str, str]]) -> bool:
    for folder in _cache_folders(root, index, 2):
        sharing = [cpu for cpu in _cpu_list(_text(folder / "shared_cpu_list")) if cpu < len(processors)]
        return _physical_cores(sharing, processors) > 1
    return False


def _cpu_list(text: str) -> list[int]:
    """``0-3,6`` as numbers; empty when it isn't such a list."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if match:
            cpus += range(int(match[1]), int(match[2] or match[1]) + 1)
    return cpus


def _ram_mib(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if match is None:
        return None
    limit = _text(root / "sys/fs/cgroup/memory.max").strip()
    total = int(match[1]) // 1024
    return min(total, int(limit) >> 20) if limit.isdigit() and int(limit) >= 64 << 20 else total


def _read_macos(arch: str, overlay: dict[str, Any]) -> None:
    model = _sysctl("machdep.cpu.brand_string")
    if model:
        overlay["soc"] = model
        overlay["title"] = f"This machine ({model})"
    ram = _sysctl("hw.memsize")
    if ram.isdigit():
        _set_memory(overlay, int(ram) >> 20, f"{READ} (sysctl hw.memsize)")
    cores = _sysctl("hw.physicalcpu")
    if not cores.isdigit():
        return
    isa = ["neon"] if arch == "arm64" else []
    if arch == "arm64":
        flags = {"fp16": "FEAT_FP16", "dotprod": "FEAT_DotProd", "i8mm": "FEAT_I8MM", "bf16": "FEAT_BF16"}
        isa += [feature for feature, flag in flags.items() if _sysctl(f"hw.optional.arm.{flag}") == "1"]
    elif _sysctl("hw.optional.avx2_0") == "1":
        isa.append("avx2")
    hz = _sysctl("hw.cpufrequency_max")
    core = _slug(model, "mac")
    mhz = int(hz) // 1_000_000 if hz.isdigit() else 3000
    overlay["cpu"] = {"clusters": [{"core": core, "count": int(cores), "max_mhz": mhz, "isa": isa}]}
    overlay["sources"]["cpu.clusters"] = f"{READ} (sysctl)"
    if not hz.isdigit():
        overlay["sources"]["cpu.clusters.0.max_mhz"] = "estimate: macOS doesn't tell the clock of this chip"


def _sysctl(name: str) -> str:
    import subprocess

    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _text(path: Path) -> str:
    """The file's text, or nothing: /proc and /sys differ from machine to machine."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 < number < 1e6 else 0.0
