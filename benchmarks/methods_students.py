"""Students alone against students with a teacher, over several seeds: initial weights and order of the data differ,
the images, the epochs and the learning rate don't."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgeopt import optimize
from edgeopt.optimizers import load_recipe

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "method_models.py"
SETS = ("mnist", "fashion")


@dataclass(frozen=True)
class Study:
    """One student with and without the teacher.

    Attributes:
        title: what it sees, and the key of its runs.
        student: suffix of the untrained model.
        data: suffix of its training data.
        taught_data: of what the teacher answers, when it isn't the same: images without labels.
        alone, taught: recipes.
        goal: whether the teacher has to pay here; the others show where it doesn't.
    """

    title: str
    student: str
    data: str
    alone: str
    taught: str
    taught_data: str = ""
    goal: bool = False
    seeds: int = 5


STUDIES = (
    Study(
        "500 labels", "_learner", "_500", "alone-500", "distill-unlabelled-{set}", "_unlabelled", goal=True
    ),
    Study("500 images", "_learner", "_500", "alone-500", "distill-500-{set}", seeds=3),
    Study("2,000 images", "_student", "_2000", "alone-2000", "distill-2000-{set}"),
    # Each run goes through 60,000 images four times.
    Study("60,000 images", "_student", "_training", "alone", "distill-{set}", seeds=1),
)


def study(
    name: str, known: dict[str, Any], work: Path, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Accuracy of [alone, taught] for each seed; what ``known`` already has isn't run again."""
    runs: dict[str, list[list[float]]] = known.setdefault("runs", {})
    for each in STUDIES:
        found = runs.setdefault(each.title, [])
        for seed in range(len(found), each.seeds):
            print(f"  {each.title}, seed {seed}", file=sys.stderr, flush=True)
            sides = ((each.alone, each.data), (each.taught.format(set=name), each.taught_data or each.data))
            pair = [_accuracy(f"{name}{each.student}", seed, *side, name, work) for side in sides]
            found.append(pair)
            save(known)
    return known


@cache
def _accuracy(student: str, seed: int, recipe: str, data: str, name: str, work: Path) -> float:
    chosen = dataclasses.replace(load_recipe(str(HERE / "recipes" / f"{recipe}.toml")), seed=seed)
    report = optimize(
        f"{SOURCE}:{student}{seed or ''}",
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


def parameters(study: Study) -> int:
    """How many the student has."""
    from method_models import build

    model = build(study.student.replace("_learner", ""))
    return sum(parameter.numel() for parameter in model.parameters())
