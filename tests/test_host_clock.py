"""The clock of a machine that hides it, and which core an AMD processor has."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from test_host_profile import as_host, fake_machine

from edgeopt.device_profiles.clock import kept_mhz, measured_mhz
from edgeopt.device_profiles.cores import x86_core
from edgeopt.device_profiles.machine import describe_machine

_CPUINFO = "processor: 0\nvendor_id: AuthenticAMD\ncpu family: 26\nmodel: 2\nmodel name: AMD EPYC\ncpu MHz: 2596.1\nflags: avx2\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_hidden_clock_is_measured_and_a_shown_one_is_not(tmp_path: Path) -> None:
    hidden = fake_machine(tmp_path / "hidden", _CPUINFO, {})
    profile = as_host(describe_machine(hidden, system="Linux", machine="x86_64", clock=lambda *_: 4100))
    (cluster,) = profile.cpu.clusters
    assert (cluster.core, cluster.max_mhz) == ("x86-zen5", 4100)
    assert not profile.is_estimate("cpu.clusters.0.max_mhz")
    profile = as_host(describe_machine(hidden, system="Linux", machine="x86_64", clock=lambda *_: None))
    assert profile.cpu.clusters[0].max_mhz == 2600 and profile.is_estimate("cpu.clusters.0.max_mhz")
    files = {"cpu0/cpufreq/cpuinfo_max_freq": "3700000"}
    arm = _CPUINFO.replace("flags: avx2", "Features: asimd")
    for cpuinfo, cpufreq, machine, expected in (
        (_CPUINFO, files, "x86_64", 3700),
        (arm, {}, "aarch64", 2600),
    ):
        root = fake_machine(tmp_path / machine, cpuinfo, cpufreq)
        profile = as_host(describe_machine(root, system="Linux", machine=machine, clock=lambda *_: 4100))
        assert profile.cpu.clusters[0].max_mhz == expected


def test_the_first_measurement_is_kept(cache: Path) -> None:
    answers = iter([4123.0, 3900.0, 3000.0])
    measure = lambda: next(answers)  # noqa: E731
    assert [kept_mhz("A", 2600, measure) for _ in range(3)] == [4100, 4100, 4100]
    assert kept_mhz("B", 2600, measure) == 3900
    (cache / "host_clock.json").write_text('{"model": "B", "shown_mhz"')
    assert kept_mhz("B", 2600, measure) == 3000


@pytest.mark.parametrize("found", [None, 0.0, 500.0, 9000.0])
def test_an_unbelievable_clock_is_no_clock(found: float | None, cache: Path) -> None:
    assert kept_mhz("A", 2600, lambda: found) is None
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file")
    assert kept_mhz("A", 2600, lambda: 2600.0) == 2600


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="its loop is x86 machine code")
def test_the_loop_runs_here() -> None:
    found = measured_mhz()
    assert found is None or 300 < found < 8000


_AMD, _INTEL = "AuthenticAMD", "GenuineIntel"


@pytest.mark.parametrize(
    ("vendor", "family", "model", "core"),
    [(_AMD, "23", "1", "x86-zen1"), (_AMD, "23", "49", "x86-zen2"), (_AMD, "25", "33", "x86-zen3"),
     (_AMD, "25", "17", "x86-zen4"), (_AMD, "26", "2", "x86-zen5"), (_AMD, "26", "36", None), (_AMD, "21", "2", None),
     (_INTEL, "6", "207", "x86-golden-cove"), (_INTEL, "6", "143", "x86-golden-cove"), (_INTEL, "6", "151", None),
     ("HygonGenuine", "24", "1", None), ("", "", "", None)],
)  # fmt: skip
def test_x86_generations(vendor: str, family: str, model: str, core: str | None) -> None:
    assert x86_core({"vendor_id": vendor, "cpu family": family, "model": model}) == core
