"""The command line where its surroundings are hostile: encodings, full or closed outputs, code that exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeopt.cli.app import main


def _run(
    *arguments: str, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "edgeopt", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_characters_gets_their_nearest(encoding: str) -> None:
    done = _run("profiles", "show", "pixel7", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "MHz" in done.stdout.decode(encoding)
    done = _run("profiles", "show", "pixel7", "--json", PYTHONIOENCODING=encoding)
    same = _run("profiles", "show", "pixel7", "--json", PYTHONIOENCODING="utf-8")
    assert json.loads(done.stdout.decode(encoding)) == json.loads(same.stdout)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_result_that_cannot_be_written_is_a_sentence(form: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = _run("profiles", "list", *form, stdout=full.fileno())
    assert done.returncode == 2
    assert b"is full" in done.stderr and b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_failure_of_ours() -> None:
    read, write = os.pipe()
    os.close(read)
    done = _run("profiles", "show", "pixel7", "--json", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("code", ["0", "7", "'enough'"])
def test_code_that_exits_does_not_pass_for_success(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "quits.py").write_text(f"import sys\nsys.exit({code})\n")
    assert main(["export", f"{tmp_path}/quits.py:net", "--profile", "pixel7", "--dry-run", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert f"quits.py:2 ended the command with sys.exit({code})" in found["errors"][0]


def test_no_memory_left_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("edgeopt.device_profiles.list_profiles", none_left)
    assert main(["profiles"]) == 1
    assert capsys.readouterr().err.startswith("error: the memory is used up")
    monkeypatch.setattr("edgeopt.cli.app.print_error", none_left)
    assert main(["profiles"]) == 1
    assert capsys.readouterr().err.startswith("error: the memory is used up")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such names")
def test_a_path_that_is_not_utf8_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xe9t"))
    folder.mkdir()
    (folder / "model.tflite").write_bytes(b"TFL3" * 20)
    net = f"{Path(__file__).parent}/sample_models.py:net"
    for command in (
        ["bench", f"{folder}/model.tflite"],
        ["export", net, "--profile", "pixel7", "-o", f"{folder}/b"],
    ):
        assert main([*command, "--json"]) == 2
        out = capsys.readouterr().out
        assert "is not UTF-8" in json.loads(out.encode())["errors"][0]


@pytest.mark.parametrize(
    ("ask", "arguments", "answer"),
    [
        ({"_EDGEOPT_COMPLETE": "complete_bash", "COMP_WORDS": "edgeopt ben", "COMP_CWORD": "1"}, [], "bench"),
        (
            {"_EDGEOPT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "edgeopt bench --num-th"}, [],
            "--num-threads",
        ),
        ({}, ["--show-completion", "bash"], "complete -o default"),
        ({}, ["--install-completion", "bash"], "completion installed"),
    ],
)  # fmt: skip
def test_shell_completion_answers_and_says_nothing_else(
    ask: dict[str, str], arguments: list[str], answer: str, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        **ask,
        "HOME": str(tmp_path),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert answer in done.stdout
