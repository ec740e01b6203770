"""The benchmark behind docs/methods.md: its recipes can be read, its goals are judged, its page keeps what people wrote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgeopt.optimizers.recipe import load_recipe

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("methods_anchors", "methods_catalog", "methods_page", "methods_students", "methods_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def cell(metric: float, size: int = 100, instructions: int = 1000, macs: int = 1000) -> dict[str, Any]:
    file = {
        "metric": metric,
        "size_bytes": size,
        "zlib_bytes": size,
        "snr_db": 40.0,
        "status": "verified",
        "emulated": {"instructions": instructions},
        "host": {"latency_ms": 0.0123, "band": [0.012, 0.0131]},
    }
    return {
        "metric_name": "accuracy",
        "source_metric": 0.98,
        "samples": 1000,
        "macs": macs,
        "parameters": 10,
        "not_made": [],
        "files": {"pte": file},
    }


def judged(cells: dict[tuple[str, str], Any]) -> dict[str, bool]:
    from methods_anchors import anchors

    return {goal: holds for goal, _, holds in anchors(cells)}


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path: Path) -> None:
    assert load_recipe(str(path)).passes


def test_every_method_names_a_recipe_that_is_there() -> None:
    from methods_catalog import MODELS

    for model in MODELS.values():
        assert model.source.is_file()
        assert len({method.name for method in model.methods}) == len(model.methods)
        for method in model.methods:
            path = method.recipe_file
            assert load_recipe(str(path) if path else method.recipe).passes


@pytest.mark.parametrize(("found", "holds"), [(0.98, True), (0.976, True), (0.974, False)])
def test_static_int8_may_lose_half_a_point(found: float, holds: bool) -> None:
    (verdict,) = judged({("mnist", "int8-static"): cell(found)}).values()
    assert verdict is holds


@pytest.mark.parametrize(
    ("found", "macs", "holds"), [(0.975, 500, True), (0.975, 510, False), (0.96, 500, False)]
)
def test_pruning_is_judged_by_what_went_and_what_was_lost(found: float, macs: int, holds: bool) -> None:
    (verdict,) = judged(
        {("mnist", "fp32"): cell(0.98), ("mnist", "prune50"): cell(found, macs=macs)}
    ).values()
    assert verdict is holds


@pytest.mark.parametrize(
    ("size", "instructions", "found", "holds"),
    [(40, 550, 0.98, True), (50, 550, 0.98, False), (40, 620, 0.98, False), (40, 550, 0.97, False)],
)
def test_mixed_must_keep_int8s_gain_in_size_and_in_instructions(
    size: int, instructions: int, found: float, holds: bool
) -> None:
    cells = {
        ("mnist", "outliers-fp32"): cell(0.98, 100, 1000),
        ("mnist", "outliers-int8"): cell(0.5, 30, 500),
        ("mnist", "outliers-mixed"): cell(found, size, instructions),
    }
    (verdict,) = judged(cells).values()
    assert verdict is holds


@pytest.mark.parametrize(("taught", "holds"), [((0.93, 0.93), True), ((0.93, 0.90), False)])
def test_a_students_gain_is_the_mean_of_its_seeds(taught: tuple[float, ...], holds: bool) -> None:
    cells = {("mnist", "students"): {"runs": {"500 labels": [[0.915, score] for score in taught]}}}
    (verdict,) = judged(cells).values()
    assert verdict is holds


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with text around its tables, in the place of docs/methods.md."""
    import methods_page

    path = tmp_path / "methods.md"
    path.write_text(f"before\n{methods_page.BEGIN}\nstale figures\n{methods_page.END}\nafter\n")
    monkeypatch.setattr(methods_page, "PAGE", path)
    return path


def test_a_study_without_a_goal_is_shown_all_the_same(page: Path) -> None:
    import methods_page

    cells = {("mnist", "students"): {"runs": {"2,000 images": [[0.75, 0.70], [0.74, 0.71]]}}}
    assert not judged(cells)
    methods_page.write(cells)
    row = "| 74.50% | 70.50% | -4.00 points, mean of 2 seeds (-5.00 to -3.00) |"
    assert row in page.read_text()


def test_the_page_keeps_what_stands_around_the_tables(page: Path) -> None:
    import methods_page

    for _ in range(2):
        methods_page.write({("mnist", "fp32"): cell(0.98), ("mnist", "int8-static"): cell(0.979, 30)})
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale figures" not in text
    assert "| int8 static | .pte | 97.90% | -0.10 |  | 0.0 | 0.30 |" in text
    assert "12.3 (12.0–13.1)" in text
