"""Assembles the command groups and turns every failure into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from types import TracebackType

import typer

from ..disk import disk_trouble
from ..errors import EdgeoptError
from . import interrupts
from .help_pages import write_conventionally
from .reporter import Reporter, error_envelope, print_error, print_in_any_encoding, print_json

_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a program in C ends

app = typer.Typer(
    name="edgeopt",
    help="Turn a PyTorch or Keras model and a device profile into verified, measured files for that device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        from .. import __version__

        typer.echo(f"edgeopt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Options that stand before any command."""


def _register() -> None:
    from . import (
        analyze,
        app_command,
        bench,
        compare,
        devices,
        doctor,
        emulator,
        estimate,
        export,
        optimize,
        profiles,
        results,
    )

    export.register(app)
    optimize.register(app)
    profiles.register(app)
    analyze.register(app)
    estimate.register(app)
    bench.register(app)
    devices.register(app)
    compare.register(app)
    results.register(app)
    emulator.register(app)
    app_command.register(app)
    doctor.register(app)
    write_conventionally(app)


_register()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (0, 1, 2, 3, or 128 + the signal that ended it; see ``errors``)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    verbose = "--verbose" in arguments
    command = next((word for word in arguments if not word.startswith("-")), "")
    Reporter.latest = None
    print_in_any_encoding()
    try:
        with interrupts.taken_as_ctrl_c():
            result = app(args=arguments, prog_name="edgeopt", standalone_mode=False)
        if interrupts.unsaid(result):
            raise KeyboardInterrupt
        return int(result or 0)
    except EdgeoptError as error:
        _fail(command, *map(str, (error, *error.others)), as_json=as_json)
        if verbose and error.__cause__ is not None:
            _print_traceback(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _fail(command, interrupts.reason(), as_json=as_json)
        return interrupts.exit_code()
    except BrokenPipeError:
        return _BROKEN_PIPE
    except MemoryError:
        _fail(
            command,
            "the memory is used up: end other programs, or raise the limit (ulimit -v).",
            as_json=as_json,
        )
        return 1
    except SystemExit as error:
        # Typer ends so when the reader of a pipe is gone; else it was the user's own code.
        if isinstance(error.__context__, BrokenPipeError):
            return _BROKEN_PIPE
        if _by_typer(error):  # shell completion ends the process as soon as it has answered
            return error.code if isinstance(error.code, int) else 0
        _fail(
            command,
            f"{_where(error)} ended the command with sys.exit({error.code!r}): take it out.",
            as_json=as_json,
        )
        return 2
    except Exception as error:
        full = disk_trouble(str(error)) if isinstance(error, OSError) else None
        if full is not None:
            _fail(command, f"{full[0]}; {full[1]}.", as_json=as_json)
            return 2
        # Typer carries its own copy of click, whose exceptions have no public name: known by their shape.
        if hasattr(error, "format_message"):
            # A group without a command has shown its help already, and its exception has no words.
            if message := error.format_message().rstrip("."):
                path = _help_of(error)
                _fail(path.partition(" ")[2] or command, f"{message} (see {path} --help)", as_json=as_json)
            return 2
        _fail(
            command,
            f"internal error: {type(error).__name__}: {error} (run again with --verbose for the traceback)",
            as_json=as_json,
        )
        if verbose:
            _print_traceback(error)
        return 1


def _help_of(error: Exception) -> str:
    """The command whose help page tells what is allowed: the last one that was understood."""
    path = getattr(getattr(error, "ctx", None), "command_path", "")
    return path if isinstance(path, str) and path else "edgeopt"


def _fail(command: str, *messages: str, as_json: bool) -> None:
    """Say what went wrong; ``command`` counts where it failed before it had a reporter."""
    reporter = Reporter.latest
    try:
        if as_json:
            warnings = reporter.warnings if reporter else ()
            name = reporter.command if reporter else command
            print_json(error_envelope(name, list(messages), warnings))
        else:
            for message in messages:
                print_error(message)
    except (OSError, MemoryError):  # a full disk behind stdout, nobody who reads, no memory to lay text out
        with contextlib.suppress(OSError):
            sys.stderr.write("".join(f"error: {message}\n" for message in messages))


def _by_typer(error: BaseException) -> bool:
    trace = _last_trace(error)
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "typer"


def _where(error: BaseException) -> str:
    """File and line that raised it."""
    trace = _last_trace(error)
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "something"


def _last_trace(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)
