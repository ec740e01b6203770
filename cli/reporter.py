"""What a command says and where: results on stdout, progress and notes on stderr.

Every command prints its result through a :class:`Reporter`, so that ``--json`` gives one object of
one shape (docs/json.md) and nothing else on stdout. Rich is imported only when something is printed.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 1
_PIPE_WIDTH = 140
_PLAIN = {"–": "-", "×": "x", "±": "+-", "·": "-", "…": "~", "µ": "u", "°": "", "²": "2", "′": "'", "’": "'"}


def print_in_any_encoding() -> None:
    """Let stdout and stderr take every character: one that they have no code for is written as its nearest."""
    codecs.register_error("edgeopt", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not _takes_all(stream):
            stream.reconfigure(errors="edgeopt")


def _takes_all(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


def print_json(payload: Mapping[str, Any]) -> None:
    """Write ``payload`` as one JSON object; NaN and infinities become null (JSON has neither)."""
    utf8 = _takes_all(sys.stdout)
    json.dump(_finite(payload), sys.stdout, indent=2, ensure_ascii=not utf8, allow_nan=False)
    sys.stdout.write("\n")


def error_envelope(command: str, errors: list[str], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object of a command that failed before it had a result."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "ok": False,
        "measurements": [],
        "warnings": list(warnings),
        "errors": errors,
    }


def print_error(message: str) -> None:
    """One line ``error: ...`` on stderr, red on a terminal."""
    from rich.markup import escape

    console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """A Rich console; colour and width follow the terminal, ``NO_COLOR`` is honoured."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    # A pipe has no width; Rich takes 80 columns for it, which would break tables that a file has room for.
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = _PIPE_WIDTH
    return found


class Reporter:
    """One command's voice. ``latest`` is the one made last: it knows the command's name, and what it warned of.

    Args:
        command: the command's name, as it stands in the JSON envelope.
        as_json: print the envelope instead of tables.
        quiet: no notes and no progress on stderr (warnings and errors stay).
        verbose: show :meth:`detail` lines too.
    """

    latest: ClassVar[Reporter | None] = None

    def __init__(
        self, command: str, *, as_json: bool = False, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.command = command
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self.warnings: list[str] = []
        Reporter.latest = self

    def note(self, message: str) -> None:
        """Something worth knowing, on stderr; silent under ``--quiet`` and ``--json``."""
        if not self.quiet and not self.as_json:
            console(stderr=True).print(message, markup=False, soft_wrap=True)

    def detail(self, message: str) -> None:
        """A line that only ``--verbose`` shows."""
        if self.verbose:
            console(stderr=True).print(message, markup=False, style="dim", soft_wrap=True)

    def warn(self, message: str) -> None:
        """A warning: on stderr, and in the envelope's ``warnings``."""
        self.warnings.append(message)
        if not self.as_json:
            from rich.markup import escape

            console(stderr=True).print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)

    def result(
        self,
        payload: Mapping[str, Any],
        render: Callable[[Console], None],
        *,
        ok: bool = True,
        errors: list[str] | None = None,
    ) -> None:
        """Print the command's result: the envelope under ``--json``, else whatever ``render`` draws."""
        if self.as_json:
            envelope = error_envelope(self.command, errors or [])
            envelope["ok"] = ok
            envelope.update(payload)
            envelope["warnings"] = [*envelope["warnings"], *self.warnings]
            print_json(envelope)
        else:
            render(console())

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, float | None], None]]:
        """A live progress line on stderr: call the yielded function with (what, fraction or None).

        On a pipe each new ``what`` is one plain line; nothing under ``--quiet`` or ``--json``. What libraries
        and user code print meanwhile goes to stderr, so that stdout holds the result alone.
        """
        with redirect_stdout(sys.stderr), self._progress() as say:
            yield say

    @contextmanager
    def _progress(self) -> Iterator[Callable[[str, float | None], None]]:
        if self.quiet or self.as_json:
            yield _silent
            return
        err = console(stderr=True)
        # A dumb terminal can't move its cursor: it would show an empty line instead of a bar.
        if not err.is_terminal or err.is_dumb_terminal:
            last: list[str] = []

            def plain(what: str, fraction: float | None = None) -> None:
                if last[-1:] != [what]:
                    last.append(what)
                    err.print(f"  {what}", markup=False, soft_wrap=True)

            yield plain
            return
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("", total=1.0)

            def live(what: str, fraction: float | None = None) -> None:
                bar.update(task, description=what, completed=fraction or 0.0, total=1.0 if fraction else None)

            yield live


def _silent(what: str, fraction: float | None = None) -> None:
    """Progress that nobody asked for."""


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):  # a file's name that isn't UTF-8 holds bytes that JSON can't
        return value.encode(errors="surrogateescape").decode(errors="replace")
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        return _finite(value.item())
    return value
