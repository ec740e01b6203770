"""Profiles as data: every built-in one is sound, can be found by its name, and can be extended."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from profile_files import PIXEL7, changed, error_of, write

from edgeopt.device_profiles import DeviceProfile, catalog, list_profiles, load_profile
from edgeopt.device_profiles.extends import merge
from edgeopt.errors import EdgeoptError

BUILTIN = sorted(path.stem for path in catalog.BUILTIN_FOLDER.glob("*.toml"))

REQUIRED = {
    "pixel6",
    "pixel7",
    "pixel8",
    "galaxy_s21",
    "galaxy_s23",
    "galaxy_s24",
    "oneplus_12",
    "raspberry_pi_3b_plus",
    "raspberry_pi_4",
    "raspberry_pi_5",
    "raspberry_pi_zero_2w",
    "jetson_orin_nano",
    "rock_5b",
    "generic_arm64",
    "host",
}

pytestmark = pytest.mark.usefixtures("user_folder")


# Built-in profiles


def test_the_promised_devices_are_there() -> None:
    assert set(BUILTIN) >= REQUIRED


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_is_valid_and_named_like_its_file(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert isinstance(profile, DeviceProfile)
    assert json.loads(json.dumps(profile.to_dict())) == profile.to_dict()
    for key in profile.figures():
        assert profile.source_of(key), f"{key} has no source"


@pytest.mark.parametrize("name", sorted(set(BUILTIN) - {"host", "generic_arm64"}))
def test_devices_can_be_recognised_and_emulated(name: str) -> None:
    profile = load_profile(name)
    assert profile.reach.emulator is not None
    assert (profile.reach.adb if profile.kind == "phone" else profile.reach.ssh) is not None
    assert profile.power.active_mw_per_core is not None
    assert profile.memory.bandwidth_gb_s is not None


# What QEMU 7.2's models have (target/arm/cpu64.c); "max" also has bf16.
QEMU_ISA = {
    "cortex-a53": {"neon"},
    "cortex-a72": {"neon"},
    "cortex-a76": {"neon", "fp16", "dotprod"},
    "max,sme=off,sve=off": {"neon", "fp16", "dotprod", "i8mm", "bf16"},
    "max,sme=off,sve-max-vq=1": {"neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2"},
}


@pytest.mark.parametrize("name", sorted(set(BUILTIN) - {"host"}))
def test_the_emulated_cpu_has_the_big_clusters_instructions(name: str) -> None:
    profile = load_profile(name)
    assert profile.reach.emulator is not None
    emulated = QEMU_ISA[profile.reach.emulator.qemu_cpu]
    big = set(profile.big_cluster.isa)
    assert big <= emulated
    assert emulated - big <= {"bf16"}  # the Pixel 8 hides NEON bf16, QEMU's max can't


def test_pixel7_is_the_tensor_g2() -> None:
    profile = load_profile("pixel7")
    cores = [(cluster.core, cluster.count, cluster.max_mhz) for cluster in profile.cpu.clusters]
    assert cores == [("cortex-a55", 4, 1803), ("cortex-a78", 2, 2348), ("cortex-x1", 2, 2850)]
    assert profile.total_cores == 8
    assert profile.big_cluster.core == "cortex-x1"
    assert profile.has_isa("dotprod") and not profile.has_isa("i8mm")
    assert profile.active_mw(profile.big_cluster) == 3269
    assert profile.reach.emulator is not None and profile.reach.emulator.qemu_cpu == "cortex-a76"
    assert not profile.is_estimate("cpu.clusters.2.max_mhz")
    assert profile.is_estimate("memory.bandwidth_gb_s")


def test_the_big_cluster_goes_by_core_before_clock() -> None:
    """An A720 at 3.15 GHz is not faster than an X4 at 3.3 GHz, nor than one at a lower clock."""
    profile = load_profile("oneplus_12")
    slow_x4 = profile.cpu.clusters[-1].model_copy(update={"max_mhz": 2500})
    cpu = profile.cpu.model_copy(update={"clusters": (*profile.cpu.clusters[:-1], slow_x4)})
    assert profile.model_copy(update={"cpu": cpu}).big_cluster.core == "cortex-x4"


def test_isa_of_one_cluster_and_of_an_unknown_feature() -> None:
    profile = load_profile("galaxy_s23")
    assert profile.has_isa("i8mm", cluster=0)
    assert profile.has_isa("bf16", cluster=profile.big_cluster)
    assert not profile.has_isa("sve2", cluster=3)
    with pytest.raises(ValueError, match="unknown ISA feature 'avx'"):
        profile.has_isa("avx")


def test_fingerprint_is_sha256_of_the_content_and_moves_with_it(tmp_path: Path) -> None:
    profile = load_profile("pixel7")
    canonical = json.dumps(profile.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert profile.fingerprint() == hashlib.sha256(canonical.encode()).hexdigest()
    same = load_profile(write(tmp_path, "copy", PIXEL7 + "\n# a comment\n"))
    assert same.fingerprint() == profile.fingerprint()
    other = load_profile(write(tmp_path, "other", changed(("max_mhz = 2850", "max_mhz = 2851"))))
    assert other.fingerprint() != profile.fingerprint()


def test_profiles_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_profile("pixel7").memory.ram_mib = 1  # type: ignore[misc]


# Names


@pytest.mark.parametrize("name", ["pixel7", "pixel-7", "Pixel 7", "PIXEL_7", "Google Pixel 7", "panther"])
def test_spellings_of_a_name(name: str) -> None:
    assert load_profile(name).name == "pixel7"


def test_plus_is_not_lost() -> None:
    assert load_profile("Raspberry Pi 3B+").name == "raspberry_pi_3b_plus"


def test_unknown_name_suggests_the_nearest() -> None:
    message = error_of("pixle7")
    assert "unknown profile 'pixle7'" in message
    assert "did you mean pixel7" in message
    assert "`edgeopt profiles`" in message


def test_a_hopeless_name_suggests_nothing() -> None:
    assert "did you mean" not in error_of("qqqqqq")


def test_missing_file() -> None:
    assert "nowhere.toml: no such file" in error_of("nowhere.toml")


# extends

CHILD = """
extends = "pixel7"
title = "My Pixel 7, half the memory"
memory = { ram_mib = 4096 }

[sources]
"memory.ram_mib" = "the box it came in"
"""


def test_extends_overrides_and_inherits(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, "mine", CHILD))
    base = load_profile("pixel7")
    assert profile.name == "mine"
    assert profile.title == "My Pixel 7, half the memory"
    assert profile.memory.ram_mib == 4096
    assert profile.memory.bandwidth_gb_s == base.memory.bandwidth_gb_s
    assert profile.cpu == base.cpu
    assert profile.aliases == ()
    assert profile.source_of("memory.ram_mib") == "the box it came in"
    assert profile.source_of("cpu.l3_kib") == base.source_of("cpu.l3_kib")


def test_what_extends_overrides_needs_its_own_source(tmp_path: Path) -> None:
    text = CHILD.replace('"memory.ram_mib" = "the box it came in"', "")
    assert "memory.ram_mib is 4096 and has no source" in error_of(write(tmp_path, "mine", text))


def test_a_parents_prefix_does_not_cover_the_childs_clusters(tmp_path: Path) -> None:
    cluster = '{ core = "cortex-a55", count = 4, max_mhz = 2000, isa = ["neon"] }'
    text = (
        f'extends = "pixel7"\ncpu = {{ clusters = [{cluster}] }}\npower = {{ active_mw_per_core = [300] }}\n'
    )
    message = error_of(write(tmp_path, "mine", text))
    assert "cpu.clusters.0.max_mhz is 2000 and has no source" in message
    assert "cpu.clusters.1" not in message
    sources = (
        '[sources]\n"cpu.clusters" = "estimate: a test"\n"power.active_mw_per_core" = "estimate: a test"\n'
    )
    profile = load_profile(write(tmp_path, "mine", text + sources))
    assert len(profile.cpu.clusters) == 1
    assert profile.cpu.l3_kib == load_profile("pixel7").cpu.l3_kib


def test_extends_a_file_beside_it_and_over_two_steps(tmp_path: Path) -> None:
    write(tmp_path, "first", CHILD)
    second = write(tmp_path, "second", 'extends = "first.toml"\nnotes = "second"\n')
    profile = load_profile(second)
    assert (profile.name, profile.notes, profile.memory.ram_mib) == ("second", "second", 4096)


@pytest.mark.parametrize(
    ("stem", "name"),
    [("My-Phone", "my_phone"), ("7+", "profile_7"), ("über", "ber"), ("___", "profile_")],
)
def test_a_files_name_becomes_the_profiles(tmp_path: Path, stem: str, name: str) -> None:
    assert load_profile(write(tmp_path, stem, CHILD)).name == name
    without = PIXEL7.replace('name = "pixel7"\n', "")
    assert load_profile(write(tmp_path, stem, without)).name == name


def test_extends_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path, "a", 'extends = "b.toml"\n')
    write(tmp_path, "b", 'extends = "c.toml"\n')
    write(tmp_path, "c", 'extends = "a.toml"\n')
    assert "round in a circle: a.toml -> b.toml -> c.toml -> a.toml" in error_of(tmp_path / "a.toml")


def test_extends_by_name_in_a_circle(user_folder: Path) -> None:
    write(user_folder, "one", 'extends = "two"\n')
    write(user_folder, "two", 'extends = "one"\n')
    assert "round in a circle: one.toml -> two.toml -> one.toml" in error_of("one")


def test_extends_itself_when_there_is_nothing_else_of_that_name(user_folder: Path) -> None:
    write(user_folder, "lonely", 'extends = "lonely"\n')
    assert "round in a circle: lonely.toml -> lonely.toml" in error_of("lonely")


@pytest.mark.parametrize("value", ["3", "[]", '""', "{ a = 1 }", "true"])
def test_extends_must_be_a_name(tmp_path: Path, value: str) -> None:
    assert "extends is" in error_of(write(tmp_path, "mine", f"extends = {value}\n"))


def test_extends_an_unknown_name(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, "mine", 'extends = "pixel77"\n'))
    assert "mine.toml: extends: unknown profile 'pixel77'; did you mean pixel7" in message


def test_extends_a_file_that_is_not_there(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, "child", 'extends = "parent.toml"\n'))
    assert (
        "child.toml: extends: " in message and "parent.toml: no such file (a path is relative to" in message
    )


def test_merge_replaces_lists_and_deepens_tables() -> None:
    parent = {"a": {"b": 1, "c": [1, 2]}, "d": 5, "sources": {"a": "one", "d": "two"}}
    merged = merge(parent, {"a": {"c": [3]}, "sources": {"a.c": "three"}})
    assert merged == {
        "a": {"b": 1, "c": [3]},
        "d": 5,
        "sources": {"a.b": "one", "d": "two", "a.c": "three"},
    }
    assert parent["sources"] == {"a": "one", "d": "two"}


# Where profiles are found


def test_user_folder_adds_and_hides(user_folder: Path) -> None:
    write(user_folder, "my_phone", CHILD)
    write(user_folder, "pixel6", PIXEL7.replace('name = "pixel7"', 'name = "pixel6"'))
    assert load_profile("my phone").memory.ram_mib == 4096
    assert load_profile("pixel6").soc == load_profile("pixel7").soc
    entries = {entry.name: entry for entry in list_profiles()}
    assert entries["my_phone"].origin == "user"
    assert entries["pixel6"].origin == "user"
    assert entries["pixel7"].origin == "built-in"


def test_a_user_profile_may_extend_the_built_in_one_it_hides(user_folder: Path) -> None:
    write(user_folder, "pixel7", CHILD)
    profile = load_profile("pixel7")
    assert (profile.name, profile.memory.ram_mib) == ("pixel7", 4096)


def test_a_broken_user_profile_is_listed_with_its_problem(user_folder: Path) -> None:
    write(user_folder, "broken", "x = [")
    write(user_folder, "empty", "")
    write(user_folder, "odd", changed(("max_mhz = 2850", "max_mhz = inf")))
    write(user_folder, "absurd", changed(("count = 2\nmax_mhz = 2850", "count = -2\nmax_mhz = 2850")))
    entries = {entry.name: entry for entry in list_profiles()}
    assert "not valid TOML" in (entries["broken"].problem or "")
    assert "validate" in (entries["empty"].problem or "")
    assert "validate" in (entries["odd"].problem or "")
    assert "count is -2; allowed: a number, at least 1" in (entries["absurd"].problem or "")
    assert entries["pixel7"].problem is None


def test_listing_agrees_with_the_validated_profiles() -> None:
    entries = {entry.name: entry for entry in list_profiles()}
    assert set(entries) == set(BUILTIN)
    for name in set(BUILTIN) - {"host"}:
        profile, entry = load_profile(name), entries[name]
        assert entry.title == profile.title
        assert entry.ram_mib == profile.memory.ram_mib
        assert entry.big_cores.split()[1] == profile.big_cluster.core
        assert all(profile.has_isa(feature) for feature in entry.isa)


class _EntryPoint:
    def __init__(self, target: Any) -> None:
        self.name, self.dist, self.target = "boards", None, target

    def load(self) -> Any:
        if isinstance(self.target, Exception):
            raise self.target
        return self.target


@pytest.mark.parametrize("as_callable", [False, True])
def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_callable: bool) -> None:
    write(tmp_path, "board", PIXEL7.replace('name = "pixel7"', 'name = "board"'))
    target = (lambda: tmp_path) if as_callable else str(tmp_path)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [_EntryPoint(target)])
    assert load_profile("board").name == "board"
    assert {entry.origin for entry in list_profiles()} == {"an installed package", "built-in"}


def test_a_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [_EntryPoint(ImportError("no module named boards"))]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    with pytest.raises(EdgeoptError, match=r"'boards' \(edgeopt.profiles\).*no module named boards"):
        list_profiles()
