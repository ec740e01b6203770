"""Students alone against students with a teacher, over several seeds: initial weights and order of the data differ,
the images, the epochs and the learning rate don't."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeopt import optimize
from edgeopt.optimizers import load_recipe

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "method_models.py"
SETS = ("mnist", "fashion")
SEEDS = 5
# What the student sees -> (suffix of its training data, recipe alone, recipe with the teacher).
STUDIES = {
    "2,000 images": ("_few", "alone-few", "distill-few-{set}"),
    "60,000 images": ("_training", "alone", "distill-{set}"),
}


def study(
    name: str, known: dict[str, Any], work: Path, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Accuracy of [alone, taught] for each seed; what ``known`` already has isn't run again."""
    runs: dict[str, list[list[float]]] = known.setdefault("runs", {})
    for title, (data, alone, taught) in STUDIES.items():
        found = runs.setdefault(title, [])
        for seed in range(len(found), SEEDS):
            print(f"  {title}, seed {seed}", file=sys.stderr, flush=True)
            pair = [_accuracy(name, seed, data, part.format(set=name), work) for part in (alone, taught)]
            found.append(pair)
            save(known)
    return known


def _accuracy(name: str, seed: int, data: str, recipe: str, work: Path) -> float:
    chosen = dataclasses.replace(load_recipe(str(HERE / "recipes" / f"{recipe}.toml")), seed=seed)
    report = optimize(
        f"{SOURCE}:{name}_student{seed or ''}",
        recipe=chosen,
        output=work / "student",
        training=f"{SOURCE}:{name}{data}",
        evaluate=f"{SOURCE}:{name}_evaluate",
        example_inputs=f"{SOURCE}:{name}_example",
        force=True,
        use_cache=False,
    )
    shutil.rmtree(work / "student")
    return float(report["metric"][1])
