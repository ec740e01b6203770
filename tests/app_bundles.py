"""Bundles with any names, shapes and dtypes, written by hand: the model files in them are not models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.bundle import Bundle, load_bundle, sha256_of, write_golden, write_manifest
from edgeopt.device_profiles import load_profile

RUNTIME = {"pte": "executorch", "tflite": "litert"}
Spec = tuple[str, str, list[int | str]]

ODD_NAMES: tuple[Sequence[Spec], Sequence[Spec]] = (
    [
        ("class", "float32", [1, 3, 4, 4]),
        ("my input", "float32", [2]),
        ("3d points", "int64", [2, 3]),
        ("größe", "int32", [1]),
        ("入力", "float32", [1, 2]),
        ("a$b", "int8", [4]),
        ("A B", "float32", [1]),
    ],
    [
        ("when", "float32", [1, 3]),
        ('*/ "quoted" \\ ${x}', "float32", []),
        ("スコア", "int64", [2]),
        ("runtime", "int32", [2]),
    ],
)

PICTURE: tuple[Sequence[Spec], Sequence[Spec]] = (
    [("image", "float32", [1, 3, 8, 8])],
    [("logits", "float32", [1, 3]), ("mask", "int64", [1, 2])],
)
# As an export of a Keras model writes it.
CHANNELS_LAST: tuple[Sequence[Spec], Sequence[Spec]] = (
    [("photo", "float32", [1, 8, 8, 3])],
    [("scores", "float32", [1, 3])],
)
# Names that the generated code itself uses for something.
_INPUTS = """
    run require listOf longArrayOf random inputs model runs threads started times since labels runtime module detail
    copyBytes values context options data shapes execute placement sample golden outputs std errno kotlin java
    Companion string toString hashCode image picture count name size
"""
_OUTPUTS = "outputs values runtime size component1 toString copy run std first"
CLASHES: tuple[Sequence[Spec], Sequence[Spec]] = (
    [(name, "float32", [index + 1]) for index, name in enumerate(_INPUTS.split())],
    [(name, "float32", [index + 1]) for index, name in enumerate(_OUTPUTS.split())],
)
DEPLOYMENT = {
    "labels": ["cat", 'dog "x"', "bird"],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
DYNAMIC: tuple[Sequence[Spec], Sequence[Spec]] = (
    [("tokens", "int64", ["batch", "seq len"]), ("scale", "float64", ["batch"]), ("half", "float16", [2])],
    [("hidden", "float16", ["batch", "seq len", 2]), ("bytes", "uint8", [3])],
)


def make_bundle(
    folder: Path,
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    *,
    name: str = "Tiny Net",
    formats: Sequence[str] = ("pte", "tflite"),
    deployment: dict[str, Any] | None = None,
    status: str = "verified",
    seed: int = 0,
    versions: dict[str, str] | None = None,
    profile: str = "pixel7",
) -> Bundle:
    """Write a bundle; dynamic sizes are 2 in the first golden sample and 3 in the second."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    golden = write_golden(folder, _golden(inputs, generator), _golden(outputs, generator))
    artifacts = []
    for format in formats:
        file = folder / f"model.{format}"
        file.write_bytes(f"not a model {name} {format} {seed}\n".encode())
        names = _file_names(format)
        artifacts.append(
            {
                "file": file.name,
                "format": format,
                "precision": "fp32",
                "recipe": "fp32",
                "runtime": RUNTIME[format],
                "road": "written by hand",
                "status": status,
                "size_bytes": file.stat().st_size,
                "sha256": sha256_of(file),
                "inputs": _file_tensors(inputs, names("input")),
                "outputs": _file_tensors(outputs, names("output")),
                "contents": {"delegates": {"XNNPACK": 3}},
                "parity": [
                    {"output": output, "min_snr_db": 60.0 if dtype.startswith("float") else 0.0}
                    for output, dtype, _ in outputs
                ],
            }
        )
    manifest = {
        "name": name,
        "status": status,
        "created": "2026-01-01T00:00:00+00:00",
        "source": {"origin": "by hand"},
        "profile": load_profile(profile).model_dump(mode="json"),
        "recipes": [],
        "choice": [],
        "inputs": [_entry(*spec) for spec in inputs],
        "outputs": [_entry(*spec) for spec in outputs],
        "artifacts": artifacts,
        "deployment": deployment,
        "golden": golden,
        "versions": {"edgeopt": "0", "executorch": "1.5.1", "ai-edge-litert": "2.3.0", **(versions or {})},
    }
    write_manifest(folder, manifest, "by hand\n")
    return load_bundle(folder)


def _golden(specs: Sequence[Spec], generator: np.random.Generator) -> dict[str, list[np.ndarray]]:
    def sample(dtype: str, shape: list[int | str], dynamic: int) -> np.ndarray:
        sizes = [dynamic if isinstance(size, str) else size for size in shape]
        values = (
            generator.normal(size=sizes) if dtype.startswith("float") else generator.integers(0, 9, sizes)
        )
        return np.asarray(values).astype(dtype)

    return {name: [sample(dtype, shape, dynamic) for dynamic in (2, 3)] for name, dtype, shape in specs}


def _entry(name: str, dtype: str, shape: list[int | str]) -> dict[str, Any]:
    layout = None
    if len(shape) == 4:
        layout = "NCHW" if shape[1] in (1, 3, 4) else "NHWC" if shape[3] in (1, 3, 4) else None
    return {"name": name, "shape": shape, "dtype": dtype, "layout": layout}


def _file_names(format: str) -> Any:
    """ExecuTorch loses the names and keeps the order."""
    return lambda side: lambda index, name: f"{side}_{index}" if format == "pte" else name


def _file_tensors(specs: Sequence[Spec], name_of: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": name_of(index, name),
            "dtype": dtype,
            "shape": [-1 if isinstance(size, str) else size for size in shape],
        }
        for index, (name, dtype, shape) in enumerate(specs)
    ]
