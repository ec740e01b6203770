"""Help pages as other commands have them: arguments in capitals, flags without a type, examples at the end."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup


def examples(*lines: str) -> str:
    """The end of a help page: a few whole commands to copy.

    Args:
        lines: The commands, each as a shell takes it.
    """
    # Typer reads the text as rich's markup, in which [ opens a tag.
    # The empty line first: Typer takes away the indentation that all lines after the first have in common.
    return "\n".join(["", "Examples:", *(f"  {_continued(line)}" for line in lines)]).replace("[", "\\[")


def _continued(line: str) -> str:
    """A command that fits a terminal of 80 columns: a longer one goes on behind a backslash, before an option."""
    first, *more = re.split(r" (?=-)", line)
    rows = [first]
    for part in more:
        if len(rows[-1]) + len(part) > _EXAMPLE_COLUMNS:
            rows.append(f"  {part}")
        else:
            rows[-1] += f" {part}"
    return " \\\n  ".join(rows)


def write_conventionally(app: typer.Typer) -> None:
    """Give every command of ``app`` and of its groups such a page.

    Args:
        app: The application, with all its commands registered.
    """
    app.info.cls = _Group
    for command in app.registered_commands:
        command.cls = _Command
        command.help = _reflowed(inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.cls = _Group
            write_conventionally(group.typer_instance)


def _reflowed(text: str) -> str:
    """Paragraphs without the source's line ends, which Typer would keep: the terminal's width is another."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


_BOXES_COLUMNS = 80
_EXAMPLE_COLUMNS = 72  # of 80, less the indentation, the backslash and the margins

# Python's names of types, in which Typer would write them, and what other commands' help pages say.
_VALUES = {
    "<str>": "TEXT",
    "<list[str]>": "TEXT",
    "<path>": "PATH",
    "<list[Path]>": "PATH",
    "<int>": "INTEGER",
    "<int range>": "INTEGER",
    "<float>": "NUMBER",
}


def _named(params: list[Any], ctx: Any) -> list[Any]:
    for param in params:
        if isinstance(param, TyperArgument):
            _name_argument(param)
        elif param.metavar is None and getattr(param, "is_flag", False):
            # Typer would write <bool>, as though the flag took a value.
            param.metavar = ""
        elif param.metavar is None and hasattr(param, "display_type"):
            param.metavar = _VALUES.get(param.display_type(ctx))
    return params


def _name_argument(param: Any) -> None:
    """MODEL, and not {MODEL} of type <str>: braces say elsewhere that one of several is to be chosen."""
    name = param.metavar = param.metavar or (param.name or "").upper()
    usage = (name if param.required else f"[{name}]") + ("..." if param.nargs != 1 else "")
    param.get_usage_pieces = lambda ctx: [usage]
    param.display_type_rich = lambda ctx: None


@contextmanager
def _one_spelling(params: list[Any]) -> Iterator[None]:
    """Leave --num_threads out beside --num-threads: both are taken, and two cost a narrow page its last letters."""
    spelled = {param: param.opts for param in params}
    for param, opts in spelled.items():
        param.opts = [
            opt for opt in opts if opt.replace("_", "-") == opt or opt.replace("_", "-") not in opts
        ]
    try:
        yield
    finally:
        for param, opts in spelled.items():
            param.opts = opts


@contextmanager
def _plain_where_narrow(command: Any) -> Iterator[None]:
    """Leave the boxes out on a narrow terminal, where they cut names of options to fit."""
    mode = command.rich_markup_mode
    if get_terminal_size().columns < _BOXES_COLUMNS:
        command.rich_markup_mode = None
    try:
        yield
    finally:
        command.rich_markup_mode = mode


class _Command(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        with _one_spelling(self.params), _plain_where_narrow(self):
            super().format_help(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """On a page without boxes: the examples line by line, which would be joined to a paragraph."""
        if self.epilog:
            formatter.write(self.epilog.replace("\\[", "[").rstrip() + "\n")

    def get_params(self, ctx: Any) -> list[Any]:
        return _named(super().get_params(ctx), ctx)


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _named(super().get_params(ctx), ctx)
