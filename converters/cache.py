"""Conversions already done, by content: an interrupted or repeated export doesn't do them again.

The key holds everything a file follows from: the captured graph, its weights and calibrated ranges, the
format and precision, the exporters' versions and the source of edgeopt's own stages. Files that come from
the cache are checked like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from ..disk import cache_folder
from ..models.findings import Finding
from ..optimizers.passes import OptimizedModel

MAX_BYTES = 2 * 2**30
_WRITTEN_S = 3600.0  # a partial file older than this was left by a process that was killed
_PACKAGES = ("torch", "torchao", "executorch", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")
_STAGES = ("models", "optimizers", "converters")


def conversion_key(model: OptimizedModel, output_format: str) -> str:
    """The name of a conversion's result: SHA-256 over all it depends on."""
    digest = hashlib.sha256()
    capture = model.capture
    for part in (
        _toolchain(),
        output_format,
        model.precision,
        str(capture.program.graph),
        "" if model.prepared is None else str(model.prepared.graph),
        str(model.weight_group),
        str(capture.program.range_constraints),
        str([(str(info), str(info.dtype)) for info in capture.source.inputs]),
        str([info.name for info in capture.source.outputs]),
    ):
        digest.update(part.encode() + b"\0")
    for name, tensor in _tensors(model):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fetch(key: str, path: Path) -> list[Finding] | None:
    """Put the cached file at ``path`` and return its findings, or None when there is none that is whole."""
    file = _folder() / key
    try:
        kept = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        findings = [Finding(**finding) for finding in kept["findings"]]
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != kept["sha256"]:
            return None
        os.utime(file)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    path.write_bytes(content)
    return findings


def keep(key: str, path: Path, findings: list[Finding]) -> None:
    """Remember a finished file. A cache that can't be written is no reason to fail."""
    file = _folder() / key
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        record = {"sha256": hashlib.sha256(content).hexdigest(), "findings": [f.to_dict() for f in findings]}
        _write(file, content)
        _write(file.with_suffix(".json"), json.dumps(record).encode())
        _evict(file.parent)
    except OSError:
        return


def _tensors(model: OptimizedModel) -> Iterator[tuple[str, torch.Tensor]]:
    program = model.capture.program
    for source in (program.state_dict, program.constants, _state(model.prepared)):
        for name, value in sorted(source.items()):
            if isinstance(value, torch.Tensor) and value.numel():
                yield name, value
    for index, sample in enumerate(model.samples):
        yield from ((f"sample {index}.{place}", value) for place, value in enumerate(sample) if value.numel())


def _state(prepared: torch.fx.GraphModule | None) -> dict[str, torch.Tensor]:
    if prepared is None:
        return {}
    # Observers keep some of what they saw outside their state_dict.
    return {**prepared.state_dict(), **dict(prepared.named_buffers())}


@cache
def _toolchain() -> str:
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for folder in _STAGES:
        for source in sorted((root / folder).glob("*.py")):
            digest.update(source.read_bytes())
    versions = [f"{package} {_version(package)}" for package in _PACKAGES]
    return " ".join([*versions, digest.hexdigest()])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _folder() -> Path:
    return cache_folder() / "conversions"


def _write(file: Path, content: bytes) -> None:
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:  # half a file on a full disk would stay for ever
        partial.unlink(missing_ok=True)


def _evict(folder: Path) -> None:
    for partial in folder.glob("*.partial"):
        if time.time() - partial.stat().st_mtime > _WRITTEN_S:
            partial.unlink(missing_ok=True)
    files = sorted((f for f in folder.iterdir() if not f.suffix), key=lambda f: f.stat().st_mtime)
    total = sum(f.stat().st_size for f in files)
    for file in files:
        if total <= MAX_BYTES:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)
