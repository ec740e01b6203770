"""The house rules a machine can check: direction of imports, packaging, what --help may import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEVELS = {
    "errors": 0,
    "disk": 0,
    "wording": 0,
    "device_profiles": 1,
    "runtimes": 1,
    "models": 2,
    "cost_model": 2,
    "optimizers": 3,
    "converters": 4,
    "bundle": 5,
    "gates": 5,
    "android_harness": 6,
    "results": 7,
    "verify": 8,
    "analyze": 8,
    "doctor": 8,
    "planning": 8,
    "keras_planning": 8,
    "estimating": 8,
    "record": 9,
    "keras_export": 9,
    "optimization": 9,
    "pipeline": 10,
    "calibration": 11,
    "cli": 12,
    "__main__": 13,
    "__init__": 13,
}


def _modules() -> list[Path]:
    folders = [ROOT / name for name in LEVELS if (ROOT / name).is_dir()]
    return [*ROOT.glob("*.py"), *(p for folder in folders for p in folder.rglob("*.py"))]


def _home(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported_homes(path: Path) -> set[str]:
    depth = len(path.relative_to(ROOT).parts)
    homes = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            homes.update(name for name in names if name in LEVELS)
    return homes


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    home = _home(path)
    if home == "__init__":
        return
    assert home in LEVELS, f"{home} has no level in docs/architecture.md"
    for other in _imported_homes(path) - {home, "__init__"}:
        assert LEVELS[other] <= LEVELS[home] and other != home, f"{path} imports {other} from below it"


def test_every_package_folder_is_in_the_wheel() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"edgeopt"}
    for init in ROOT.rglob("__init__.py"):
        parts = init.relative_to(ROOT).parts[:-1]
        if parts and parts[0] in LEVELS:
            found.add(".".join(("edgeopt", *parts)))
    assert listed == found


def test_root_modules_hide_nothing_of_the_standard_library() -> None:
    names = {path.stem for path in ROOT.glob("*.py")} | {p.name for p in ROOT.iterdir() if p.is_dir()}
    assert not names & (sys.stdlib_module_names - {"__main__"})


HEAVY = {
    "torch",
    "executorch",
    "torchao",
    "litert_torch",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "tensorflow",
    "numpy",
    "sqlalchemy",
    "jax",
}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["profiles"], ["export", "--help"], ["doctor"], ["bench", "--help"]]
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from edgeopt.cli import main; main(sys.argv[1:]); "
        "print('MODULES', *sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.rpartition("MODULES")[2].split())
    assert not modules & HEAVY


def test_help_is_quick() -> None:
    """0.4 s is the goal on a quiet machine; CPU time is asserted, with room for a slow one."""
    before = os.times()
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "edgeopt", "--help"], capture_output=True, check=True, env={**os.environ}
    )
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"edgeopt --help: {time.monotonic() - started:.2f} s wall, {cpu_s:.2f} s CPU")
    assert cpu_s < 1.0
