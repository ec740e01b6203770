"""What a device is: one shell script whose output, cut into sections, becomes :class:`DeviceFacts`.

The script uses shell built-ins and the few tools that Android's toybox, busybox and coreutils share. What a
device doesn't tell is None, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

MARK = "@@edgeopt "
# ``read`` instead of ``cat``: a phone forks slowly, and a file may be missing or unreadable.
READ_FUNCTION = 'R() { v=; { IFS= read -r v < "$1"; } 2>/dev/null; }'
FACTS_SCRIPT = "\n".join(
    [
        READ_FUNCTION,
        f'S() {{ echo; echo "{MARK}$1"; }}',
        "S machine; uname -m; uname -r; id -u",
        "S props; getprop 2>/dev/null",
        "S model; tr '\\0' '\\n' < /proc/device-tree/model 2>/dev/null",
        "S os; cat /etc/os-release 2>/dev/null",
        "S id; cat /etc/machine-id 2>/dev/null",
        "S meminfo; head -n 3 /proc/meminfo",
        "S cpuinfo; cat /proc/cpuinfo",
        (
            "S clusters; for p in /sys/devices/system/cpu/cpufreq/policy*; do"
            ' R "$p/related_cpus"; a=$v; R "$p/cpuinfo_max_freq"; echo "$a|$v"; done'
        ),
        (
            "S emulation; grep -m1 -o 'qemu-[a-z0-9_]*' /proc/self/smaps 2>/dev/null;"
            ' R /proc/sys/kernel/arch; echo "kernel=$v"'
        ),
        "S end",
    ]
)


@dataclass(frozen=True)
class DeviceFacts:
    """What a device says of itself. ``identity`` is the same over every wire to it.

    ``clusters`` are (CPU numbers, highest clock in MHz or None) in the kernel's order; ``emulated_by`` names
    what stands in for a real CPU, or is None.
    """

    machine: str
    kernel: str = ""
    uid: int | None = None
    model: str | None = None
    manufacturer: str | None = None
    soc: str | None = None
    android: str | None = None
    sdk: int | None = None
    os: str | None = None
    abis: tuple[str, ...] = ()
    ram_mib: int | None = None
    free_mib: int | None = None
    clusters: tuple[tuple[tuple[int, ...], float | None], ...] = ()
    identity: str | None = None
    emulated_by: str | None = None
    properties: dict[str, str] = field(default_factory=dict, repr=False)
    cpuinfo: str = field(default="", repr=False)

    @property
    def title(self) -> str:
        """A name for people."""
        words = [self.manufacturer or "", self.model or ""]
        name = " ".join(word for word in words if word) or f"{self.machine or 'unknown'} device"
        return f"{name} (emulated by {self.emulated_by})" if self.emulated_by else name

    @property
    def is_android(self) -> bool:
        return self.sdk is not None or "ro.build.version.release" in self.properties

    def problem(self) -> str | None:
        """Why the arm64 payload can't run there, or None."""
        if self.abis and "arm64-v8a" not in self.abis:
            return f"its ABIs are {', '.join(self.abis)}; the payload is 64-bit Arm (arm64-v8a)"
        if not self.abis and self.machine not in ("aarch64", "arm64"):
            return (
                f"it runs {self.machine or 'an unknown'} programs; the payload is 64-bit Arm (aarch64): "
                "use a 64-bit operating system on a 64-bit board"
            )
        if self.sdk is not None and self.sdk < MIN_SDK:
            return f"it runs Android {self.android or '?'} (API {self.sdk}); Android 8.0 (API {MIN_SDK}) is the oldest"
        return None

    def as_json(self) -> dict[str, Any]:
        """What goes into a measurement's conditions."""
        found = asdict(self)
        for name in ("properties", "cpuinfo", "uid"):
            found.pop(name)
        found["clusters"] = [{"cpus": list(cpus), "max_mhz": mhz} for cpus, mhz in self.clusters]
        found = {key: value for key, value in found.items() if value not in (None, "", (), [])}
        return {"device": self.title, **found}


MIN_SDK = 26
_NO_SERIAL = re.compile(r"unknown|uninitialized|none|null|n/a|0+|0?123456789(abcdef)?", re.IGNORECASE)


def sections(text: str) -> dict[str, str]:
    """The output of a script that prints ``@@edgeopt NAME`` before each part: name -> text."""
    found: dict[str, str] = {}
    for part in re.split(rf"^{re.escape(MARK)}", text.replace("\r\n", "\n"), flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        found[name.strip()] = body.strip("\n")
    return found


def parse_facts(text: str) -> DeviceFacts:
    """Facts out of the script's output, however garbled."""
    part = sections(text)
    lines = [*part.get("machine", "").split("\n"), "", "", ""]
    props = {key: printable(value) for key, value in parse_properties(part.get("props", "")).items()}
    tree_model = printable((part.get("model", "").split("\n") or [""])[0])
    memory = dict(re.findall(r"^(\w+):\s+(\d+) kB", part.get("meminfo", ""), re.MULTILINE))
    named = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', part.get("os", ""), re.MULTILINE)
    os_name = printable(named[1]) if named else None
    abis = props.get("ro.product.cpu.abilist") or props.get("ro.product.cpu.abi") or ""
    android = props.get("ro.build.version.release")
    return DeviceFacts(
        machine=printable(lines[0]),
        kernel=printable(lines[1]),
        uid=_integer(lines[2]),
        model=props.get("ro.product.model") or tree_model or None,
        manufacturer=props.get("ro.product.manufacturer") or None,
        soc=" ".join(
            word for key in ("ro.soc.manufacturer", "ro.soc.model") if (word := props.get(key, ""))
        ) or props.get("ro.board.platform") or None,
        android=android,
        sdk=_integer(props.get("ro.build.version.sdk", "")),
        os=f"Android {android}" if android else os_name,
        abis=tuple(abi for abi in abis.split(",") if abi),
        ram_mib=int(memory["MemTotal"]) // 1024 if "MemTotal" in memory else None,
        free_mib=int(memory["MemAvailable"]) // 1024 if "MemAvailable" in memory else None,
        clusters=_clusters(part.get("clusters", "")),
        identity=_identity(props.get("ro.serialno"), props.get("ro.boot.serialno"), part.get("id")),
        emulated_by=_emulation(part.get("emulation", ""), props, tree_model, lines[0].strip()),
        properties=props,
        cpuinfo=part.get("cpuinfo", ""),
    )  # fmt: skip


def printable(text: str) -> str:
    """Text from outside as it may stand in a table or a sentence: on one line, nothing a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def parse_properties(text: str) -> dict[str, str]:
    """``getprop``'s lines ``[key]: [value]``; a value may go on over several lines."""
    return dict(re.findall(r"^\[([^\]\n]+)\]: \[(.*?)\]$", text, re.M | re.S))


def _clusters(text: str) -> tuple[tuple[tuple[int, ...], float | None], ...]:
    found = []
    for line in text.splitlines():
        cpus, bar, khz = line.partition("|")
        numbers = tuple(int(word) for word in cpus.split() if word.isascii() and word.isdigit())
        if bar and numbers:
            frequency = _integer(khz)
            found.append((numbers, frequency / 1000 if frequency else None))
    return tuple(sorted(found))


def _identity(*serials: str | None) -> str | None:
    """The first serial number that is one: many boards and cheap phones all bear the same filler."""
    for serial in serials:
        word = (serial or "").strip()
        if word and not _NO_SERIAL.fullmatch(word):
            return word
    return None


def _emulation(text: str, props: dict[str, str], model: str, machine: str) -> str | None:
    """What gives an emulator away: its own mapping in memory, a kernel of another kind, Android's flags."""
    qemu = re.search(r"qemu-\w+", text)
    if qemu:
        return "QEMU"
    kernel = re.search(r"^kernel=(\w+)$", text, re.MULTILINE)
    if kernel and machine == "aarch64" and kernel[1] not in ("aarch64", "arm64"):
        return f"an emulator on {kernel[1]}"
    if props.get("ro.kernel.qemu") == "1" or props.get("ro.boot.qemu") == "1":
        return "the Android emulator"
    if props.get("ro.hardware") in ("goldfish", "ranchu", "cutf_cvm"):
        return "the Android emulator"
    if model == "linux,dummy-virt":
        return "QEMU"
    return None


def _integer(text: str) -> int | None:
    word = text.strip()
    return int(word) if word.isascii() and word.isdigit() and len(word) < 16 else None
