"""Debian packages without root: a private apt configuration, and archives unpacked into a folder.

Nothing of the system is touched. The private configuration has its own state, cache and source list and
an empty status file, so that apt resolves every dependency down to the C library, and it checks each
archive against the release's signature as it always does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import EdgeoptError

# The last release whose qemu-user is dynamically linked and takes TCG plugins (QEMU 7.2).
RELEASE = "bookworm"
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
SOURCE_FOLDER = Path("/etc/apt")


@dataclass(frozen=True)
class Package:
    """One archive that apt would install: its ``file`` name, and the digest apt has of it (``md5:...``)."""

    name: str
    file: str
    digest: str

    def is_whole(self, path: Path) -> bool:
        """Whether ``path`` holds this archive; what a killed download left behind does not."""
        algorithm, _, expected = self.digest.partition(":")
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest() == expected


def mirror() -> str:
    """The Debian mirror: ``$EDGEOPT_DEBIAN_MIRROR``, else the one this machine's apt uses.

    Raises:
        EdgeoptError: apt is missing, or the machine's apt knows no Debian mirror.
    """
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise EdgeoptError(
                f"{program} was not found: the emulator's toolchain comes as Debian packages; "
                "run the set-up in a Debian 12 machine or container (see docs/emulator.md)"
            )
    given = os.environ.get("EDGEOPT_DEBIAN_MIRROR")
    if given:
        return given.rstrip("/")
    for uri in _uris(SOURCE_FOLDER):
        if uri.rstrip("/").endswith("/debian"):
            return uri.rstrip("/")
    raise EdgeoptError(
        "this machine's apt has no Debian mirror; set EDGEOPT_DEBIAN_MIRROR to the URL of one "
        "(its path ends in /debian) and install the package debian-archive-keyring"
    )


def _uris(folder: Path) -> Iterable[str]:
    """Every archive address in apt's source lists, in both formats."""
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        if not path.is_file():
            continue
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if path.suffix == ".sources":
                if words and words[0] == "URIs:":
                    yield from words[1:]
            elif words and words[0] == "deb":
                yield from (word for word in words[1:] if "://" in word)


class PrivateApt:
    """apt-get with every folder of its own below ``folder``."""

    def __init__(self, folder: Path, mirror_url: str, architecture: str) -> None:
        self.folder = folder
        self._config = folder / "apt.conf"
        keyring = next((path for path in KEYRINGS if path.exists()), None)
        if keyring is None:
            raise EdgeoptError(
                "Debian's archive keys are missing; install the package debian-archive-keyring"
            )
        for part in ("state/lists/partial", "cache/archives/partial", "etc/parts", "etc/preferences.d"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text("")
        (folder / "etc" / "sources.list").write_text(
            f"deb [signed-by={keyring}] {mirror_url} {RELEASE} main\n"
        )
        settings = {
            "Dir": folder,
            "Dir::State": folder / "state",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Etc": folder / "etc",
            "Dir::Etc::sourcelist": folder / "etc" / "sources.list",
            "Dir::Etc::sourceparts": folder / "etc" / "parts",
            "Dir::Etc::parts": folder / "etc" / "parts",
            "APT::Architecture": architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": _user(),
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        lines = [f'{key} "{value}";' for key, value in settings.items()]
        self._config.write_text("\n".join([*lines, f'APT::Architectures {{ "{architecture}"; }};', ""]))

    def update(self) -> None:
        """Fetch the package lists."""
        self._run("-qq", "update", doing="fetching Debian's package lists")

    def closure(self, names: Iterable[str]) -> list[Package]:
        """Every package that ``names`` need, the C library included."""
        text = self._run("-qq", "--print-uris", "install", *names, doing="resolving Debian packages")
        packages = []
        for line in text.splitlines():
            words = line.split()
            if len(words) == 4 and words[0].startswith("'"):
                digest = words[3].lower().replace("md5sum:", "md5:")
                packages.append(Package(words[1].split("_")[0], words[1], digest))
        return packages

    def download(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """Fetch archives into ``folder``, but those that lie there whole; apt checks their signatures."""
        missing = [package for package in packages if not package.is_whole(folder / package.file)]
        for package in missing:
            (folder / package.file).unlink(missing_ok=True)
        if missing:
            names = [package.name for package in missing]
            self._run("-qq", "download", *names, doing=f"downloading {', '.join(names)}", cwd=folder)
        for package in missing:
            if not package.is_whole(folder / package.file):
                raise EdgeoptError(f"{package.file} arrived damaged; run the set-up again")
        return [folder / package.file for package in packages]

    def _run(self, *arguments: str, doing: str, cwd: Path | None = None) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._config), "LC_ALL": "C"}
        done = subprocess.run(
            ["apt-get", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            reasons = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            reason = reasons[0][3:] if reasons else f"apt-get ended with {done.returncode}"
            raise EdgeoptError(f"{doing} failed: {reason} (is the network reachable?)")
        return done.stdout


def _user() -> str:
    """The user apt drops its privileges to: ours, because the archives go into our own folder."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def host_architecture() -> str:
    """Debian's name of this machine's architecture (``amd64``, ``arm64``)."""
    done = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack one archive's files into ``folder`` without running any of its scripts."""
    done = subprocess.run(
        ["dpkg", "-x", str(archive), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        archive.unlink(missing_ok=True)
        raise EdgeoptError(f"{archive.name} is damaged and was removed; run the set-up again")
