"""Profiles as data: every built-in one is sound, every broken one ends as one clear InputError."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.device_profiles import DeviceProfile, catalog, list_profiles, load_profile
from edgeopt.device_profiles.checks import covering_source, numeric_leaves
from edgeopt.device_profiles.extends import merge
from edgeopt.device_profiles.machine import describe_machine
from edgeopt.device_profiles.problems import input_error
from edgeopt.errors import EdgeoptError, InputError

BUILTIN = sorted(path.stem for path in catalog.BUILTIN_FOLDER.glob("*.toml"))
PIXEL7 = (catalog.BUILTIN_FOLDER / "pixel7.toml").read_text()

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


@pytest.fixture(autouse=True)
def user_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty config folder, so that the developer's own profiles stay out of the tests."""
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("EDGEOPT_CONFIG_DIR", str(folder))
    (folder / "profiles").mkdir()
    return folder / "profiles"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def changed(*replacements: tuple[str, str]) -> str:
    text = PIXEL7
    for old, new in replacements:
        assert old in text, f"pixel7.toml no longer holds {old!r}"
        text = text.replace(old, new)
    return text


def error_of(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_profile(path)
    return str(caught.value)


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


# Broken files: file, key, found value and what is allowed


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_mhz = 2850", "max_mhz = -2850", ["max_mhz is -2850", "at least 1 and at most 10000"]),
        ("max_mhz = 2850", "max_mhz = 3", ["cpu.clusters.2.max_mhz is 3", "100 to 10000"]),
        ("max_mhz = 2850", 'max_mhz = "2850"', ["cpu.clusters.2.max_mhz is '2850'", "a whole number"]),
        ("max_mhz = 2850", "max_mhz = 2850.0", ["cpu.clusters.2.max_mhz is 2850.0", "a whole number"]),
        ("max_mhz = 2850", "max_mhz = true", ["cpu.clusters.2.max_mhz is True", "a whole number"]),
        ("skin_limit_c = 39", "skin_limit_c = nan", ["thermal.skin_limit_c is nan", "finite"]),
        ("skin_limit_c = 39", "skin_limit_c = inf", ["thermal.skin_limit_c is inf", "at most 150"]),
        ("skin_limit_c = 39", "skin_limit_c = 20", ["thermal.cool_down_c is 33", "less than"]),
        ("[os]", "[os", ["not valid TOML", "line"]),
        ("vendor =", "vender =", ["vender is not a known key", "did you mean vendor?", "vendor is missing"]),
        ('kind = "phone"', 'kind = "fridge"', ["kind is 'fridge'", "'phone', 'board', 'host', 'generic'"]),
        ("ram_mib = 8192", "ram_mib = 1024", ["memory.app_budget_mib is 2048", "1 to 1024"]),
        ("ram_mib = 8192\n", "", ["memory.ram_mib is missing"]),
        ("1578, ", "", ["power.active_mw_per_core has 2 figures for 3 clusters", "one a cluster"]),
        ('qemu_cpu = "cortex-a76"', 'qemu_cpu = "max"', ["reach.emulator.qemu_cpu is 'max'", "sme=off"]),
        ("api_level = 33\n", "", ["os.api_level is missing"]),
        ("min_sdk = 26", "min_sdk = 34", ["os.min_sdk is 34", "at most os.api_level (33)"]),
        ('name = "android"', 'name = "linux"', ["os.api_level is 33", "only android"]),
        ('status = "unverified"', 'status = "ok"', ["accelerators.0.status is 'ok'", "'known_bad'"]),
        ('method = "fuel_gauge"', 'method = "guess"', ["power.rails.5.method is 'guess'", "'ina3221'"]),
        ('["xnnpack", "vulkan"]', '["xnpack"]', ["runtimes.executorch.delegates.0 is 'xnpack'", "'xnnpack'"]),
        ("schema_version = 1", "schema_version = 7", ["schema_version is 7", "allowed: 1"]),
        ('name = "pixel7"', 'name = "Pixel 7!"', ["name is 'Pixel 7!'", "lower case"]),
        ('"year" =', '"yeer" =', ["sources.yeer covers no figure", "year is 2022 and has no source"]),
        ("l2_kib = 1024", "l2_kib = 8", ["cpu.clusters.2.l2_kib is 8", "at least l1d_kib (64)"]),
        ('arch = "arm64"', 'arch = "x86_64"', ["has dotprod and fp16 and neon, but arch is x86_64"]),
    ],
)  # fmt: skip
def test_broken_profile(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    message = error_of(write(tmp_path, "broken", changed((old, new))))
    assert "broken.toml" in message
    for part in expected:
        assert part in message


def test_unknown_isa_names_the_closed_set(tmp_path: Path) -> None:
    text = PIXEL7.replace('isa = ["neon", "fp16", "dotprod"]', 'isa = ["neon", "fp16", "dotprd"]', 1)
    message = error_of(write(tmp_path, "broken", text))
    assert "cpu.clusters.0.isa.2 is 'dotprd'; allowed: 'neon', 'fp16', 'dotprod', 'i8mm'" in message
    assert message.count("\n") == 0


@pytest.mark.parametrize(
    ("core", "isa", "expected"),
    [
        ("cortex-x1", '["neon", "fp16", "dotprod", "i8mm"]', "has i8mm, which a cortex-x1 doesn't have"),
        ("cortex-a53", '["neon", "dotprod"]', "has dotprod, which a cortex-a53 doesn't have"),
        ("cortex-x3", '["neon", "fp16", "i8mm"]', "has i8mm without dotprod"),
        ("cortex-x3", '["neon", "fp16", "dotprod", "sve2"]', "has sve2 without sve"),
        ("cortex-x3", '["neon", "neon"]', "names a feature twice"),
    ],
)
def test_instructions_a_core_cannot_have(tmp_path: Path, core: str, isa: str, expected: str) -> None:
    text = changed(('core = "cortex-x1"', f'core = "{core}"'))
    before, _, after = text.rpartition('isa = ["neon", "fp16", "dotprod"]')
    assert expected in error_of(write(tmp_path, "broken", f"{before}isa = {isa}{after}"))


@pytest.mark.parametrize(
    ("citation", "expected"),
    [
        ("", "is ''"),
        ("estimate", "allowed: a citation"),
        ("Estimate: ", "allowed: a citation"),
        ("see https://example.org/x", "holds an address"),
    ],
)
def test_a_source_must_say_something(tmp_path: Path, citation: str, expected: str) -> None:
    lines = [f'"year" = "{citation}"' if line.startswith('"year"') else line for line in PIXEL7.splitlines()]
    message = error_of(write(tmp_path, "broken", "\n".join(lines)))
    assert "sources.year" in message and expected in message


@pytest.mark.parametrize("key", ["memory.ram_mib", "power.active_mw_per_core", "cpu.clusters"])
def test_a_figure_without_a_source_is_refused(tmp_path: Path, key: str) -> None:
    lines = [line for line in PIXEL7.splitlines() if not line.startswith(f'"{key}"')]
    message = error_of(write(tmp_path, "broken", "\n".join(lines)))
    assert f"{key}" in message and "has no source" in message


def test_several_problems_come_together(tmp_path: Path) -> None:
    text = changed(("max_mhz = 2850", "max_mhz = -1"), ('kind = "phone"', 'kind = "fridge"'))
    message = error_of(write(tmp_path, "broken", text))
    first, *rest = message.splitlines()
    assert first.endswith("broken.toml: 2 problems:")
    assert len(rest) == 2


def test_not_text_a_folder_and_far_too_big(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.toml").mkdir()
    write(tmp_path, "big", "#" * (2 << 20))
    assert "not UTF-8" in error_of(tmp_path / "bytes.toml")
    assert "can't be read" in error_of(tmp_path / "folder.toml")
    assert "too big" in error_of(tmp_path / "big.toml")


def test_dotted_source_keys_need_no_quotes(tmp_path: Path) -> None:
    plain = PIXEL7.replace('"memory.ram_mib" =', "memory.ram_mib =")
    assert load_profile(write(tmp_path, "plain", plain)) == load_profile("pixel7")


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
    entries = {entry.name: entry for entry in list_profiles()}
    assert "not valid TOML" in (entries["broken"].problem or "")
    assert "validate" in (entries["empty"].problem or "")
    assert "validate" in (entries["odd"].problem or "")
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


# The machine


def test_host_is_read_from_this_machine() -> None:
    profile = load_profile("host")
    assert profile.total_cores >= 1
    assert profile.source_of("memory.ram_mib") is not None
    assert profile.fingerprint() == load_profile("host").fingerprint()


def test_extends_host(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, "build_server", 'extends = "host"\ntitle = "CI"\n'))
    assert (profile.title, profile.cpu) == ("CI", load_profile("host").cpu)


def fake_machine(root: Path, cpuinfo: str, files: dict[str, str]) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    (root / "proc/meminfo").write_text("MemTotal:        4001234 kB\nMemFree: 1 kB\n")
    for name, text in files.items():
        path = root / "sys/devices/system/cpu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def as_host(overlay: dict[str, Any]) -> DeviceProfile:
    base = tomllib.loads((catalog.BUILTIN_FOLDER / "host.toml").read_text())
    return DeviceProfile.model_validate(merge(base, overlay))


def test_a_big_little_arm_machine(tmp_path: Path) -> None:
    a55 = "Features: fp asimd asimdhp asimddp\nCPU implementer: 0x41\nCPU part: 0xd05\n"
    a76 = "Features: fp asimd asimdhp asimddp\nCPU implementer: 0x41\nCPU part: 0xd0b\n"
    cpuinfo = "\n".join(f"processor: {index}\n{a55 if index < 4 else a76}" for index in range(8))
    files = {
        f"cpu{index}/cpufreq/cpuinfo_max_freq": "1800000" if index < 4 else "2400000" for index in range(8)
    }
    files |= {"cpu4/cache/index2/level": "2", "cpu4/cache/index2/type": "Unified"}
    files |= {"cpu4/cache/index2/size": "512K", "cpu4/cache/index2/shared_cpu_list": "4"}
    root = fake_machine(tmp_path, cpuinfo, files)
    profile = as_host(describe_machine(root, system="Linux", machine="aarch64"))
    cores = [(each.core, each.count, each.max_mhz, each.l2_kib) for each in profile.cpu.clusters]
    assert cores == [("cortex-a55", 4, 1800, None), ("cortex-a76", 4, 2400, 512)]
    assert profile.has_isa("dotprod") and profile.arch == "arm64"
    assert profile.memory.ram_mib == 4001234 // 1024
    assert str(profile.source_of("cpu.clusters.1.max_mhz")).startswith("read from this machine")


def test_an_x86_machine_with_threads_and_no_cpufreq(tmp_path: Path) -> None:
    flags = "flags: avx2 avx512f avx512bw avx512vl avx512dq avx512_vnni"
    cpuinfo = "\n".join(
        f"processor: {index}\nmodel name: Some(R) CPU @ 2.00GHz\ncpu MHz: 2012.5\n"
        f"physical id: 0\ncore id: {index // 2}\n{flags}\n"
        for index in range(4)
    )
    profile = as_host(describe_machine(fake_machine(tmp_path, cpuinfo, {}), system="Linux", machine="x86_64"))
    (cluster,) = profile.cpu.clusters
    assert (cluster.core, cluster.count, cluster.max_mhz) == ("some", 2, 2000)
    assert cluster.isa == ("avx2", "avx512", "vnni")
    assert profile.is_estimate("cpu.clusters.0.max_mhz") and not profile.is_estimate("cpu.clusters.0.count")


def test_two_kinds_of_core_and_no_clock_at_all(tmp_path: Path) -> None:
    cpuinfo = "".join(
        f"processor: {index}\nFeatures: asimd\nCPU implementer: 0x41\nCPU part: {part}\n\n"
        for index, part in enumerate(["0xd03", "0xd08"])
    )
    profile = as_host(
        describe_machine(fake_machine(tmp_path, cpuinfo, {}), system="Linux", machine="aarch64")
    )
    assert [cluster.core for cluster in profile.cpu.clusters] == ["cortex-a53", "cortex-a72"]
    assert (
        profile.source_of("cpu.clusters.1.max_mhz") == "estimate: a placeholder; this machine tells no clock"
    )


@pytest.mark.parametrize("system", ["Linux", "Windows", "Darwin", "Plan9"])
def test_a_machine_that_tells_nothing(tmp_path: Path, system: str) -> None:
    profile = as_host(describe_machine(tmp_path, system=system, machine="x86_64"))
    assert profile.total_cores >= 1


CPUINFO_KEYS = [
    "CPU part",
    "CPU implementer",
    "Features",
    "flags",
    "cpu MHz",
    "core id",
    "model name",
    "processor",
]
CPUINFO_VALUES = [
    "0x41",
    "0xd03",
    "0xd0b",
    "nan",
    "inf",
    "-5",
    "1e300",
    "asimddp i8mm sve2",
    "avx_vnni avx512f",
    "1",
]


@given(
    lines=st.lists(
        st.tuples(st.sampled_from(CPUINFO_KEYS), st.text(max_size=30) | st.sampled_from(CPUINFO_VALUES)),
        max_size=12,
    ),
    machine=st.sampled_from(["x86_64", "aarch64"]),
)
@settings(max_examples=150, deadline=None)
def test_any_cpuinfo_gives_a_valid_profile(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]], machine: str
) -> None:
    cpuinfo = "processor: 0\n" + "\n".join(f"{key}: {value}" for key, value in lines)
    root = tmp_path_factory.mktemp("machine") / "root"
    fake_machine(root, cpuinfo.encode("utf-8", "replace").decode(), {})
    assert as_host(describe_machine(root, system="Linux", machine=machine)).total_cores >= 1


# Random damage


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(each for key, item in below for each in _paths(item, (*path, key)))]


VALID = tomllib.loads(PIXEL7)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.dates(),
)
DAMAGE = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    hits=st.lists(
        st.tuples(st.sampled_from(_paths(VALID)), st.sampled_from(["drop", "set", "add"]), DAMAGE),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_damage_gives_a_profile_or_an_input_error(hits: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    """Validation never fails in any other way, and its message can always be made."""
    from pydantic import ValidationError

    raw = json.loads(json.dumps(VALID))
    for path, action, value in hits:
        _damage(raw, path, action, value)
    try:
        profile = DeviceProfile.model_validate(raw)
    except ValidationError as error:
        message = str(input_error("damaged.toml", error))
        assert message.startswith("damaged.toml: ")
        return
    assert all(math.isfinite(value) for value in profile.figures().values())
    assert len(profile.fingerprint()) == 64


def _damage(raw: Any, path: tuple[Any, ...], action: str, value: Any) -> None:
    for part in path[:-1]:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return
    if not isinstance(raw, dict | list):
        return
    key = path[-1]
    there = key in raw if isinstance(raw, dict) else isinstance(key, int) and key < len(raw)
    if action == "drop" and there:
        del raw[key]
    elif isinstance(raw, dict):
        raw[f"{key}x" if action == "add" else key] = value
    elif action == "add":
        raw.append(value)
    elif there:
        raw[key] = value


@given(cut=st.integers(0, len(PIXEL7)), insert=st.text(max_size=6), skip=st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_damaged_text_gives_a_profile_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, insert: str, skip: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    text = PIXEL7[:cut] + insert + PIXEL7[cut + skip :]
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        profile = load_profile(path)
    except InputError as error:
        assert "damaged.toml" in str(error)
    else:
        assert profile.total_cores >= 1


@given(value=DAMAGE)
@settings(max_examples=100, deadline=None)
def test_every_number_is_a_figure(value: Any) -> None:
    leaves = dict(numeric_leaves({"value": value}))
    assert all(not isinstance(number, bool) for number in leaves.values())
    assert all(covering_source(key, {"value": "x"}) == "value" for key in leaves)
