"""Writes a device profile from what a phone or board says of itself, each figure with its source."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..device_profiles import load_profile
from ..device_profiles.machine import READ, describe_machine
from ..errors import EdgeoptError, InputError
from ..runtimes.scratch import ScratchFolder
from .device_facts import MARK, READ_FUNCTION, DeviceFacts, sections
from .remote import RemoteTarget

# Every small file that describes CPUs and caches, as PATH=CONTENT lines.
FILES_SCRIPT = READ_FUNCTION + (
    f'; echo "{MARK}files"; for c in /sys/devices/system/cpu/cpu[0-9]*; do'
    ' for f in "$c/cpufreq/cpuinfo_max_freq" "$c"/cache/index*/level "$c"/cache/index*/type'
    ' "$c"/cache/index*/size "$c"/cache/index*/shared_cpu_list; do'
    ' R "$f"; if [ -n "$v" ]; then echo "$f=$v"; fi; done; done'
    f'; echo "{MARK}meminfo"; head -n 3 /proc/meminfo'
)


def profile_text(target: RemoteTarget, name: str) -> str:
    """The TOML of a profile called ``name`` for the device behind ``target``, valid and with sources.

    Raises:
        InputError: the device is no 64-bit Arm one, or tells too little for a profile.
    """
    facts = target.facts()
    problem = facts.problem()
    if problem:
        raise InputError(f"no profile can be written for {target.name}: {problem}.")
    parts = sections(target.script(FILES_SCRIPT, timeout_s=60.0).stdout)
    content = profile_content(facts, parts.get("files", ""), parts.get("meminfo", ""), name)
    text = to_toml(content)
    with ScratchFolder("profile") as folder:
        path = Path(folder) / f"{name}.toml"
        path.write_text(text)
        try:
            load_profile(path)
        except InputError as error:
            raise InputError(
                f"{target.name} tells too little for a profile: {str(error).replace(str(path), 'what it says')}"
            ) from error
    return text


def profile_content(facts: DeviceFacts, files: str, meminfo: str, name: str) -> dict[str, Any]:
    """The profile as data: CPU and memory as :func:`describe_machine` reads them from the device's files."""
    read = f"read from the device ({facts.title})"
    overlay = _overlay(facts, files, meminfo)
    clusters = overlay.get("cpu", {}).get("clusters")
    memory = overlay.get("memory")
    if not clusters or not memory:
        raise InputError(
            f"{facts.title} shows no /proc/cpuinfo or /proc/meminfo that a profile could rest on."
        )
    sources = {key: value.replace(READ, read) for key, value in overlay["sources"].items()}
    sources["memory.app_budget_mib"] = "estimate: a quarter of the device's RAM"
    memory = {**memory, "app_budget_mib": max(1, memory["ram_mib"] // 4)}
    content: dict[str, Any] = {
        "schema_version": 1,
        "name": name,
        "title": facts.title,
        "vendor": facts.manufacturer or "unknown",
        "soc": facts.soc or facts.model or "unknown",
        "kind": "phone" if facts.is_android else "board",
        "arch": "arm64",
        "notes": "Written from what the device reports; check the estimates, and add power and budgets.",
    }
    system: dict[str, Any] = {"name": "linux", "version": facts.os or facts.kernel or "unknown"}
    if facts.is_android:
        system = {"name": "android", "version": facts.android or "unknown", "min_sdk": 26}
        if facts.sdk is not None:
            system["api_level"] = facts.sdk
        sources["os"] = f"{read} (getprop); min_sdk is the project's choice (Android 8.0)"
    content["os"] = {key: value[:40] if isinstance(value, str) else value for key, value in system.items()}
    content["cpu"] = overlay["cpu"]
    content["memory"] = memory
    content["runtimes"] = {
        "executorch": {"delegates": ["xnnpack"], "min_version": "1.5"},
        "litert": {"delegates": ["xnnpack"], "min_version": "2.3"},
    }
    content["reach"] = _reach(facts)
    content["sources"] = sources
    return content


def _overlay(facts: DeviceFacts, files: str, meminfo: str) -> dict[str, Any]:
    """The device's files in a folder of our own, read by the reader of this machine's."""
    with ScratchFolder("device") as folder:
        root = Path(folder)
        _place(root, "/proc/cpuinfo", facts.cpuinfo)
        _place(root, "/proc/meminfo", meminfo)
        for line in files.splitlines():
            path, equals, value = line.partition("=")
            inside = path.startswith("/sys/devices/system/cpu/cpu") and ".." not in path.split("/")
            if equals and inside and "\0" not in path and len(path) < 200:
                _place(root, path, value)
        return describe_machine(root, system="Linux", machine="aarch64")


def _place(root: Path, path: str, text: str) -> None:
    target = root / path.lstrip("/")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")
    except OSError:
        return  # garbled names; what is missing then is said by the validation


def _reach(facts: DeviceFacts) -> dict[str, Any]:
    device = facts.properties.get("ro.product.device")
    if device:
        return {"adb": {"match": {"ro.product.device": [device]}}}
    found: dict[str, Any] = {"user": "root"}
    if facts.model:
        found["device_tree_match"] = facts.model
    return {"ssh": found}


def to_toml(content: Mapping[str, Any]) -> str:
    """TOML of plain data: tables, lists of tables, strings, numbers, booleans."""
    lines: list[str] = []
    _table(lines, (), content)
    return "\n".join(lines).strip() + "\n"


def _table(lines: list[str], path: tuple[str, ...], table: Mapping[str, Any]) -> None:
    nested = {k: v for k, v in table.items() if isinstance(v, Mapping) or _is_tables(v)}
    for key, value in table.items():
        if key not in nested:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in nested.items():
        name = ".".join(_key(part) for part in (*path, key))
        for row in value if isinstance(value, list) else [value]:
            lines += ["", f"[[{name}]]" if isinstance(value, list) else f"[{name}]"]
            _table(lines, (*path, key), row)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        # JSON's string is TOML's basic string but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return repr(value)


def write_profile(text: str, path: Path, *, force: bool) -> None:
    """Write the profile in one step.

    Raises:
        InputError: the file exists and ``force`` is not set.
        EdgeoptError: it can't be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not force:
            raise InputError(f"{path} exists: choose another name, or say --force to replace it.")
        if path.is_dir():
            raise InputError(f"{path} is a folder: name the file to write.")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise EdgeoptError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # where it couldn't be made it can't be removed
            temporary.unlink()


def check_place(path: Path) -> None:
    """Refuse a file that can't be written, before minutes are spent on what is to stand in it.

    Raises:
        InputError: it is a folder.
        EdgeoptError: it can't be written.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder: name the file to write.")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise EdgeoptError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            probe.unlink()
