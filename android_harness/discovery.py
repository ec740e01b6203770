"""Which devices there are, and which profile each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..device_profiles import DeviceProfile, list_profiles, load_profile
from ..errors import EdgeoptError, InputError
from .adb import AdbTarget, adb_targets
from .adb_server import AdbServer
from .device_conditions import DeviceState, snapshot_of
from .device_facts import DeviceFacts
from .remote import RemoteTarget
from .ssh import configured_hosts, ssh_target


@dataclass(frozen=True)
class FoundDevice:
    """A device that could be measured on, or why it can't. ``profiles`` are the names that match it."""

    address: str
    facts: DeviceFacts | None = None
    state: DeviceState | None = None
    profiles: tuple[str, ...] = ()
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The object in the JSON list ``devices``."""
        found: dict[str, Any] = {
            "address": self.address,
            "usable": self.problem is None and self.facts is not None,
        }
        if self.facts is not None:
            found |= self.facts.as_json()
        if self.state is not None:
            found |= {
                "battery_percent": self.state.battery_percent,
                "charging_by": self.state.charging_by,
                "temperature_c": self.state.gate_c,
            }
        return {**found, "profiles": list(self.profiles), "problem": self.problem}


def targets_of(on: str, *, accept_host_key: bool = False) -> list[RemoteTarget]:
    """The targets of one ``--on``: ``adb``, ``adb:SERIAL``, ``adb:all`` or ``ssh:user@host[:port]``.

    Raises:
        InputError: nothing such, or several where one must be named.
        EdgeoptError: nothing is attached.
    """
    return _targets(on, "--on", accept_host_key, several=True)


def target_of(on: str, *, option: str = "--on", accept_host_key: bool = False) -> RemoteTarget:
    """The one target of a command that works on one device; ``option`` is what the user said it with.

    Raises:
        InputError: nothing such, or several are attached and none was named.
        EdgeoptError: nothing is attached.
    """
    targets = _targets(on, option, accept_host_key, several=False)
    if len(targets) != 1:
        raise InputError(
            f"{option} {on} means {len(targets)} devices: name one, e.g. {option} {targets[0].address}."
        )
    return targets[0]


def _targets(on: str, option: str, accept_host_key: bool, *, several: bool) -> list[RemoteTarget]:
    kind, colon, rest = on.partition(":")
    if kind == "adb" and (rest or not colon):
        return list(adb_targets(rest, option=option, several=several))
    if kind == "ssh" and rest:
        return [ssh_target(rest, accept_host_key=accept_host_key)]
    every = "adb, adb:SERIAL, adb:all" if several else "adb, adb:SERIAL"
    raise InputError(f"{option} {on} is not known: say {every} or ssh:user@host.")


def discover(ssh: Sequence[str] = (), *, probe_ssh: bool = False) -> tuple[list[FoundDevice], list[str]]:
    """Everything attached by adb, and the ssh hosts named or configured.

    Args:
        ssh: addresses to look at.
        probe_ssh: look at every host of ~/.ssh/config too (otherwise they are only listed).

    Returns:
        the devices, and sentences about what could not be asked.
    """
    found: list[FoundDevice] = []
    problems: list[str] = []
    targets: list[RemoteTarget] = []
    try:
        server = AdbServer()
        for device in server.devices():
            if device.problem:
                found.append(FoundDevice(f"adb:{device.serial}", problem=device.problem))
            else:
                targets.append(AdbTarget(device.serial, server))
    except EdgeoptError as error:
        problems.append(str(error))
    hosts = list(dict.fromkeys([*ssh, *(configured_hosts() if probe_ssh else [])]))
    for host in hosts:
        try:
            targets.append(ssh_target(host))
        except EdgeoptError as error:
            found.append(FoundDevice(f"ssh:{host}", problem=str(error)))
    if targets:
        with ThreadPoolExecutor(max_workers=min(8, len(targets))) as pool:
            found += pool.map(_look, targets)
    for host in configured_hosts():
        if host not in hosts:
            found.append(FoundDevice(f"ssh:{host}", problem="not asked: see it with --ssh-hosts"))
    return found, problems


def matching_profiles(facts: DeviceFacts) -> list[DeviceProfile]:
    """The profiles that describe this device, by the rules in their ``reach``."""
    found = []
    for entry in list_profiles():
        if entry.problem:
            continue
        try:
            profile = load_profile(entry.path)
        except EdgeoptError:
            continue
        if _matches(profile, facts):
            found.append(profile)
    return found


def mismatch(profile: DeviceProfile, facts: DeviceFacts) -> str | None:
    """A sentence when the device is not the one the profile describes; None when it is or can't be told."""
    adb, ssh = profile.reach.adb, profile.reach.ssh
    has_rules = bool((adb and adb.match) or (ssh and ssh.device_tree_match))
    # What is measured on is arm64, so that no rule is needed to tell a profile of another architecture.
    if _matches(profile, facts) or not (has_rules or profile.arch != "arm64"):
        return None
    names = [match.name for match in matching_profiles(facts)]
    better = f"; it matches {', '.join(names)}" if names else ""
    return f"the device is {facts.title}, not what profile {profile.name} describes ({profile.title}){better}"


def _matches(profile: DeviceProfile, facts: DeviceFacts) -> bool:
    adb, ssh = profile.reach.adb, profile.reach.ssh
    if adb is not None and adb.match and facts.properties:
        return all(facts.properties.get(key) in values for key, values in adb.match.items())
    if ssh is not None and ssh.device_tree_match and facts.model and not facts.properties:
        return ssh.device_tree_match in facts.model
    return False


def _look(target: RemoteTarget) -> FoundDevice:
    try:
        facts = target.facts()
        names = tuple(profile.name for profile in matching_profiles(facts))
        return FoundDevice(target.address, facts, snapshot_of(target), names, facts.problem())
    except EdgeoptError as error:
        return FoundDevice(target.address, problem=str(error).rstrip("."))
    finally:
        target.close()
