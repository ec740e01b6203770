"""The store: what goes in comes out, many writers lose nothing, other databases work too."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy

from edgeopt.cli.app import main
from edgeopt.cli.measuring import keep
from edgeopt.cli.reporter import Reporter
from edgeopt.errors import EdgeoptError, InputError
from edgeopt.results import store as store_module
from edgeopt.results.records import Record, Run
from edgeopt.results.store import Store, default_path, record_from_json

WRITER = """
import sys
from edgeopt.results.records import Record, Run
from edgeopt.results.store import Store
store = Store(sys.argv[1])
for i in range(int(sys.argv[3])):
    record = Record("latency_ms", float(i), (0.5, 1.5), "measured", f"w{sys.argv[2]}.tflite", "host", 1,
                    {"device": "test"}, samples=((1.0, 2.0),))
    store.add(Run("bench", "many", (record, record)))
"""


def record(value: float = 1.5, **changes: object) -> Record:
    base = {
        "metric": "latency_ms",
        "value": value,
        "ci95": (1.0, 2.0),
        "grade": "measured",
        "artifact": "a.tflite",
        "target": "host",
        "threads": 1,
        "conditions": {"device": "test", "good": True},
        "artifact_sha256": "ab" * 32,
        "samples": ((1.0, 1.5), (2.0,)),
    }
    return Record(**{**base, **changes})  # type: ignore[arg-type]


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/deep/er/r.sqlite")
    run = Run("bench", "a.tflite", (record(), record(7.0, metric="size_bytes", ci95=None)))
    store.add(run)
    assert store.run(run.id) == list(run.records)
    listed = store.history()
    assert [m["metric"] for m in listed] == ["latency_ms", "size_bytes"]
    assert listed[0]["run_id"] == run.id
    assert "samples" not in listed[0]
    with pytest.raises(InputError, match="no run 'rnope'"):
        store.run("rnope")


def test_a_damaged_store_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    file.write_bytes(b"no database at all, but long enough to be taken for the head of one" * 100)
    with pytest.raises(
        EdgeoptError, match=r"r\.sqlite can't be opened: .*it is damaged: restore .* or move it away"
    ):
        Store(f"sqlite:///{file}")
    assert file.stat().st_size  # what is left of it is the user's
    file.unlink()
    store = Store(f"sqlite:///{file}")
    for _ in range(50):
        store.add(Run("bench", "x", (record(),)))
    store.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(EdgeoptError, match="it is damaged"):
        Store(f"sqlite:///{file}").history()


@pytest.mark.parametrize("words", ["", "disk I/O error"])
def test_a_full_disk_under_the_store_is_the_users_to_mend(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In SQLite's own words for it, and in those where it can't lay its shared memory beside the database."""

    def configure(connection: sqlite3.Connection, _record: object) -> None:
        if words:
            raise sqlite3.OperationalError(words)
        connection.execute("PRAGMA page_size=512")
        connection.execute("PRAGMA max_page_count=2")

    monkeypatch.setattr(store_module, "_configure_sqlite", configure)
    monkeypatch.setattr(store_module, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert main(["history", "--store", f"sqlite:///{tmp_path}/r.sqlite"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "r.sqlite can't be opened: its disk is full; free some space, or give another --store." in said
    if words:
        monkeypatch.setattr(store_module, "disk_usage", lambda _: SimpleNamespace(free=10**9))
        assert main(["history", "--store", f"sqlite:///{tmp_path}/r.sqlite"]) == 1


def test_history_reads_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite lays files beside a database that it only reads: a read-only home or a full disk hid all figures."""
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "data"))
    store = Store()
    store.add(Run("bench", "kept", (record(),)))
    store.close()
    monkeypatch.setattr(store_module.os, "access", lambda *_: False)
    before = sorted(tmp_path.rglob("*"))
    assert main(["history", "kept", "--json"]) == 0
    assert [m["artifact"] for m in json.loads(capsys.readouterr().out)["measurements"]] == ["a.tflite"]
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path / "none"))
    assert main(["history"]) == 0 and "nothing stored" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    # What a killed writer left beside the file belongs to it, and can't be read without writing.
    (tmp_path / "data" / "results.sqlite-wal").write_bytes(b"x")
    url = sqlalchemy.make_url(f"sqlite:///{tmp_path}/data/results.sqlite")
    assert store_module._without_writing(url, tmp_path / "data" / "results.sqlite") == (url, False)


def test_figures_stay_when_the_store_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of measuring were lost to a store that a newer edgeopt had written."""
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path))
    Store().close()
    with sqlite3.connect(tmp_path / "results.sqlite") as connection:
        connection.execute("UPDATE edgeopt_meta SET value = '99'")
    reporter = Reporter("bench", quiet=True)
    keep(Run("bench", "x", (record(),)), None, False, reporter)
    (warning,) = reporter.warnings
    assert warning.startswith("the results were not kept: ") and "newer edgeopt" in warning


def test_a_store_whose_making_was_broken_off_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").touch()
    store = Store(f"sqlite:///{tmp_path}/r.sqlite")
    store.add(Run("bench", "x", (record(),)))
    assert len(store.history()) == 1


def test_history_filters(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/r.sqlite")
    store.add(Run("bench", "x", (record(artifact="cat_50%.tflite"),), created_at="2026-01-01T00:00:00+00:00"))
    store.add(Run("bench", "y", (record(artifact="dog.pte", target="emulator"),)))
    assert [m["artifact"] for m in store.history()] == ["dog.pte", "cat_50%.tflite"]
    assert [m["artifact"] for m in store.history(artifact="50%")] == ["cat_50%.tflite"]
    assert store.history(artifact="5_%") == []
    assert [m["artifact"] for m in store.history(target="emulator")] == ["dog.pte"]
    assert [m["artifact"] for m in store.history(since="2026-06-01")] == ["dog.pte"]
    for since in ("2026-01-01", "20260101", "2026-01-01T02:00+02:00", "2026-01-01 00:00:00Z"):
        assert len(store.history(since=since)) == 2, since
    assert len(store.history(since="2026-01-01T00:00:01")) == 1
    for wrong in ("yesterday", "2026-13-01", "x"):
        with pytest.raises(InputError, match="--since takes a date or a time"):
            store.history(since=wrong)
    assert len(store.history(limit=1)) == 1


def test_a_run_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/r.sqlite")
    broken = record(metric=None)
    with pytest.raises(EdgeoptError, match="failed"):
        store.add(Run("bench", "x", (record(), broken)))
    assert store.history() == []


def test_the_data_folder_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEOPT_DATA_DIR", str(tmp_path))
    assert default_path() == tmp_path / "results.sqlite"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGEOPT_DATA_DIR", "~/kept")  # as an env file gives it
    assert default_path() == tmp_path / "kept" / "results.sqlite"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not a database URL"),
        ("oracle+nodriver://x", "not a database URL"),
        ("sqlite:////proc/no/r.sqlite", "folder can't be made"),
    ],
)
def test_wrong_stores_are_one_sentence(url: str, words: str) -> None:
    with pytest.raises(EdgeoptError, match=words):
        Store(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(EdgeoptError, match="can't be opened"):
        Store(f"sqlite:///{tmp_path}/r.sqlite")


def test_a_newer_store_is_not_touched(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path}/r.sqlite").close()
    with sqlite3.connect(tmp_path / "r.sqlite") as connection:
        connection.execute("UPDATE edgeopt_meta SET value = '99'")
    with pytest.raises(InputError, match="newer edgeopt"):
        Store(f"sqlite:///{tmp_path}/r.sqlite")


def test_records_from_json_need_their_keys() -> None:
    with pytest.raises(InputError, match="not a measurement of edgeopt: it has no value, ci95, grade"):
        record_from_json({"metric": "latency_ms"})
    again = record_from_json({**record().as_json(), "unknown": 1})
    assert again == record(samples=())


def write_together(url: str, writers: int, runs: int) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, str(i), str(runs)], stderr=subprocess.PIPE)
        for i in range(writers)
    ]
    for child in children:
        _, err = child.communicate(timeout=120)
        assert child.returncode == 0, err.decode()[-1500:]


@pytest.mark.slow
def test_many_first_writers_lose_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/r.sqlite"
    write_together(url, writers=5, runs=25)
    found = Store(url).history(limit=None)
    assert len(found) == 5 * 25 * 2
    assert len({m["run_id"] for m in found}) == 5 * 25


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_the_store_whole(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/r.sqlite"
    child = subprocess.Popen([sys.executable, "-c", WRITER, url, "0", "100000"])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (tmp_path / "r.sqlite").exists():
        time.sleep(0.1)
    time.sleep(1.5)
    child.kill()
    child.wait()
    found = Store(url).history(limit=None)
    per_run: dict[str, int] = {}
    for m in found:
        per_run[m["run_id"]] = per_run.get(m["run_id"], 0) + 1
    assert set(per_run.values()) <= {2}
    Store(url).add(Run("bench", "after", (record(),)))


def postgres_tools() -> Path | None:
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb")
    if found:
        places.insert(0, Path(found).resolve().parent)
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


@pytest.fixture
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own, run as an ordinary user; its SQLAlchemy URL."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (edgeopt[postgresql])")
    tools = postgres_tools()
    if tools is None:
        pytest.skip("PostgreSQL's server programs are not installed")
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="edgeopt-pg-"))
    prefix: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        import pwd

        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            user = pwd.getpwnam("nobody")
        if not shutil.which("setpriv"):
            pytest.skip("running as root without setpriv: PostgreSQL refuses root")
        os.chown(folder, user.pw_uid, user.pw_gid)
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    data = folder / "data"
    initdb = [*prefix, str(tools / "initdb"), "-D", str(data), "-A", "trust", "-U", "edgeopt", "-N"]
    made = subprocess.run(initdb, capture_output=True, text=True, check=False, cwd=folder)
    if made.returncode:
        pytest.skip(f"initdb failed here: {made.stderr[-300:]}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*prefix, str(tools / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"postgresql+psycopg://edgeopt@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_postgresql_keeps_what_many_write_at_once(postgresql: str) -> None:
    write_together(postgresql, writers=4, runs=15)
    store = Store(postgresql)
    found = store.history(limit=None)
    assert len(found) == 4 * 15 * 2
    run = Run("bench", "x", (record(),))
    store.add(run)
    assert store.run(run.id) == [record()]
    store.close()


def test_a_password_is_not_shown() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed (edgeopt[postgresql])")
    with pytest.raises(EdgeoptError) as caught:
        Store("postgresql+psycopg://user:secret@127.0.0.1:9/none")
    assert "secret" not in str(caught.value)
