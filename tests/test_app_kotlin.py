"""The generated Kotlin: compiled by a real compiler, and run on a JVM against fakes of the runtimes.

No APK is built and no phone is used here. What these tests show is the wiring: names, order, types, sizes,
hashes, versions, fallbacks. The fakes are described in tests/kotlin_stubs/README.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from app_bundles import CHANNELS_LAST, CLASHES, DEPLOYMENT, DYNAMIC, ODD_NAMES, PICTURE, make_bundle
from kotlin_compiler import STUBS, compile_kotlin, missing, run_kotlin

from edgeopt.android_harness.app import generate
from edgeopt.android_harness.in_app import read_log

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

APP_LOGS = Path(__file__).parent / "app_logs"
CHECKS = Path(__file__).parent / "kotlin_checks"
FLAGS = ([("on", "bool", [2]), ("grey", "float32", [1, 1, 4, 4])], [("off", "bool", [2])])
# name -> (inputs and outputs, the model's name, deployment, formats)
MODULES = {
    "picture": (PICTURE, "Tiny Net", DEPLOYMENT, ("pte", "tflite")),
    "odd": (ODD_NAMES, "4 größe/модель", None, ("pte", "tflite")),
    "dynamic": (DYNAMIC, "Module", None, ("pte",)),
    "flags": (FLAGS, "class", {"mean": [0.5], "std": [0.25]}, ("tflite",)),
    "keras": (CHANNELS_LAST, "Photos", DEPLOYMENT, ("tflite",)),
    "clash": (CLASHES, "Runtime", None, ("pte", "tflite")),
    "old": (PICTURE, "Tiny Net", None, ("pte",)),
}
RUNTIMES = {"pte": ("executorch", "1.5.1"), "tflite": ("litert", "2.3.0")}


@dataclass(frozen=True)
class Module:
    """A generated module: its package, folder, and the model file's tensor names."""

    package: str
    folder: Path
    inputs: list[str]
    outputs: list[str]


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Module]:
    root = tmp_path_factory.mktemp("kotlin")
    made = {}
    for name, ((inputs, outputs), title, deployment, formats) in MODULES.items():
        versions = {"executorch": "1.6.0"} if name == "old" else None
        bundle = make_bundle(
            root / "bundles" / name,
            inputs,
            outputs,
            name=title,
            deployment=deployment,
            formats=formats,
            versions=versions,
        )
        for artifact in bundle.artifacts:
            package = f"com.acme.{name}.{artifact.runtime}"
            folder = root / "apps" / package
            generate(bundle, package=package, output=folder, file=artifact.file)
            made[package] = Module(
                package, folder, [t.name for t in artifact.inputs], [t.name for t in artifact.outputs]
            )
    return made


@dataclass(frozen=True)
class Compiled:
    classes: Path
    messages: str


@pytest.fixture(scope="session")
def compiled(modules: dict[str, Module], request: pytest.FixtureRequest, tmp_path_factory) -> Compiled:
    """Stubs, modules and checks in one compilation; kept for as long as no source changes."""
    build = tmp_path_factory.mktemp("build_config")
    for module in modules.values():
        version = next(v for runtime, v in RUNTIMES.values() if module.package.endswith(runtime))
        (build / f"{module.package}.kt").write_text(
            # What the Gradle plugin makes of buildConfigField.
            f"package {module.package}\n\npublic object BuildConfig {{\n"
            f'    public const val RUNTIME_VERSION: String = "{version}"\n}}\n'
        )
    generated = sorted(file for module in modules.values() for file in module.folder.rglob("*.kt"))
    sources = [
        *sorted(STUBS.glob("*.kt")),
        *sorted(CHECKS.glob("*.kt")),
        *sorted(build.glob("*.kt")),
        *generated,
    ]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + source.read_bytes())
    cache = Path(request.config.cache.mkdir("edgeopt-kotlin"))
    folder = cache / digest.hexdigest()[:16]
    if not (folder / "messages.txt").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        done = compile_kotlin(sources, folder / "classes", (), "-Xexplicit-api=warning")
        assert done.returncode == 0, "\n".join(re.findall(r".*error:.*", done.stderr)[:30])
        kept = [line for line in done.stderr.splitlines() if "/apps/com.acme." in line]
        (folder / "messages.txt").write_text("\n".join(kept))
    return Compiled(folder / "classes", (folder / "messages.txt").read_text())


def test_it_compiles_without_a_warning(compiled: Compiled) -> None:
    """Both formats, several inputs and outputs, odd names, every type; explicit API mode on."""
    assert compiled.messages == ""


@pytest.fixture(scope="session")
def ran(compiled: Compiled, modules: dict[str, Module], tmp_path_factory) -> Iterator[list[str]]:
    """The lines of one JVM that ran the modules' own tests and the checks."""
    root = tmp_path_factory.mktemp("runs")
    runs = []

    def add(test: str, module: Module) -> None:
        assets = [module.folder / f"model/src/{where}/assets" for where in ("main", "androidTest")]
        run = root / f"{test}.run"
        lines = [
            test,
            ":".join(str(folder) for folder in assets),
            str(root / "files"),
            "\t".join(module.inputs),
            "\t".join(module.outputs),
        ]
        run.write_text("\n".join(lines) + "\n")
        runs.append(str(run))

    for package, module in modules.items():
        add(f"{package}.ModelSpecTest", module)
        if ".old." not in package:
            add(f"{package}.GoldenTest", module)
    add("edgeopt.checks.LitertChecks", modules["com.acme.picture.litert"])
    add("edgeopt.checks.ExecutorchChecks", modules["com.acme.picture.executorch"])
    done = run_kotlin("edgeopt.fake.RunnerKt", [compiled.classes], runs)
    assert "Exception in thread" not in done.stderr, done.stderr[-2000:]
    yield done.stdout.splitlines()


@pytest.mark.parametrize("name", [*MODULES, "checks"])
def test_its_own_tests_pass(ran: list[str], name: str) -> None:
    mine = [line for line in ran if f".{name}." in line]
    assert len(mine) >= 4
    assert [line for line in mine if not line.startswith("ok ")] == []


def test_the_golden_test_can_fail(compiled: Compiled, modules: dict[str, Module], tmp_path: Path) -> None:
    """A golden test that passes with wrong outputs would be worth nothing."""
    module = modules["com.acme.picture.executorch"]
    folder = tmp_path / "assets"
    for where in ("main", "androidTest"):
        shutil.copytree(module.folder / f"model/src/{where}/assets", folder, dirs_exist_ok=True)
    golden = folder / "edgeopt/tiny_net/golden/golden.txt"
    text = golden.read_text()
    assert "tolerance 1 agreement 0.999" in text
    golden.write_text(text.replace("tolerance 1 agreement 0.999", "tolerance 1 agreement 1.001"))
    run = tmp_path / "impossible.run"
    test = "com.acme.picture.executorch.GoldenTest"
    run.write_text("\n".join([test, str(folder), str(tmp_path / "files"), "input_0", "a\tb"]) + "\n")
    done = run_kotlin("edgeopt.fake.RunnerKt", [compiled.classes], [str(run)])
    assert done.returncode == 1
    assert f"FAIL {test}.everyOutputIsWithinItsTolerance" in done.stdout
    assert "mask: agreement 1.0, at least 1.001" in done.stdout


def benchmark_lines(ran: list[str], name: str) -> list[str]:
    return [line.removeprefix(f"benchmark {name} ") for line in ran if line.startswith(f"benchmark {name} ")]


@pytest.mark.parametrize("name", ["report", "failure"])
def test_the_sample_logs_what_the_golden_file_holds(ran: list[str], name: str) -> None:
    """The lines that tests/test_in_app.py replays on a phone were printed by the template's own code."""
    lines = benchmark_lines(ran, name)
    file = APP_LOGS / f"{name}.log"
    if os.environ.get("EDGEOPT_WRITE_GOLDEN"):
        file.write_text("".join(f"{line}\n" for line in lines))
    assert [masked(line) for line in lines] == [masked(line) for line in file.read_text().splitlines()]


def masked(line: str) -> str:
    """Without what differs from run to run: times, memory, and the JVM's processor."""
    line = re.sub(r"\d+\.\d{4}", "0.0000", line)
    return re.sub(r'("peak_memory_kib"): \d+', r"\1: 0", line)


def test_a_long_report_is_read_as_it_was_printed(ran: list[str]) -> None:
    lines = benchmark_lines(ran, "long")
    assert len(lines) > 1 and all(len(line) < 4000 for line in lines)
    log = read_log("\n".join([*lines, "edgeopt-alive:4210"]), "0a1b2c3d", "com.acme.vision.sample")
    assert log.report is not None and not log.rotated
    assert len(json.loads(log.report)["runs_ms"]) == 1000
    assert read_log("\n".join(lines[1:]), "0a1b2c3d", "com.acme.vision.sample").rotated
