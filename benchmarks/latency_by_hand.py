"""How fast the files are, against those of the two exporters called by hand on the same model.

    python benchmarks/latency_by_hand.py [mobilenet_v3_large convnext_femto segformer_b0 ...]

Networks of calibration_models.py (random weights). By hand: ExecuTorch's and litert-torch's tutorials, float32 and
static int8 (PT2E with XNNPACK's quantizer, one sample), with batch norms as they stand; edgeopt as a user calls it. Each
pair is measured in turns, as `edgeopt compare` does, one thread unless ``--num-threads`` says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from calibration_models import MODELS, build, example

import edgeopt
from edgeopt.android_harness.measure import MeasureOptions


def by_hand(name: str, folder: Path) -> dict[str, str]:
    """Write the four files into ``folder``; file → why it could not be made."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    sample = (example(name),)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(build(name), sample).module(), quantizer)
    prepared(*sample)

    def pte(module: torch.nn.Module, path: Path) -> None:
        edge = to_edge_transform_and_lower(
            torch.export.export(module, sample), partitioner=[XnnpackPartitioner()]
        )
        path.write_bytes(edge.to_executorch().buffer)

    steps: dict[str, Callable[[Path], None]] = {
        "model.pte": lambda path: pte(build(name), path),
        "model.int8-static.pte": lambda path: pte(convert_pt2e(copy.deepcopy(prepared)), path),
        "model.tflite": lambda path: _tflite(build(name), sample, path, None),
        "model.int8-static.tflite": lambda path: _tflite(
            convert_pt2e(copy.deepcopy(prepared), fold_quantize=False), sample, path, _quantized()
        ),
    }
    failed = {}
    for file, step in steps.items():
        try:
            step(folder / file)
        except Exception as error:
            failed[file] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:80]}"
    return failed


def _tflite(module: torch.nn.Module, sample: tuple[torch.Tensor, ...], path: Path, quantized: Any) -> None:
    import litert_torch

    litert_torch.convert(module, sample, quant_config=quantized).export(str(path))


def _quantized() -> Any:
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    return QuantConfig(pt2e_quantizer=quantizer)


def with_edgeopt(name: str, folder: Path) -> Path:
    """The same four files in a bundle."""
    sample = (example(name),)
    # Random weights: a quantised file need not agree with the float one to be timed.
    with contextlib.suppress(edgeopt.GateError):
        edgeopt.export(
            build(name), profile="host", precision="fp32,int8-static", example_inputs=sample,
            calibration=[sample], output=folder / "bundle", name=name,
        )  # fmt: skip
    return folder / "bundle"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["mobilenet_v3_large", "convnext_femto", "segformer_b0"])
    parser.add_argument("--num-threads", type=int, default=1)
    given = parser.parse_args()
    unknown = sorted(set(given.models) - set(MODELS))
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}: choose from {', '.join(MODELS)}")
    print("| Model | File | by hand ms | edgeopt ms | ratio (95%) | |\n|---|---|---|---|---|---|")
    for name in given.models:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "by_hand"
            folder.mkdir()
            failed = by_hand(name, folder)
            bundle = with_edgeopt(name, Path(place))
            for file in ("model.pte", "model.int8-static.pte", "model.tflite", "model.int8-static.tflite"):
                print(
                    f"| {name} | {file} | {_row(folder / file, bundle / file, failed, given.num_threads)} |",
                    flush=True,
                )


def _row(hand: Path, ours: Path, failed: dict[str, str], num_threads: int) -> str:
    if hand.name in failed or not ours.is_file():
        return f"{failed.get(hand.name, 'made')} | {'made' if ours.is_file() else 'not made'} | – | –"
    try:
        found = edgeopt.compare([hand, ours], MeasureOptions(num_threads=num_threads))
    except edgeopt.EdgeoptError as error:
        return f"{error} | – | – | –"
    times = [f"{summary.median_ms:.3g}" for summary in found.summaries]
    duel = found.duels[0]
    return f"{times[0]} | {times[1]} | {duel.ratio.value:.2f} ({duel.ratio.low:.2f}–{duel.ratio.high:.2f}) | {duel.verdict}"


if __name__ == "__main__":
    main()
