"""A bundle as a module that an app team adds to its project: Android, Swift or C++.

Front door: :func:`generate`, :func:`update` and :data:`PLATFORMS`. Everything written comes from the templates
in ``android/``, ``swift/`` and ``cpp/`` here; nothing is put together from strings in Python, and nothing is
built or run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from .context import PLATFORMS, AppContext, app_context
from .update import STATE, Changes, State, apply, breaking_changes, edited_files

if TYPE_CHECKING:
    from ...bundle import Bundle
    from .render import File

__all__ = ["PLATFORMS", "Changes", "Generated", "generate", "update"]


@dataclass(frozen=True)
class Generated:
    """What was made, and what the user should know of it."""

    output: Path
    context: AppContext
    changes: Changes
    warnings: tuple[str, ...] = ()


def generate(
    bundle: Bundle, *, package: str, output: Path, platform: str = "android", file: str | None = None
) -> Generated:
    """Write a package for ``platform`` into the new folder ``output``, whole or not at all.

    Args:
        package: like ``com.acme.vision``.
        file: which of the bundle's files; its first when left out.

    Raises:
        InputError: a bad name, a bundle that failed or is corrupt, a model the platform can't carry, or
            something stands at ``output`` already.
    """
    from ...bundle import staged

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        what = "--update renews the model in it" if (output / STATE).is_file() else "it is not empty"
        raise InputError(f"{output} exists already ({what}): give another -o, or --update.")
    context, name, files = _rendered(bundle, package, platform, file)
    changes = Changes()
    with staged(output) as folder:
        for item in files:
            target = folder / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(item.content)
            changes.written.append(item.path)
        (folder / STATE).write_bytes(State.of(context, name, files).to_bytes())
    return Generated(output, context, changes, _warnings(bundle, context))


def update(
    bundle: Bundle,
    *,
    output: Path,
    package: str | None = None,
    platform: str | None = None,
    file: str | None = None,
    force: bool = False,
) -> Generated:
    """Put another model into what :func:`generate` made; the user's own files stay as they are.

    Args:
        package, platform: checked against the folder's when given.
        force: also when callers break or a generated file was edited by hand.

    Raises:
        InputError: as :func:`generate`; or callers would break, a generated file was edited, or the
            runtime is another one.
    """
    state = State.load(output)
    for option, given, there in (
        ("--package", package, state.package),
        ("--platform", platform, state.platform),
    ):
        if given is not None and given != there:
            raise InputError(f"{output} was made with {option} {there}, not {given}: leave it out.")
    context, name, files = _rendered(bundle, state.package, state.platform, file or state.file)
    if context.runtime != state.runtime:
        raise InputError(
            f"{output} is built on {state.runtime} and {name} needs {context.runtime}: generate it anew with "
            "another -o, because the build files are yours."
        )
    if not force:
        _refuse(output, state, context, files)
    fresh = State.of(context, name, files)
    changes = apply(output, state, fresh, files)
    warnings = list(_warnings(bundle, context))
    if context.runtime_version != state.runtime_version:
        warnings.append(
            f"the model now needs {context.runtime} {context.runtime_version} (before: {state.runtime_version}): "
            "set it in your build files"
        )
    return Generated(output, context, changes, tuple(warnings))


def _refuse(output: Path, state: State, context: AppContext, files: list[File]) -> None:
    broken = breaking_changes(state.signature, context.signature())
    if broken:
        raise InputError(
            f"{output} was not changed, because code that calls the model would break: {'; '.join(broken)} "
            "(--force updates all the same)."
        )
    edited = edited_files(output, state, files)
    if edited:
        raise InputError(
            f"{output} was not changed, because generated files were edited by hand: {', '.join(edited)}; move the "
            "edits to a file of your own, or give --force to lose them."
        )


def _rendered(
    bundle: Bundle, package: str, platform: str, file: str | None
) -> tuple[AppContext, str, list[File]]:
    from .golden import golden_files
    from .render import render

    context = app_context(bundle, package, platform, file)
    artifact = next(
        a for a in bundle.artifacts if a.sha256 == context.model_sha256 and file in (None, a.file)
    )
    model = bundle.artifact_path(artifact).read_bytes()
    return context, artifact.file, render(context, golden_files(bundle, artifact, context), model)


def _warnings(bundle: Bundle, context: AppContext) -> tuple[str, ...]:
    system = str((bundle.manifest.profile.get("os") or {}).get("name"))
    wanted = {"android": ("android",), "swift": (), "cpp": ("linux",)}[context.platform]
    if wanted and system not in wanted:
        return (f"the bundle was made for {context.device}, which runs {system}, not {wanted[0]}",)
    return ()
