"""The artefact folder: manifest, hashes, golden data; written whole or not at all.

my_model_pixel7/
    model.pte  model.tflite        the artefacts (further precisions: model.int8-static.pte, ...)
    golden.npz                     inputs and the source model's outputs on them
    manifest.json                  everything a machine wants to know
    SUMMARY.md                     what a person wants to know
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .disk import disk_trouble
from .errors import EdgeoptError, InputError
from .runtimes.files import check_name

if TYPE_CHECKING:
    import numpy as np

    from .device_profiles import DeviceProfile

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SUMMARY = "SUMMARY.md"
GOLDEN = "golden.npz"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorEntry(_Data):
    """An input or output of the model; a dynamic dimension is its name."""

    name: str
    shape: list[int | str]
    dtype: str
    layout: str | None = None


class FileTensor(_Data):
    """An input or output as a file has it: dtype narrowed by the format, quantisation when there is one."""

    name: str
    shape: list[int]
    dtype: str
    quantization: tuple[float, int] | None = None


class Predicted(_Data):
    """What the cost model expects of a file on the bundle's device; ``band80`` holds 80% of what turned out."""

    threads: int
    latency_ms: float
    band80: tuple[float, float]
    peak_memory_mib: float
    grade: Literal["predicted", "transferred", "calibrated"]
    basis: str


class Artifact(_Data):
    """One model file and what is known of it."""

    file: str
    format: Literal["pte", "tflite"]
    precision: str
    recipe: str
    runtime: str
    road: str
    status: Literal["verified", "failed"]
    size_bytes: int
    compressed_bytes: int | None = None
    sha256: str
    inputs: list[FileTensor]
    outputs: list[FileTensor]
    contents: dict[str, Any]
    parity: list[dict[str, Any]]
    predicted: list[Predicted] = []
    changes: list[str] = []
    metric: float | None = None
    warnings: list[str] = []
    convert_s: float = 0.0


class Evaluated(_Data):
    """The task metric of the source model, and how many samples it was taken on."""

    metric: str
    value: float
    samples: int | None = None
    grade: Literal["measured"] = "measured"


class FileEntry(_Data):
    """A file of the bundle, for the check of the hashes."""

    sha256: str
    size_bytes: int


class Deployment(_Data):
    """What an app must know beside the tensors, where the user told it.

    An image input is ``(value / 255 - mean) / std``, one figure a channel; ``labels`` name the scores.
    """

    labels: list[str] = []
    mean: list[float] | None = None
    std: list[float] | None = None


class Manifest(_Data):
    """``manifest.json``."""

    schema_version: int
    name: str
    status: Literal["verified", "failed"]
    created: str
    source: dict[str, Any]
    optimization: dict[str, Any] | None = None
    profile: dict[str, Any]
    recipes: list[dict[str, Any]]
    choice: list[str]
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    artifacts: list[Artifact]
    not_made: list[dict[str, Any]] = []
    evaluation: Evaluated | None = None
    deployment: Deployment | None = None
    golden: dict[str, Any]
    versions: dict[str, str]
    warnings: list[str] = []
    files: dict[str, FileEntry]


class Bundle:
    """A bundle on disk: ``path`` and its ``manifest``."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def artifacts(self) -> list[Artifact]:
        """The model files."""
        return self.manifest.artifacts

    @property
    def passed(self) -> bool:
        """Whether every file asked for was made and is within its tolerances."""
        return self.manifest.status == "verified"

    def artifact_path(self, artifact: Artifact) -> Path:
        """Where an artefact lies."""
        return self.path / artifact.file

    def device(self) -> DeviceProfile:
        """The profile that the bundle was made for.

        By its name; as the manifest keeps it where no profile is called so here, because a file was given or the
        bundle was made on another machine.

        Raises:
            InputError: neither can be read.
        """
        from .device_profiles import DeviceProfile, load_profile
        from .device_profiles.catalog import find

        kept = self.manifest.profile
        name = str(kept.get("name", ""))
        try:
            find(name)
        except InputError:
            try:
                return DeviceProfile.model_validate(kept)
            except ValidationError as error:
                raise InputError(
                    f"{self.path / MANIFEST}: its profile {name!r} isn't one of this edgeopt's form; give --profile."
                ) from error
        return load_profile(name)

    def golden(self) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        """Golden inputs and the source model's outputs: per sample, one array a tensor, in order."""
        import numpy as np

        samples = int(self.manifest.golden["samples"])
        try:
            with np.load(self.path / GOLDEN, allow_pickle=False) as data:
                inputs = [
                    [data[f"{i}/input/{tensor.name}"] for tensor in self.manifest.inputs]
                    for i in range(samples)
                ]
                outputs = [
                    [data[f"{i}/output/{tensor.name}"] for tensor in self.manifest.outputs]
                    for i in range(samples)
                ]
        except (OSError, KeyError, ValueError) as error:
            raise InputError(
                f"{self.path / GOLDEN} is missing or corrupt: {error}; export the bundle again."
            ) from error
        return inputs, outputs


def device_of(path: Path) -> DeviceProfile:
    """The profile that a bundle, or the bundle which a file is of, was made for (:meth:`Bundle.device`).

    Raises:
        InputError: ``path`` is neither, or the bundle can't be read.
    """
    folder = path.parent if path.is_file() else path
    if (folder / MANIFEST).is_file():
        bundle = load_bundle(folder)
        if folder == path or path.name in {each.file for each in bundle.artifacts}:
            return bundle.device()
    raise InputError(f"{path} names no device: give --profile, e.g. --profile pixel7.")


def load_bundle(path: Path | str) -> Bundle:
    """Read a bundle's manifest. Hashes are checked by :func:`check_files`.

    Raises:
        InputError: no bundle, an unfinished one, or a manifest of another schema.
    """
    path = Path(path)
    manifest = path / MANIFEST
    if path.name.startswith("."):
        raise InputError(f"{path} is an unfinished export: export again.")
    if not path.exists():
        raise InputError(f"{path} does not exist: give a bundle or a model file.")
    if not manifest.is_file():
        raise InputError(f"{path} is not a bundle: it has no {MANIFEST} (edgeopt export makes one).")
    try:
        data = json.loads(manifest.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{manifest} is not valid JSON ({error}): the bundle is corrupt, export it again."
        ) from error
    if not isinstance(data, dict) or "schema_version" not in data:
        raise InputError(f"{manifest} was not written by edgeopt: it has no schema_version; give a bundle.")
    version = data["schema_version"]
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{manifest} has schema version {version!r}; this edgeopt reads {SCHEMA_VERSION}: export the bundle again."
        )
    try:
        bundle = Bundle(path, Manifest.model_validate(data))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{manifest}: {key}: {first['msg']}; export the bundle again.") from error
    made = [artifact.file for artifact in bundle.artifacts]
    # What a bundle names is hashed, run, pushed and packed: nothing beyond its own folder.
    outside = next((name for name in [*made, *bundle.manifest.files] if Path(name).name != name), None)
    if outside is not None:
        raise InputError(f"{manifest} was changed: {outside!r} is no file in the bundle; export it again.")
    unlisted = next((name for name in made if name not in bundle.manifest.files), None)
    if unlisted is not None:
        raise InputError(f"{manifest} was changed: it has no hash of {unlisted}; export it again.")
    return bundle


def check_files(bundle: Bundle, names: Collection[str] | None = None) -> list[str]:
    """What is wrong with the bundle's files (all, or those of ``names``): missing, or not the bytes that were written."""
    problems = []
    for name, entry in bundle.manifest.files.items():
        if names is not None and name not in names:
            continue
        file = bundle.path / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != entry.size_bytes or sha256_of(file) != entry.sha256:
            problems.append(f"{name} is not the file that was exported (its SHA-256 differs)")
    return problems


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_output(path: Path, *, force: bool) -> None:
    """Whether a bundle may be written at ``path``; asked before the work starts.

    Raises:
        InputError: something is there already, or the folder can't be written.
    """
    check_name(path)
    if path.exists() and not force:
        raise InputError(f"{path} exists already: give --force to replace it, or another -o.")
    if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is not a bundle: --force replaces bundles only; give another -o.")
    parent = _existing_parent(path)
    if not parent.is_dir():
        raise InputError(f"{path} can't be written: {parent} is a file, not a folder; give another -o.")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{path} can't be written: no permission in {parent}; give another -o.")


def _existing_parent(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` that takes its name when the block ends well.

    Left by an exception, the folder is removed; left by a kill, it stays hidden and :func:`load_bundle`
    doesn't take it for a bundle. What a killed export left behind is removed by the next one.
    """
    path = path.absolute()
    replaces = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        staging = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial"
        staging.mkdir()
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}; give another -o.") from error
    try:
        yield staging
        _swap(staging, path, replaces=replaces)
    except OSError as error:
        full = disk_trouble(str(error), staging)
        if full is None:
            raise
        raise InputError(f"{path} can't be written: {full[0]}; {full[1]}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, path: Path, *, replaces: bool) -> None:
    old = staging.with_suffix(".old")
    if replaces:
        # Another one that replaces it may have taken it away just now.
        with suppress(FileNotFoundError):
            path.rename(old)
    try:
        staging.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise InputError(
            f"{path} was made by another process meanwhile and is kept: give --force to replace it, or another -o."
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def _sweep(path: Path) -> None:
    for left in [*path.parent.glob(f".{path.name}.*.partial"), *path.parent.glob(f".{path.name}.*.old")]:
        pid = left.name.removeprefix(f".{path.name}.").partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_golden(
    folder: Path,
    inputs: Mapping[str, list[np.ndarray]],
    outputs: Mapping[str, list[np.ndarray]],
    *,
    max_bytes: int = 16 * 2**20,
) -> dict[str, Any]:
    """Write the golden data, as many samples as fit ``max_bytes`` and at least one.

    Args:
        inputs: name -> one array a sample; ``outputs`` alike.
    """
    import numpy as np

    count = len(next(iter(inputs.values())))
    arrays: dict[str, np.ndarray] = {}
    kept, total = 0, 0
    for sample in range(count):
        entry = {f"{sample}/input/{name}": values[sample] for name, values in inputs.items()}
        entry |= {f"{sample}/output/{name}": values[sample] for name, values in outputs.items()}
        total += sum(array.nbytes for array in entry.values())
        if kept and total > max_bytes:
            break
        arrays |= entry
        kept += 1
    np.savez_compressed(folder / GOLDEN, **arrays)  # type: ignore[arg-type]
    return {"file": GOLDEN, "samples": kept}


def write_manifest(folder: Path, manifest: Mapping[str, Any], summary: str) -> Manifest:
    """Hash the files of ``folder`` and write summary and, last of all, the manifest."""
    (folder / SUMMARY).write_text(summary, encoding="utf-8")
    files = {
        file.name: {"sha256": sha256_of(file), "size_bytes": file.stat().st_size}
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != MANIFEST
    }
    try:
        whole = Manifest.model_validate({**manifest, "schema_version": SCHEMA_VERSION, "files": files})
    except ValidationError as error:
        raise EdgeoptError(f"the manifest doesn't fit its own schema: {error}") from error
    text = json.dumps(whole.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return whole
