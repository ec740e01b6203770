"""What must hold between the fields of a profile: plausible values and a source for every figure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .schema import Cluster, DeviceProfile

Problem = tuple[str, str]  # dotted key, what is wrong and what is allowed

# Architecture rules (Arm ARM: FEAT_I8MM and FEAT_BF16 stand on Armv8.2 with FEAT_DotProd in every core
# that has shipped, FEAT_SVE2 requires FEAT_SVE; SVE requires FP16).
IMPLIES = (
    ("fp16", "neon"),
    ("dotprod", "neon"),
    ("i8mm", "dotprod"),
    ("bf16", "dotprod"),
    ("sve", "fp16"),
    ("sve2", "sve"),
    ("sme", "bf16"),
    ("avx512", "avx2"),
    ("vnni", "avx2"),
)
_ARM = {"neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2", "sme"}
_X86 = {"avx2", "avx512", "vnni"}
# Known cores and features they can't have (Arm technical reference manuals).
IMPOSSIBLE = {
    "cortex-a53": {"fp16", "dotprod", "i8mm", "bf16", "sve"},
    "cortex-a57": {"fp16", "dotprod", "i8mm", "bf16", "sve"},
    "cortex-a72": {"fp16", "dotprod", "i8mm", "bf16", "sve"},
    "cortex-a73": {"fp16", "dotprod", "i8mm", "bf16", "sve"},
    "cortex-a55": {"i8mm", "bf16", "sve"},
    "cortex-a75": {"i8mm", "bf16", "sve"},
    "cortex-a76": {"i8mm", "bf16", "sve"},
    "cortex-a77": {"i8mm", "bf16", "sve"},
    "cortex-a78": {"i8mm", "bf16", "sve"},
    "cortex-a78ae": {"i8mm", "bf16", "sve"},
    "cortex-x1": {"i8mm", "bf16", "sve"},
}
_NOT_FIGURES = {"schema_version"}
_URL = re.compile(r"://|\bwww\.", re.IGNORECASE)


def find_problems(profile: DeviceProfile) -> list[Problem]:
    """Every broken rule of ``profile``, in the order of the file; empty when it is sound."""
    problems: list[Problem] = []
    for index, cluster in enumerate(profile.cpu.clusters):
        problems += _cluster_problems(f"cpu.clusters.{index}", cluster, profile.arch)
    problems += _memory_problems(profile)
    problems += _power_problems(profile)
    problems += _os_problems(profile)
    problems += _emulator_problems(profile)
    problems += _source_problems(profile)
    return problems


def _cluster_problems(key: str, cluster: Cluster, arch: str) -> Iterator[Problem]:
    have: set[str] = set(cluster.isa)
    foreign = have & (_X86 if arch == "arm64" else _ARM)
    if foreign:
        allowed = ", ".join(sorted(_ARM if arch == "arm64" else _X86))
        yield f"{key}.isa", f"has {_names(foreign)}, but arch is {arch}; allowed there: {allowed}"
    impossible = have & IMPOSSIBLE.get(cluster.core, set())
    if impossible:
        yield f"{key}.isa", f"has {_names(impossible)}, which a {cluster.core} doesn't have; remove it"
    for feature, needed in IMPLIES:
        if feature in have - impossible - foreign and needed not in have:
            yield f"{key}.isa", f"has {feature} without {needed}, which every core with {feature} has; add it"
    if len(cluster.isa) != len(have):
        yield f"{key}.isa", "names a feature twice; each may stand once"
    if cluster.max_mhz < 100:
        yield f"{key}.max_mhz", f"is {cluster.max_mhz}; allowed: 100 to 10000 (MHz, so 2.85 GHz is 2850)"
    if cluster.l1d_kib and cluster.l2_kib and cluster.l2_kib < cluster.l1d_kib:
        yield (
            f"{key}.l2_kib",
            f"is {cluster.l2_kib}; allowed: at least l1d_kib ({cluster.l1d_kib}), both in KiB",
        )


def _memory_problems(profile: DeviceProfile) -> Iterator[Problem]:
    memory = profile.memory
    if memory.app_budget_mib > memory.ram_mib:
        limit = f"1 to {memory.ram_mib} (memory.ram_mib)"
        yield "memory.app_budget_mib", f"is {memory.app_budget_mib}; allowed: {limit}"
    if memory.ram_mib < 32:
        yield "memory.ram_mib", f"is {memory.ram_mib}; allowed: 32 or more (MiB, so 8 GB is 8192)"


def _power_problems(profile: DeviceProfile) -> Iterator[Problem]:
    active = profile.power.active_mw_per_core
    clusters = len(profile.cpu.clusters)
    idle = profile.power.idle_mw
    for key, figure in [
        ("idle_mw", idle),
        *((f"active_mw_per_core.{i}", each) for i, each in enumerate(active or ())),
    ]:
        if figure is not None and figure < 10:
            yield f"power.{key}", f"is {figure:g}; allowed: 10 or more (mW, so 3.3 W is 3300)"
    if active is not None and len(active) != clusters:
        found = f"has {len(active)} figures for {clusters} cluster{'s' if clusters != 1 else ''}"
        yield "power.active_mw_per_core", f"{found}; allowed: one a cluster, in the order of cpu.clusters"
    thermal = profile.thermal
    name = "skin_limit_c" if thermal.skin_limit_c is not None else "throttle_c"
    limit = getattr(thermal, name)
    if limit is not None and thermal.cool_down_c is not None and thermal.cool_down_c >= limit:
        allowed = f"less than thermal.{name} ({limit:g})"
        yield "thermal.cool_down_c", f"is {thermal.cool_down_c:g}; allowed: {allowed}"


def _os_problems(profile: DeviceProfile) -> Iterator[Problem]:
    system = profile.os
    if system.name == "android" and system.api_level is None:
        yield "os.api_level", "is missing; an Android device needs its API level (Android 13 is 33)"
    if system.name != "android":
        for name in ("api_level", "min_sdk"):
            found = getattr(system, name)
            if found is not None:
                yield f"os.{name}", f"is {found}, but os.name is {system.name}; only android has it"
    if system.min_sdk is not None and system.api_level is not None and system.min_sdk > system.api_level:
        yield "os.min_sdk", f"is {system.min_sdk}; allowed: at most os.api_level ({system.api_level})"


def _emulator_problems(profile: DeviceProfile) -> Iterator[Problem]:
    emulator = profile.reach.emulator
    if emulator is None:
        return
    parts = emulator.qemu_cpu.split(",")
    if profile.arch != "arm64":
        yield "reach.emulator", f"is set, but arch is {profile.arch}; only arm64 devices are emulated"
    if parts[0] == "max" and "sme=off" not in parts[1:]:
        found = repr(emulator.qemu_cpu)
        yield "reach.emulator.qemu_cpu", f"is {found}; max needs sme=off (QEMU 7.2 gets SME wrong)"


def _source_problems(profile: DeviceProfile) -> Iterator[Problem]:
    figures = profile.figures()
    form = 'a citation, or "estimate: <what it rests on>"'
    for key, citation in profile.sources.items():
        if _URL.search(citation):
            yield f"sources.{key}", "holds an address; allowed: the name of the document and its author"
        elif len(citation.strip()) < 4 or citation.strip().lower().rstrip(":. ") == "estimate":
            yield f"sources.{key}", f"is {citation!r}; allowed: {form}"
        if not any(_covers(key, figure) for figure in figures):
            yield f"sources.{key}", "covers no figure; allowed: a figure's dotted key or a prefix of one"
    for key, figure in figures.items():
        if covering_source(key, profile.sources) is None:
            yield key, f'is {figure:g} and has no source; add "{key}" to [sources]: {form}'


def numeric_leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """(dotted key, figure) of every number under ``value``; list items are addressed by their index."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        if prefix not in _NOT_FIGURES:
            yield prefix, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from numeric_leaves(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from numeric_leaves(item, f"{prefix}.{index}")


def covering_source(key: str, sources: Mapping[str, str]) -> str | None:
    """The longest key of ``sources`` that is ``key`` or a dotted prefix of it."""
    candidates = [entry for entry in sources if _covers(entry, key)]
    return max(candidates, key=len, default=None)


def _covers(entry: str, key: str) -> bool:
    return key == entry or key.startswith(f"{entry}.")


def _names(features: set[str]) -> str:
    return " and ".join(sorted(features))
