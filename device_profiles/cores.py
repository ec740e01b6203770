"""Names and standing of CPU cores: plain data."""

from __future__ import annotations

from collections.abc import Mapping

# Single-core standing of Arm's cores, for choosing the big cluster; unknown cores rank by clock alone.
_CORE_ORDER = (
    ("cortex-a35", "cortex-a53", "cortex-a55", "cortex-a510", "cortex-a520"),
    ("cortex-a57", "cortex-a72", "cortex-a73", "cortex-a75"),
    ("cortex-a76", "cortex-a77", "cortex-a78", "cortex-a78ae", "neoverse-n1"),
    ("cortex-a710", "cortex-a715", "cortex-a720", "cortex-a725", "neoverse-n2"),
    ("cortex-x1", "cortex-x2", "cortex-x3", "cortex-x4", "cortex-x925", "neoverse-v1", "neoverse-v2"),
)

# (family, models) of x86 processors → core, as the Linux kernel tells generations apart (arch/x86/kernel/cpu/amd.c,
# arch/x86/include/asm/intel-family.h). Of Zen 5 only those whose vector units are 512 bits wide: servers and desktops,
# not the mobile ones with halves. Of Golden Cove and its successor Redwood Cove only servers, which have AVX-512:
# Sapphire, Emerald and Granite Rapids.
_X86_CORES = {
    "AuthenticAMD": (
        (0x17, range(0x00, 0x30), "x86-zen1"),
        (0x17, range(0x50, 0x60), "x86-zen1"),
        (0x17, range(0x30, 0xB0), "x86-zen2"),
        (0x19, range(0x00, 0x10), "x86-zen3"),
        (0x19, range(0x10, 0x20), "x86-zen4"),
        (0x19, range(0x20, 0x60), "x86-zen3"),
        (0x19, range(0x60, 0xB0), "x86-zen4"),
        (0x1A, range(0x00, 0x20), "x86-zen5"),
        (0x1A, range(0x40, 0x50), "x86-zen5"),
    ),
    "GenuineIntel": (
        (0x06, range(0x8F, 0x90), "x86-golden-cove"),
        (0x06, range(0xCF, 0xD0), "x86-golden-cove"),
        (0x06, range(0xAD, 0xAF), "x86-golden-cove"),
    ),
}

# "CPU part" of /proc/cpuinfo for implementer 0x41 (MIDR_EL1 part numbers, Arm technical reference manuals).
ARM_PARTS = {
    0xD03: "cortex-a53",
    0xD04: "cortex-a35",
    0xD05: "cortex-a55",
    0xD07: "cortex-a57",
    0xD08: "cortex-a72",
    0xD09: "cortex-a73",
    0xD0A: "cortex-a75",
    0xD0B: "cortex-a76",
    0xD0C: "neoverse-n1",
    0xD0D: "cortex-a77",
    0xD40: "neoverse-v1",
    0xD41: "cortex-a78",
    0xD42: "cortex-a78ae",
    0xD44: "cortex-x1",
    0xD46: "cortex-a510",
    0xD47: "cortex-a710",
    0xD48: "cortex-x2",
    0xD49: "neoverse-n2",
    0xD4D: "cortex-a715",
    0xD4E: "cortex-x3",
    0xD4F: "neoverse-v2",
    0xD80: "cortex-a520",
    0xD81: "cortex-a720",
    0xD82: "cortex-x4",
    0xD85: "cortex-x925",
    0xD87: "cortex-a725",
}


def core_rank(core: str) -> int:
    """Position of ``core`` in Arm's order of single-core speed; -1 when it isn't listed."""
    for tier, cores in enumerate(_CORE_ORDER):
        if core in cores:
            return tier
    return -1


def x86_core(processor: Mapping[str, str]) -> str | None:
    """The core of an x86 processor from its lines of /proc/cpuinfo; None for one that isn't known here."""
    try:
        family, model = int(processor.get("cpu family", "")), int(processor.get("model", ""))
    except ValueError:
        return None
    known = _X86_CORES.get(processor.get("vendor_id", ""), ())
    return next((core for of, models, core in known if family == of and model in models), None)
