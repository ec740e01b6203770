"""Docs that are checked: docs/cli.md is what the commands say, and the commands in the README and the help pages exist."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cli.md"


def help_text(*command: str) -> str:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "TERMINAL_WIDTH": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt", *command, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def commands(*prefix: str) -> list[tuple[str, ...]]:
    """Every command and sub-command, as Typer knows them."""
    from typer.main import get_command

    from edgeopt.cli.app import app

    found: list[tuple[str, ...]] = []

    def walk(command: object, path: tuple[str, ...]) -> None:
        for name, child in sorted(getattr(command, "commands", {}).items()):
            found.append((*path, name))
            walk(child, (*path, name))

    walk(get_command(app), prefix)
    return found


def reference() -> str:
    parts = ["# Command-line reference", "", "Written by `make docs` from the commands themselves.", ""]
    for command in [(), *commands()]:
        parts += [f"## edgeopt {' '.join(command)}".rstrip(), "", "```text", help_text(*command), "```", ""]
    return "\n".join(parts)


def test_the_reference_is_up_to_date(request: pytest.FixtureRequest) -> None:
    page = reference()
    if request.config.getoption("--write-docs"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "docs/cli.md is out of date: run make docs"


def test_help_pages_name_values_as_other_commands_do() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"<(?:str|int|float|path|bool|list)\b[^>]*>", page) == []
    assert re.findall(r"^ Usage: .*\{.*", page, re.MULTILINE) == []


def test_help_pages_are_whole_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut, and a command at the end goes on behind a backslash where it doesn't fit."""
    import typer.rich_utils
    from typer.testing import CliRunner

    from edgeopt.cli.app import app

    monkeypatch.setattr(typer.rich_utils, "MAX_WIDTH", 80)
    for command in commands():
        page = CliRunner().invoke(app, [*command, "--help"], color=False).output
        assert "…" not in page, f"{' '.join(command)}: {[row for row in page.splitlines() if '…' in row]}"
        _, found, end = page.partition("Examples:\n")
        rows = [row.strip() for row in end.splitlines()] if found else []
        continued = [
            row for before, row in itertools.pairwise(rows) if row and not row.startswith("edgeopt ")
            and not before.endswith("\\")
        ]  # fmt: skip
        assert not continued, f"{' '.join(command)}: {continued}"


def test_the_phone_worlds_spelling_is_taken_and_not_shown() -> None:
    from typer.testing import CliRunner

    from edgeopt.cli.app import app

    assert "--num_threads" not in CliRunner().invoke(app, ["bench", "--help"]).output
    done = CliRunner().invoke(
        app, ["bench", "no.tflite", "--num_threads", "2", "--num_runs", "5", "--no-store"]
    )
    assert "no.tflite does not exist" in str(done.exception)  # and not: No such option


def readme_commands() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:console|sh)\n(.*?)```", text, flags=re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("edgeopt ")]


def help_examples() -> list[list[str]]:
    """The commands at the ends of the help pages."""
    from typer.main import get_command

    from edgeopt.cli.app import app

    pages = [command.epilog or "" for command in get_command(app).commands.values()]  # type: ignore[attr-defined]
    lines = [line.strip() for page in pages for line in re.sub(r"\\\n\s*", "", page).splitlines()]
    return [shlex.split(line.partition(" > ")[0]) for line in lines if line.startswith("edgeopt ")]


@pytest.mark.parametrize("command", [*readme_commands(), *help_examples()], ids=" ".join)
def test_the_readme_and_the_help_pages_use_commands_and_options_that_exist(command: list[str]) -> None:
    known = {" ".join(c) for c in commands()}
    words = command[1:]
    name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    assert name in known
    text = help_text(*name.split())
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option in text, f"{name} has no {option}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
