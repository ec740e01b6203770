"""The C++ example: built for arm64 with the emulator's compiler and run under QEMU on a real bundle."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from app_bundles import CLASHES, DYNAMIC, ODD_NAMES, make_bundle
from cpp_example import build, check_syntax, run

import edgeopt
from edgeopt.android_harness.app import generate
from edgeopt.android_harness.emulator import setup
from edgeopt.bundle import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.emulator]
HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def toolchain() -> None:
    setup()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two inputs with a dynamic batch, scores and a whole-number class; names that are keywords."""
    output = tmp_path_factory.mktemp("bundles") / "pair"
    return edgeopt.export(
        f"{HERE / 'app_models.py'}:pair",
        profile="raspberry_pi_4",
        precision="fp32",
        dynamic_batch=True,
        labels=["cat", "dog", "bird"],
        mean="0.5,0.5,0.5",
        std="0.25,0.25,0.25",
        output=output,
    )


@pytest.mark.parametrize("specs", [ODD_NAMES, CLASHES, DYNAMIC], ids=["odd", "clash", "dynamic"])
def test_any_names_compile(tmp_path: Path, specs: Any) -> None:
    made = make_bundle(tmp_path / "bundle", *specs, name="golden", formats=("pte",))
    generate(made, package="com.acme.edge", output=tmp_path / "example", platform="cpp")
    check_syntax(tmp_path / "example/src/golden_model.cpp", tmp_path / "example/src/main.cpp")


def test_what_the_export_was_told_reaches_the_app(bundle: Bundle, tmp_path: Path) -> None:
    deployment = bundle.manifest.deployment
    assert deployment is not None and deployment.std == [0.25, 0.25, 0.25]
    made = generate(bundle, package="com.acme.edge", output=tmp_path / "app")
    assert made.context.labels is not None and made.context.labels.names == ("cat", "dog", "bird")
    assert made.context.dims == ("batch",)


def test_the_signature_is_the_one_the_kotlin_asks_for(bundle: Bundle) -> None:
    """LiteRT's Kotlin classes run a model by its signature's name; the wrapper has it as a constant."""
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(str(bundle.path / "model.tflite")).get_signature_list()
    assert signatures == {
        "serving_default": {"inputs": ["default", "image"], "outputs": ["class_scores", "int"]}
    }


@pytest.mark.parametrize("runtime", ["executorch", "litert"])
def test_the_golden_outputs_come_out_on_arm64(bundle: Bundle, tmp_path: Path, runtime: str) -> None:
    artifact = next(a for a in bundle.artifacts if a.runtime == runtime)
    source = tmp_path / "example"
    made = generate(bundle, package="com.acme.edge", output=source, platform="cpp", file=artifact.file)
    assert [t.ident for t in made.context.inputs] == ["image", "defaultValue"]
    program = build(source, runtime, tmp_path / "build")

    code, out, err = run(program, runtime, source / "data", tmp_path / "good")
    assert code == 0, out + err
    found = re.findall(r"^ok (\w+): (\w+) ([\d.]+), at least ([\d.]+), (\d+) samples$", out, re.MULTILINE)
    assert [(name, measure) for name, measure, *_ in found] == [
        ("classScores", "snr_db"),
        ("intValue", "agreement"),
    ]
    assert float(found[0][2]) > 100  # float32 on both sides
    # The golden samples have several batch sizes: the outputs follow.
    shapes = {line.split()[4] for line in (source / "data/golden/golden.txt").read_text().splitlines()[3:]}
    assert len({shape for shape in shapes if shape.endswith("x3x12x12")}) == 3

    damaged = tmp_path / "damaged"
    shutil.copytree(source / "data", damaged)
    model = damaged / artifact.file
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    code, _, err = run(program, runtime, damaged, tmp_path / "bad")
    assert code == 1
    assert f"{artifact.file} is not the file that was exported: its SHA-256 is " in err

    wrong = tmp_path / "wrong"
    shutil.copytree(source / "data", wrong)
    golden = next((wrong / "golden").glob("0.output.0.bin"))
    golden.write_bytes(bytes(len(golden.read_bytes())))
    code, out, _ = run(program, runtime, wrong, tmp_path / "other")
    assert code == 1 and out.startswith("FAILED classScores")
