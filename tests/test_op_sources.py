"""--profile-ops with a real ETRecord: ops know the module and the line they come from."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeopt.android_harness.op_sources import delegated_sources, source_of
from edgeopt.cli.app import main

MAKER = Path(__file__).parent / "models" / "make_etrecord.py"


@pytest.mark.slow
def test_ops_name_their_module_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(MAKER))["main"](tmp_path)
    capsys.readouterr()
    file = str(tmp_path / "recorded.pte")
    arguments = ["--profile-ops", "--no-store", "--json", "--processes", "1", "--max-time", "1"]
    assert main(["bench", file, *arguments]) == 0
    ops = json.loads(capsys.readouterr().out)["profiles_of_ops"][0]["ops"]
    sources = {op["name"]: op["source"] for op in ops}
    lines = MAKER.read_text().splitlines()
    line = {
        word: next(i for i, text in enumerate(lines, 1) if word in text)
        for word in ("self.second(", "cumsum")
    }
    line["self.head(sums)"] = next(i for i, text in enumerate(lines, 1) if "self.head(sums)" in text)
    assert sources["cumsum.out"] == f"Recorded · make_etrecord.py:{line['cumsum']}"
    convolutions = [op["source"] for op in ops if op["name"].startswith("Convolution")]
    at = line["self.second("]
    assert convolutions == [f"{name} (Conv2d) · make_etrecord.py:{at}" for name in ("first", "second")]
    (head,) = [op["source"] for op in ops if op["name"].startswith("Fully Connected")]
    assert head == f"head (Linear) · make_etrecord.py:{line['self.head(sums)']}"
    (tmp_path / "recorded.etrecord").unlink()
    assert main(["bench", file, *arguments]) == 0
    bare = json.loads(capsys.readouterr().out)["profiles_of_ops"][0]["ops"]
    assert [op["name"] for op in bare] == [op["name"] for op in ops]
    assert not any(op["source"] for op in bare)


def test_nothing_is_claimed_where_the_counts_differ() -> None:
    events = [SimpleNamespace(name="Convolution (NHWC, F32) IGEMM #1"), SimpleNamespace(name="Transpose #1")]
    nodes = {"aten_convolution_default_": {"a": ("first", "torch.nn.Conv2d")}}
    call = SimpleNamespace(module_hierarchy=nodes, stack_traces={})
    assert delegated_sources(events, call) == {0: "first (Conv2d)"}
    call.module_hierarchy = {**nodes, "aten_convolution_default_1": {"a": ("second", "torch.nn.Conv2d")}}
    assert delegated_sources(events, call) == {}
    assert source_of(SimpleNamespace(module_hierarchy=None, stack_traces=None)) is None
