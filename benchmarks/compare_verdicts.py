"""How often `edgeopt compare` is wrong: a file against itself, and against a copy with a tenth more work.

    python benchmarks/compare_verdicts.py FOLDER [--times 20] [--suffix pte,tflite]     # exports into FOLDER once

The network is ten equal convolutions; the slower one runs the tenth twice. Every comparison is a call of the command
with its default rounds. Exit code 1 when a file is told from itself more than once, or the slower copy is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import nn

from edgeopt import export

LAYERS = 10


class Chain(nn.Module):
    """Ten equal 3×3 convolutions; ``again`` runs the last one once more."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(LAYERS))
        self.again = again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 32, 32, 32) → the same."""
        for layer in self.layers:
            x = layer(x).relu()
        return self.layers[-1](x).relu() if self.again else x


def bundle(folder: Path, again: bool) -> Path:
    """The bundle of one of the two networks, exported where it isn't there yet."""
    path = folder / ("slower" if again else "plain")
    if not path.is_dir():
        image = (torch.randn(1, 32, 32, 32),)
        export(Chain(again).eval(), profile="host", precision="fp32", example_inputs=image, output=path)
    return path


def compared(first: Path, second: Path) -> tuple[str, float, list[float]]:
    """(verdict on ``second``, ratio of its time to ``first``'s, 95% interval)."""
    command = [sys.executable, "-m", "edgeopt", "compare", str(first), str(second), "--no-store", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (found,) = json.loads(done.stdout)["comparisons"]
    return found["verdict"], found["ratio"], found["ci95"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--suffix", default="pte,tflite")
    given = parser.parse_args()
    wrong = 0
    for suffix in given.suffix.split(","):
        plain, slower = (bundle(given.folder, again) / f"model.{suffix}" for again in (False, True))
        for title, other, right in (
            ("itself", plain, ("same", "undecided")),
            ("10% more work", slower, ("slower",)),
        ):
            found = []
            for number in range(given.times):
                found.append(compared(plain, other))
                verdict, ratio, (low, high) = found[-1]
                print(
                    f"  .{suffix} against {title}, {number + 1}: {verdict} {ratio:.3f} ({low:.3f}-{high:.3f})",
                    file=sys.stderr,
                )
            counted = Counter(verdict for verdict, _, _ in found)
            print(
                f".{suffix} against {title}: " + ", ".join(f"{n} {v}" for v, n in counted.items()), flush=True
            )
            missed = sum(verdict not in right for verdict, _, _ in found)
            wrong += missed > (1 if other is plain else 0)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
