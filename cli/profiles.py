"""``edgeopt profiles``: the devices edgeopt knows."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Attach the command group."""
    app.add_typer(typer.Typer(help="The devices edgeopt knows."), name="profiles")
