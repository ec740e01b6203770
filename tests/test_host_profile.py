"""The profile of the machine that edgeopt runs on, read from real and made-up machines."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_files import write

from edgeopt.device_profiles import DeviceProfile, catalog, load_profile
from edgeopt.device_profiles.extends import merge
from edgeopt.device_profiles.machine import describe_machine

pytestmark = pytest.mark.usefixtures("user_folder")


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
