"""``edgeopt doctor``: what is installed, what is missing, what each missing thing would enable."""

from __future__ import annotations

from typing import Any

import typer

from .options import Json, Quiet, Verbose
from .reporter import Reporter


def register(app: typer.Typer) -> None:
    """Attach the command to the ``edgeopt`` application."""
    app.command("doctor")(doctor)


def doctor(json_output: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Say what is installed, what is missing, and which command each missing thing would enable."""
    from rich.markup import escape

    from ..doctor import run_checks

    reporter = Reporter("doctor", as_json=json_output, quiet=quiet, verbose=verbose)
    checks = run_checks()
    missing = [check.name for check in checks if check.needed and check.found is None]

    def draw(console: Any) -> None:
        for check in sorted(checks, key=lambda c: c.found is None):
            word = "ok" if check.found is not None else "missing" if check.needed else "absent"
            colour = {"ok": "green", "missing": "red", "absent": "yellow"}[word]
            text = check.found or f"would enable {check.enables}: {check.get}"
            console.print(f"[{colour}]{word:<8}[/]{check.name:<19}{escape(text)}", soft_wrap=True)

    errors = [f"{name} is missing" for name in missing]
    reporter.result({"checks": [check.to_dict() for check in checks]}, draw, ok=not missing, errors=errors)
    if missing:
        raise typer.Exit(1)
