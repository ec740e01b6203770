"""The ssh target against a real OpenSSH server on loopback."""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from device_standins import OpenSshServer, fake_payload
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.android_harness.remote import DeviceError, new_folder
from edgeopt.android_harness.ssh import SshTarget, configured_hosts, parse_address
from edgeopt.errors import EdgeoptError, InputError
from edgeopt.results.artifacts import Artifact
from edgeopt.results.device_bench import DeviceBenchOptions, bench_on_devices

AWKWARD = "a b'c\"d$(touch hacked)`touch hacked`\\ \n;é&|>*"


def board(server: OpenSshServer, **options: object) -> SshTarget:
    settings = {
        "config": server.config,
        "known_hosts": server.known_hosts,
        "client_keys": (server.folder / "user_key",),
        **options,
    }
    return SshTarget(f"{getpass.getuser()}@127.0.0.1:{server.port}", **settings)  # type: ignore[arg-type]


def test_exit_code_streams_and_environment(ssh_server: OpenSshServer) -> None:
    target = board(ssh_server)
    done = target.execute(
        ["sh", "-c", 'echo "$A"; echo err >&2; exit 7'], timeout_s=20, environment={"A": AWKWARD}
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, AWKWARD + "\n", "err\n")
    assert target.execute(["sh", "-c", "kill -9 $$"], timeout_s=20).returncode == 137
    target.close()


def test_files_travel_whole_under_any_name(ssh_server: OpenSshServer, tmp_path: Path) -> None:
    target, folder = board(ssh_server), new_folder(str(tmp_path))
    (tmp_path / "data").write_bytes(os.urandom(700_001))
    target.push(tmp_path / "data", f"{folder}/deep er/{AWKWARD}")
    target.pull(f"{folder}/deep er/{AWKWARD}", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "data").read_bytes()
    target.remove(folder)
    assert not Path(folder).exists() and not list(tmp_path.rglob("hacked"))
    with pytest.raises(InputError, match="not in a folder that edgeopt made"):
        target.remove(str(tmp_path))
    target.close()


def test_a_hanging_command_and_a_reset_connection(ssh_server: OpenSshServer) -> None:
    target = board(ssh_server)
    with pytest.raises(DeviceError, match=r"did not finish within 0\.5 s"):
        target.execute(["sleep", "30"], timeout_s=0.5)
    ssh_server.stop()
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"refuses connections|was lost") as caught:
        target.execute(["echo"], timeout_s=20)
    assert caught.value.kind == "lost" and time.monotonic() - started < 15
    assert not target.wait_back(0.2)
    ssh_server.start()
    assert target.wait_back(20)
    assert target.execute(["echo", "again"], timeout_s=20).stdout == "again\n"
    target.close()


def test_an_unknown_key_is_refused_unless_accepted_and_a_changed_one_always(
    ssh_server: OpenSshServer,
) -> None:
    known = ssh_server.known_hosts.read_text()
    ssh_server.known_hosts.write_text("")
    refusing = board(ssh_server)
    with pytest.raises(DeviceError, match=r"host key that isn't known.*--accept-host-key"):
        refusing.execute(["echo"], timeout_s=20)
    assert ssh_server.known_hosts.read_text() == ""
    accepting = board(ssh_server, accept_host_key=True)
    assert accepting.execute(["echo", "5"], timeout_s=20).stdout == "5\n"
    assert ssh_server.known_hosts.read_text() == known
    again = board(ssh_server)
    assert again.execute(["echo", "6"], timeout_s=20).stdout == "6\n"
    other = (ssh_server.folder / "user_key.pub").read_text().split()
    ssh_server.known_hosts.write_text(f"[127.0.0.1]:{ssh_server.port} {other[0]} {other[1]}\n")
    changed = board(ssh_server, accept_host_key=True)
    with pytest.raises(DeviceError, match="shows another host key"):
        changed.execute(["echo"], timeout_s=20)
    for target in (refusing, accepting, again, changed):
        target.close()


def test_a_refused_login_says_what_to_check(ssh_server: OpenSshServer) -> None:
    target = board(ssh_server, client_keys=(ssh_server.folder / "host_key",))
    with pytest.raises(DeviceError, match="refused the login") as caught:
        target.execute(["echo"], timeout_s=30)
    assert caught.value.kind == "unusable"
    target.close()


def test_names_of_the_configuration_work(ssh_server: OpenSshServer) -> None:
    ssh_server.config.write_text(
        f"Host pi4 other?\n  HostName 127.0.0.1\n  Port {ssh_server.port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {ssh_server.folder}/user_key\nHost *.lan !x\n  User nobody\n"
    )
    assert configured_hosts(ssh_server.config) == ["pi4"]
    target = SshTarget("pi4", config=ssh_server.config, known_hosts=ssh_server.known_hosts)
    assert target.execute(["echo", "named"], timeout_s=20).stdout == "named\n"
    target.close()


def test_a_key_of_the_configuration_that_is_missing_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host pi4\n  HostName 127.0.0.1\n  Port 1\n  IdentityFile {tmp_path}/lost_key\n")
    target = SshTarget("pi4", config=config, known_hosts=tmp_path / "known")
    with pytest.raises(
        DeviceError, match="lost_key, which the ssh configuration names, can't be read"
    ) as caught:
        target.execute(["echo"], timeout_s=5)
    assert caught.value.kind == "unusable"
    target.close()


def test_a_server_that_takes_the_connection_and_never_speaks_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgeopt.android_harness.ssh._CONNECT_S", 0.5)
    monkeypatch.setattr("edgeopt.android_harness.device_session._CONTACT_WAIT_S", 0.5)
    (tmp_path / "model.tflite").write_bytes(b"model")
    device = DeviceBenchOptions(make_payload=lambda runtime: fake_payload(tmp_path), recover_s=20.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = SshTarget(f"me@127.0.0.1:{silent.getsockname()[1]}", config=tmp_path / "none")
        with pytest.raises(DeviceError, match="took the connection but logged nobody in") as caught:
            bench_on_devices(
                [target], [Artifact(tmp_path / "model.tflite", "model.tflite", "tflite")],
                MeasureOptions(), device,
            )  # fmt: skip
        assert caught.value.kind == "lost"
        silent.settimeout(0.2)
        silent.accept()[0].close()
        with pytest.raises(TimeoutError):  # no second connection stands in the queue
            silent.accept()


@pytest.mark.parametrize("given_runner", [True, False])
def test_the_runner_is_looked_at_before_the_device(
    given_runner: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "no toolchain here"))
    (tmp_path / "model.tflite").write_bytes(b"model")
    target = SshTarget("me@127.0.0.1:1")
    monkeypatch.setattr(target, "facts", lambda: pytest.fail("the device was asked"))
    runner = tmp_path / "benchmark_model" if given_runner else None
    sentence = (
        "benchmark_model can't be read" if given_runner else "is not set up; run: edgeopt emulator setup"
    )
    with pytest.raises(EdgeoptError, match=sentence):
        bench_on_devices(
            [target], [Artifact(tmp_path / "model.tflite", "model.tflite", "tflite")],
            MeasureOptions(), DeviceBenchOptions(runner=runner),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pi@board", ("pi", "board", None)),
        ("board", (None, "board", None)),
        ("pi@10.0.0.7:2222", ("pi", "10.0.0.7", 2222)),
        ("pi@[fe80::1]:22", ("pi", "fe80::1", 22)),
        ("[::1]", (None, "::1", None)),
    ],
)
def test_addresses(text: str, parts: tuple[str | None, str, int | None]) -> None:
    assert parse_address(text) == parts


@pytest.mark.parametrize(
    "text", ["", "@board", "pi@", "-oProxyCommand=x", "a b", "pi@b:0", "pi@b:99999", "pi@b:x"]
)
def test_wrong_addresses_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not an address"):
        parse_address(text)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        _, host, port = parse_address(text)
    except InputError:
        return
    assert host and not host.startswith("-") and (port is None or 0 < port < 65536)


def test_without_a_configuration_there_are_no_hosts(tmp_path: Path) -> None:
    assert configured_hosts(tmp_path / "none") == []


def test_a_connection_reset_in_the_middle_is_survived(
    ssh_server: OpenSshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd and all its children are killed while the runner runs, and come back."""
    monkeypatch.setenv("EDGEOPT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("edgeopt.android_harness.device_facts.DeviceFacts.problem", lambda self: None)
    monkeypatch.setattr("edgeopt.android_harness.device_facts._emulation", lambda *facts: None)
    target = board(ssh_server)
    monkeypatch.setattr(target, "base_folder", lambda: str(tmp_path))
    started = tmp_path / "started"
    payload = fake_payload(
        tmp_path, f"n=$(cat '{started}' 2>/dev/null | wc -l); echo >> '{started}'; [ $n = 1 ] && sleep 5"
    )
    (tmp_path / "m.tflite").write_bytes(b"x")
    np.savez(tmp_path / "in.npz", image=np.zeros(4, np.float32))

    def reset() -> None:
        while not started.exists() or len(started.read_text()) < 2:
            time.sleep(0.02)
        ssh_server.stop()
        ssh_server.start()

    thread = threading.Thread(target=reset)
    thread.start()
    options = MeasureOptions(processes=2, max_time_s=0.1, num_runs=8, inputs=tmp_path / "in.npz")
    device = DeviceBenchOptions(make_payload=lambda runtime: payload, compare_with_host=False, recover_s=20.0)
    result, _ = bench_on_devices(
        [target], [Artifact(tmp_path / "m.tflite", "m.tflite", "tflite")], options, device
    )
    thread.join()
    assert not result.failures
    assert len([r for r in result.run.records if r.metric == "latency_ms"]) == 1
    assert not list(tmp_path.glob("edgeopt-run-*"))
