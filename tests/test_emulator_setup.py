"""The emulator's toolchain: fetched without root, whole or not at all, by one process at a time."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from edgeopt.android_harness.emulator import build, cpu, debian, toolchain, wheels
from edgeopt.android_harness.emulator.cache import cache_dir, locked, read_json, replacing, write_json
from edgeopt.device_profiles import load_profile
from edgeopt.errors import EdgeoptError, InputError


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path / "emulator"


def test_a_missing_toolchain_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path))
    with pytest.raises(EdgeoptError, match="run: edgeopt emulator setup"):
        toolchain.load()


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeoptError, match="EDGEOPT_CACHE_DIR"), locked(tmp_path / "file" / "emulator"):
        pass


def test_replacing_leaves_the_old_folder_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "host"
    with replacing(target) as fresh:
        (fresh / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as fresh:
        (fresh / "a").write_text("new")
        raise ZeroDivisionError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["host"]


def test_a_broken_manifest_reads_as_empty(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    assert read_json(tmp_path / "manifest.json") == {}
    write_json(tmp_path / "manifest.json", {"a": 1})
    assert read_json(tmp_path / "manifest.json") == {"a": 1}


def test_the_lock_holds_a_second_process_back(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from edgeopt.android_harness.emulator.cache import locked\n"
        "with locked(Path(sys.argv[1])): print(time.monotonic(), flush=True)\n"
    )
    with locked(tmp_path):
        other = subprocess.Popen(
            [sys.executable, "-P", "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        time.sleep(1.0)
        released = time.monotonic()
    out, _ = other.communicate(timeout=30)
    assert float(out) >= released


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", "deb http://mirror.example/debian bookworm main\n"),
        (
            "sources.list.d/debian.sources",
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n",
        ),
    ],
)
def test_the_mirror_is_the_machines_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str
) -> None:
    monkeypatch.delenv("EDGEOPT_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr(debian, "SOURCE_FOLDER", tmp_path)
    monkeypatch.setattr(debian.shutil, "which", lambda program: f"/usr/bin/{program}")
    (tmp_path / "sources.list.d").mkdir()
    with pytest.raises(EdgeoptError, match="EDGEOPT_DEBIAN_MIRROR"):
        debian.mirror()
    (tmp_path / name).write_text(text)
    assert debian.mirror() == "http://mirror.example/debian"


def test_a_machine_without_apt_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda program: None)
    with pytest.raises(EdgeoptError, match="Debian 12 machine or container"):
        debian.mirror()


def test_what_a_killed_download_left_is_not_taken_for_the_archive(tmp_path: Path) -> None:
    content = b"archive" * 1000
    package = debian.Package("a", "a_1_all.deb", f"md5:{hashlib.md5(content).hexdigest()}")
    assert not package.is_whole(tmp_path / package.file)
    (tmp_path / package.file).write_bytes(content[:100])
    assert not package.is_whole(tmp_path / package.file)
    (tmp_path / package.file).write_bytes(content)
    assert package.is_whole(tmp_path / package.file)


def _wheel(path: Path, content: bytes, recorded: bytes) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(recorded).digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ai_edge_litert/libLiteRt.so", content)
        archive.writestr("ai_edge_litert/unwanted.so", b"x")
        archive.writestr("a-1.dist-info/RECORD", f"ai_edge_litert/libLiteRt.so,sha256={digest},1\n")


def test_wheels_are_unpacked_in_part_and_checked(tmp_path: Path) -> None:
    sdk = next(sdk for sdk in wheels.SDKS if sdk.runtime == "litert")
    _wheel(tmp_path / "good.whl", b"library", b"library")
    wheels.extract(sdk, tmp_path / "good.whl", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").rglob("*.so")] == ["libLiteRt.so"]
    _wheel(tmp_path / "bad.whl", b"tampered", b"library")
    with pytest.raises(EdgeoptError, match=r"bad\.whl is damaged and was removed"):
        wheels.extract(sdk, tmp_path / "bad.whl", tmp_path / "out")
    assert not (tmp_path / "bad.whl").exists()
    (tmp_path / "torn.whl").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(EdgeoptError, match="damaged"):
        wheels.extract(sdk, tmp_path / "torn.whl", tmp_path / "out")


@pytest.mark.parametrize(
    ("core", "isa", "expected"),
    [
        ("cortex-a53", ["neon"], "cortex-a53"),
        ("cortex-a72", ["neon"], "cortex-a72"),
        ("cortex-a73", ["neon"], "cortex-a72"),
        ("cortex-a55", ["neon", "fp16", "dotprod"], "cortex-a76"),
        ("cortex-x1", ["neon", "fp16", "dotprod"], "cortex-a76"),
        ("cortex-a510", ["neon", "fp16", "dotprod", "i8mm"], "max,sme=off,sve=off"),
        ("cortex-x3", ["neon", "fp16", "dotprod", "i8mm", "sve", "sve2"], "max,sme=off,sve128=on"),
    ],
)
def test_the_qemu_cpu_follows_the_isa(core: str, isa: list[str], expected: str) -> None:
    assert cpu.qemu_cpu_for(core, isa) == expected


def test_sme_is_never_on() -> None:
    assert cpu.safe_qemu_cpu("max") == "max,sme=off"
    assert cpu.safe_qemu_cpu("max,sve=off") == "max,sme=off,sve=off"
    assert cpu.safe_qemu_cpu("max,sme=off") == "max,sme=off"


def test_the_guest_sees_one_cluster_of_the_profile(tmp_path: Path) -> None:
    profile = load_profile("pixel7")
    shown = cpu.cpu_of(profile)
    cpu.write_identity(shown, tmp_path)
    text = (tmp_path / "proc/cpuinfo").read_text()
    assert text.count("processor\t") == 2
    assert text.count("CPU part\t: 0xd44") == 2  # Cortex-X1
    assert "asimddp" in text and "i8mm" not in text
    assert (tmp_path / "sys/devices/system/cpu/possible").read_text() == "0-1\n"
    with pytest.raises(InputError, match="clusters 0 to 2"):
        cpu.cpu_of(profile, 3)


def test_features_that_differ_are_named() -> None:
    shown = cpu.cpu_of(load_profile("pixel7"))
    assert shown.unexpected_features(["neon", "fp16", "dotprod"]) == []
    assert shown.unexpected_features(["neon", "fp16", "i8mm"]) == [
        "dotprod is missing",
        "i8mm is there and must not be",
    ]


def _setup_process(folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeopt", "emulator", "setup", "--json"],
        env={**os.environ, "EDGEOPT_CACHE_DIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo usage: qemu-aarch64 -cpu model", "no -plugin option"),
        ("echo libcapstone.so.4: cannot open >&2; exit 127", "libcapstone"),
    ],
)
def test_a_qemu_that_takes_no_plugin_is_refused(tmp_path: Path, script: str, words: str) -> None:
    program = tmp_path / "host" / "usr" / "bin" / "qemu-aarch64"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(EdgeoptError, match=words):
        toolchain.qemu_version(toolchain.Toolchain(tmp_path, {}))


def test_another_litert_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EdgeoptError, match=r"ai-edge-litert 9\.0\.0 is not one"):
        build.build_all(tmp_path, tmp_path, Path("gcc"), {"litert": {"version": "9.0.0"}})


def _path_without_compilers(folder: Path) -> str:
    """A PATH with every program of this machine but compilers, assemblers and linkers."""
    hidden = re.compile(r".*gcc.*|.*g\+\+.*|.*clang.*|c\+\+|c[c89]+|as|ld.*|x86_64-.*")
    folder.mkdir()
    for place in dict.fromkeys(str(Path(entry).resolve()) for entry in os.environ["PATH"].split(":")):
        for program in Path(place).glob("*"):
            if not hidden.fullmatch(program.name) and not os.path.lexists(folder / program.name):
                (folder / program.name).symlink_to(program)
    return str(folder)


@pytest.mark.slow
@pytest.mark.emulator
@pytest.mark.network
def test_from_nothing_killed_resumed_twice_at_once_then_offline(tmp_path: Path) -> None:
    killed = _setup_process(tmp_path)
    while not list(tmp_path.glob("emulator/downloads/*.deb")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "emulator/manifest.json").exists()

    # On a machine without any compiler, which then comes along as well.
    bare = _path_without_compilers(tmp_path / "bin")
    both = [_setup_process(tmp_path, PATH=bare) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err

    # No mirror, no index, no apt: nothing is fetched any more.
    started = time.monotonic()
    offline = _setup_process(
        tmp_path, EDGEOPT_DEBIAN_MIRROR="http://127.0.0.1:1/debian", PIP_NO_INDEX="1", PATH=str(tmp_path)
    )
    out, err = offline.communicate(timeout=60)
    assert offline.returncode == 0, out + err
    assert time.monotonic() - started < 20

    # A damaged file is noticed, and the next set-up mends it from what was downloaded.
    runner = tmp_path / "emulator/programs/litert_runner"
    runner.write_bytes(b"short")
    status = subprocess.run(
        [sys.executable, "-P", "-m", "edgeopt", "emulator", "status"],
        env={**os.environ, "EDGEOPT_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert status.returncode == 1 and "edgeopt emulator setup" in status.stderr
    mended = _setup_process(tmp_path, EDGEOPT_DEBIAN_MIRROR="http://127.0.0.1:1/debian", PIP_NO_INDEX="1")
    out, err = mended.communicate(timeout=300)
    assert mended.returncode == 0, out + err
    assert runner.stat().st_size > 10_000
