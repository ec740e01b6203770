"""``edgeopt profiles``: its output, its exit codes, and how little it loads."""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgeopt.cli import main
from edgeopt.cli.profiles import _draw_clusters, _draw_list
from edgeopt.device_profiles import catalog, list_profiles, load_profile

PIXEL7 = catalog.BUILTIN_FOLDER / "pixel7.toml"

# Everything that is not the standard library and may be loaded. Typer parses options with pydantic.
ALLOWED_FOR_HELP = {"annotated_doc", "edgeopt", "shellingham", "typer"}
ALLOWED_FOR_HELP |= {"markdown_it", "mdurl", "pygments", "rich"}
TYPER_PARSES_WITH = {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"}
ALLOWED_FOR_PROFILES = ALLOWED_FOR_HELP | TYPER_PARSES_WITH | {"platformdirs"}

LIST_MODULES = """
import contextlib, io, json, sys
before = {name.partition(".")[0] for name in sys.modules}
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    with contextlib.suppress(SystemExit):
        exec(sys.argv[1])
after = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before - set(sys.stdlib_module_names))))
"""


@pytest.fixture(autouse=True)
def plain(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that ``statement`` brings into a fresh interpreter, not the standard library's."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, statement],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    names: list[str] = json.loads(done.stdout)
    # attr is looked for by rich's pretty printer; _sysconfigdata is the standard library's, by another name.
    return {name for name in names if not name.startswith("_sysconfigdata") and name != "attr"}


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = main([*arguments, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


# What is loaded, and how long it takes


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by("from edgeopt.cli import main; main(['--help'])") <= ALLOWED_FOR_HELP


@pytest.mark.parametrize(
    "arguments", [["profiles"], ["profiles", "list", "--json"], ["profiles", "show", "pixel7"]]
)
def test_profiles_load_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(f"from edgeopt.cli import main; main({arguments!r})") <= ALLOWED_FOR_PROFILES


def test_listing_needs_no_pydantic() -> None:
    loaded = loaded_by("from edgeopt.device_profiles import list_profiles; list_profiles()")
    assert loaded <= {"edgeopt", "platformdirs"}


def test_importing_the_folder_loads_no_other_module() -> None:
    code = "import edgeopt.device_profiles, sys; print([m for m in sys.modules if m.startswith('edgeopt.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['edgeopt.device_profiles']"


@pytest.mark.parametrize("arguments", [["--help"], ["profiles"]])
def test_starts_quickly(arguments: list[str]) -> None:
    """About 0.4 s on a quiet machine; the limit leaves room for a loaded one, not for torch (5 s)."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "edgeopt", *arguments], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 2.5


# Listing


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, envelope, err = run_json(capsys, "profiles")
    assert (code, err) == (0, "")
    assert envelope["ok"] is True and envelope["schema_version"] == 1 and envelope["command"] == "profiles"
    by_name = {entry["name"]: entry for entry in envelope["profiles"]}
    assert by_name["pixel7"] == {
        "name": "pixel7",
        "title": "Google Pixel 7",
        "kind": "phone",
        "big_cores": "2x cortex-x1 2.85 GHz",
        "isa": ["neon", "fp16", "dotprod"],
        "ram_mib": 8192,
        "origin": "built-in",
        "path": str(PIXEL7),
    }
    assert len(by_name) >= 15
    assert run_json(capsys, "profiles", "list")[1]["profiles"] == envelope["profiles"]


def test_list_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    captured = capsys.readouterr()
    row = next(line for line in captured.out.splitlines() if line.startswith("pixel7 "))
    assert " ".join(row.split()) == "pixel7 2x x1 2.85 GHz dotprod fp16 8 GiB built-in Google Pixel 7"
    assert "edgeopt profiles show NAME" in captured.err
    assert main(["profiles", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_narrow_list_keeps_names_and_instructions(width: int) -> None:
    """What decides about a file's speed was the first to go, without a word, and names were cut."""
    entries = [entry for entry in list_profiles() if entry.origin == "built-in" and entry.name != "host"]
    out = io.StringIO()
    _draw_list(Console(file=out, force_terminal=True, color_system=None, width=width), entries)
    lines = out.getvalue().splitlines()
    assert len(lines) == len(entries) + 1 and max(map(len, map(str.rstrip, lines))) <= width
    row = next(line for line in lines if line.startswith("raspberry_pi_zero_2w "))
    assert "4x a53 1.00 GHz" in row and "neon only" in row
    assert ("512 MiB" in row) is (width >= 80) and ("Raspberry Pi Zero 2 W" in row) is (width == 200)
    clusters = io.StringIO()
    _draw_clusters(
        Console(file=clusters, force_terminal=True, color_system=None, width=width), load_profile("pixel7")
    )
    row = next(line for line in clusters.getvalue().splitlines() if line.startswith("cortex-x1 "))
    assert "2850 MHz" in row and "neon fp16 dotprod" in row


def test_a_broken_user_profile_is_a_warning(capsys: pytest.CaptureFixture[str], user_folder: Path) -> None:
    (user_folder / "broken.toml").write_text("name = ")
    code, envelope, _ = run_json(capsys, "profiles")
    assert code == 0
    assert len(envelope["warnings"]) == 1 and "broken.toml: not valid TOML" in envelope["warnings"][0]
    assert "broken" not in {entry["name"] for entry in envelope["profiles"]}


# Showing


def test_show_prints_every_figure_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "pixel7"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Google Pixel 7  (pixel7, phone, arm64)\n")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "8192 MiB" in lines["memory.ram_mib"] and "Google Pixel 7 specification" in lines["memory.ram_mib"]
    assert (
        "51.2 GB/s" in lines["memory.bandwidth_gb_s"]
        and "estimate: theoretical" in lines["memory.bandwidth_gb_s"]
    )
    assert "3269 mW" in lines["power.active_mw_per_core.2"]
    assert "known bad" in lines["tpu"] and "-cpu cortex-a76" in lines["emulator"]


@pytest.mark.parametrize("name", sorted(path.stem for path in catalog.BUILTIN_FOLDER.glob("*.toml")))
def test_every_profile_can_be_shown(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["profiles", "show", name]) == 0
    out = capsys.readouterr().out
    code, envelope, _ = run_json(capsys, "profiles", "show", name)
    assert code == 0
    assert envelope["profile"]["name"] == name
    assert envelope["profile"]["fingerprint"][:16] in out


def test_json_may_stand_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "--json", "show", "pixel7"]) == 0
    assert json.loads(capsys.readouterr().out)["command"] == "profiles show"


def test_brackets_in_a_profile_are_not_markup(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text('extends = "pixel7"\ntitle = "[red]odd[/red] [/]"\nnotes = "[bold]"\n')
    assert main(["profiles", "show", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("[red]odd[/red] [/]  (odd, phone, arm64)") and "[bold]" in out


def test_unknown_profile_exits_2_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "pixel77"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: unknown profile 'pixel77'; did you mean pixel7")
    assert captured.err.count("\n") == 1
    code, envelope, _ = run_json(capsys, "profiles", "show", "pixel77")
    assert code == 2 and envelope["ok"] is False and "did you mean pixel7" in envelope["errors"][0]


# Validating


def test_validate_warns_of_a_core_without_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(PIXEL7.read_text().replace('"cortex-x1"', '"cortex-x99"'))
    code, envelope, _ = run_json(capsys, "profiles", "validate", str(path))
    assert code == 0
    assert (
        len(envelope["warnings"]) == 1
        and "cortex-x99 isn't known to the cost model" in envelope["warnings"][0]
    )
    assert not run_json(capsys, "profiles", "validate", str(PIXEL7))[1]["warnings"]


def test_validate_refuses_what_estimates_refuse(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A memory in TB/s was "valid", and every estimate for it ended with exit code 2."""
    file = tmp_path / "mine.toml"
    file.write_text(PIXEL7.read_text().replace("bandwidth_gb_s = 51.2", "bandwidth_gb_s = 0.0512"))
    assert main(["profiles", "validate", str(file)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "memory.bandwidth_gb_s is 0.0512, less than a hundredth of what one of its cores alone" in said


def test_validate_a_good_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "validate", str(PIXEL7)]) == 0
    assert "pixel7.toml: valid (pixel7: " in capsys.readouterr().out
    code, envelope, _ = run_json(capsys, "profiles", "validate", str(PIXEL7))
    assert code == 0
    assert 0 < envelope["estimates"] < envelope["figures"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "max_mhz = 2850",
            "max_mhz = -2850",
            "max_mhz is -2850; allowed: a number of MHz, at least 1",
        ),
        ("[os]", "[os", "not valid TOML"),
        ("vendor =", "vender =", "vender is not a known key; did you mean vendor?"),
    ],
)
def test_validate_a_bad_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, old: str, new: str, expected: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(PIXEL7.read_text().replace(old, new))
    assert main(["profiles", "validate", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"error: {path}: " in captured.err and expected in captured.err
    assert "Traceback" not in captured.err


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show"]) == 2
    assert main(["profiles", "nonsense"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_colour_codes_into_a_pipe() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    command = [sys.executable, "-m", "edgeopt", "profiles", "show", "pixel7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "\x1b" not in done.stdout + done.stderr
