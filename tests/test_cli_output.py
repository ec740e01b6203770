"""What stands on stdout and what on stderr, and that nothing else does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeopt.cli import main

HERE = Path(__file__).parent


def test_json_holds_the_result_alone(tmp_path: Path) -> None:
    """The user's module prints when it is imported and when it runs; stdout is still one JSON object."""
    (tmp_path / "noisy.py").write_text(
        "import torch\n"
        "print('importing')\n"
        "class Noisy(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        print('running')\n"
        "        return x * 2\n"
        "def net():\n"
        "    print('making')\n"
        "    return Noisy()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt", "export", "noisy:net", "--profile", "pixel7", "--precision", "fp32",
         "--input-shape", "x:float32[1,4]", "--dry-run", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["command"] == "export"


@pytest.mark.parametrize(
    "arguments",
    [
        ["profiles"],
        ["profiles", "show", "pixel7"],
        ["profiles", "validate", "pixel7"],
        ["doctor"],
        ["history"],
    ],
)
def test_every_json_has_the_one_shape(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main([*arguments, "--json"])
    out = json.loads(capsys.readouterr().out)
    assert out["schema_version"] == 1
    assert {"command", "ok", "warnings", "errors"} <= set(out)
    documented = (HERE.parent / "docs" / "json.md").read_text(encoding="utf-8")
    assert [key for key in out if f"`{key}`" not in documented and f'"{key}"' not in documented] == []


def test_an_unknown_command_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exprot"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "exprot" in err


@pytest.mark.parametrize(
    ("arguments", "page"),
    [
        (["exprot", "x"], "edgeopt"),
        (["profiles", "shwo"], "edgeopt profiles"),
        (["profiles", "show"], "edgeopt profiles show"),
        (["bench", "--nope"], "edgeopt bench"),
        (["--nope"], "edgeopt"),
    ],
)
def test_a_typo_is_sent_to_a_help_page_that_exists(
    arguments: list[str], page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.strip().endswith(f"(see {page} --help)")


@pytest.mark.parametrize("arguments", [[], ["emulator"]])
def test_a_group_alone_shows_its_help_without_an_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert "Commands" in shown.out and not shown.err


def test_help_names_arguments_in_capitals_and_gives_flags_no_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--help"]) == 0
    page = capsys.readouterr().out
    assert (
        " BUNDLE " in page
        and "{" not in page
        and "<bool>" not in page
        and "edgeopt verify net_pixel7" in page
    )


def test_no_colour_in_a_pipe_or_when_asked_not_to() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt", "doctor"], capture_output=True, text=True, check=False
    )
    assert "\x1b" not in done.stdout


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("edgeopt ")


@pytest.mark.parametrize("width", [50, 60, 80, 200])
def test_a_narrow_table_keeps_its_figures_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from rich.console import Console

    from edgeopt.cli.measuring import draw_table

    monkeypatch.delenv("NO_COLOR", raising=False)
    row = {
        "file": "model.int8-dynamic.tflite", "threads": "1", "latency": "0.0765 ms", "80% band": "0.0500 to 0.14",
        "memory": "3.54 MiB", "energy": "0.25 mJ", "grade": "predicted",
    }  # fmt: skip
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, color_system=None, width=width)
    draw_table(terminal, [row], list(row), spare=("energy", "memory"))
    table = out.getvalue()
    assert "0.0765 ms" in table and "0.0500 to 0.14" in table and "…" not in table
    assert ("0.25 mJ" in table) is (width == 200) and max(map(len, table.splitlines())) <= width
    pipe = io.StringIO()
    draw_table(Console(file=pipe, width=width), [row], list(row), spare=("energy", "memory"))
    assert "model.int8-dynamic.tflite        1  0.0765 ms" in pipe.getvalue() and "0.25 mJ" in pipe.getvalue()


@pytest.mark.parametrize("command", ["analyze", "optimize"])
def test_no_gate_is_promised_where_there_is_none(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--help"])
    page = capsys.readouterr().out
    assert "--eval" in page and "Gates" not in page


def test_every_time_of_a_bench_has_its_unit() -> None:
    from edgeopt.results.tables import heading

    assert [heading(column) for column in ("latency", "p90", "first", "load")] == [
        "latency ms (95%)", "p90 ms", "first run ms", "load ms",
    ]  # fmt: skip


def test_a_dumb_terminal_gets_plain_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """It got one empty line and never heard what is done."""
    import io

    from rich.console import Console

    from edgeopt.cli import reporter

    monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    monkeypatch.setattr(reporter, "console", lambda **_: Console(file=out, force_terminal=True))
    with reporter.Reporter("bench").progress() as progress:
        progress("model.pte, 1 thread", 0.5)
    assert out.getvalue() == "  model.pte, 1 thread\n"


@pytest.mark.parametrize(
    "command", ["bench", "export", "analyze", "compare", "emulator run", "profiles calibrate"]
)
def test_a_narrow_help_page_names_every_option_whole(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 60 columns there was a --cpu-affini… and a --require-full-dele…."""
    monkeypatch.setenv("COLUMNS", "60")
    assert main([*command.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert "…" not in page
    if command == "bench":
        assert "--cpu-affinity TEXT" in page and "\n  edgeopt bench net_pixel7 --on adb\n" in page
