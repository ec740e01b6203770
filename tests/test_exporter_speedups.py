"""Work taken out of the exporters: the same result, less of it, and everything as it was afterwards."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgeopt.calibration import files as suite_files_of
from edgeopt.converters import workers
from edgeopt.converters.exporter_speedups import compiled_once, fast_decompositions
from edgeopt.optimizers.annotation import make_quantizer


def _exported(*layers: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(nn.Sequential(*layers).eval(), (torch.ones(1, 3, 8, 8),))


def test_a_decomposition_is_the_same_and_asks_the_dispatcher_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._export import utils

    program = _exported(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(144, 2))
    expected = str(program.run_decompositions({}).graph)
    asked: list[int] = []
    materialize = utils._materialize_cpp_cia_ops
    monkeypatch.setattr(utils, "_materialize_cpp_cia_ops", lambda: (asked.append(1), materialize())[0])
    before = torch._ops.OperatorBase.py_impl
    with fast_decompositions():
        found = str(program.run_decompositions({}).graph)
        assert torch._ops.OperatorBase.py_impl is not before
    assert found == expected
    assert len(asked) == 1
    assert torch._ops.OperatorBase.py_impl is before
    program.run_decompositions({})
    assert len(asked) > 20, "torch asks once for all by now: collect_once() can go"


def test_a_kernel_registered_twice_is_refused_as_ever() -> None:
    operator = torch.ops.aten.hardswish.default
    taken = next(iter(operator.py_kernels), torch._C.DispatchKey.AutogradXLA)
    kept = dict(operator.py_kernels)
    try:
        with fast_decompositions():
            if taken not in operator.py_kernels:
                operator.py_impl(taken)(lambda *a: None)
            with pytest.raises(RuntimeError, match="override a python impl"):
                operator.py_impl(taken)(lambda *a: None)
    finally:
        operator.py_kernels.clear()
        operator.py_kernels.update(kept)
        operator._dispatch_cache.clear()


def test_a_graph_that_is_changed_often_is_compiled_when_all_is_done() -> None:
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU(), nn.ReLU()))
    (last,) = [node for node in graph.graph.nodes if node.name == "_1"]
    before = graph.code
    with compiled_once(graph):
        last.replace_all_uses_with(last.args[0])
        graph.graph.erase_node(last)
        graph.recompile()
        assert graph.code == before
    assert before.count("getattr") == 2 and graph.code.count("getattr") == 1
    assert "recompile" not in vars(graph)


@pytest.mark.parametrize("norm", [True, False])
def test_norms_behind_convolutions_are_only_sought_where_there_are_norms(
    norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer_utils as quantizer_utils

    made: list[Any] = []
    make = quantizer_utils._get_aten_graph_module_for_pattern
    monkeypatch.setattr(
        quantizer_utils,
        "_get_aten_graph_module_for_pattern",
        lambda *a, **k: (made.append(a), make(*a, **k))[1],
    )
    layers = [nn.Conv2d(3, 4, 3), *([nn.BatchNorm2d(4)] if norm else []), nn.ReLU()]
    model = _exported(*layers).module()
    quantizer = make_quantizer()
    annotated = quantizer.annotate(quantizer.transform_for_annotation(model))
    assert bool(made) == norm
    assert any("quantization_annotation" in str(node.meta) for node in annotated.graph.nodes)


def _write(pids: Path, name: str, bundle: Path) -> None:
    bundle.mkdir(parents=True)
    (pids / name).write_text(str(os.getpid()))


def test_the_suite_is_made_side_by_side_some_networks_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"n{i}" for i in range(5)]
    pids = tmp_path / "pids"
    pids.mkdir()
    monkeypatch.setattr(suite_files_of, "_AT_ONCE", 3)
    monkeypatch.setattr(suite_files_of, "_export", lambda name, bundle: _write(pids, name, bundle))
    monkeypatch.setattr(suite_files_of, "_files_of", lambda name, bundle: [])
    monkeypatch.setattr(workers, "parallel_processes", lambda weight_bytes, count: 2)
    said: list[tuple[str, float | None]] = []
    suite_files_of.suite_files(
        names, lambda what, share: said.append((what, share)), folder=tmp_path / "suite"
    )
    by = {(pids / name).read_text() for name in names}
    assert len(by) == 2
    assert str(os.getpid()) not in by
    assert sorted(share or 0.0 for _, share in said) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])


def test_a_process_that_dies_leaves_its_networks_to_be_made_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids, here = tmp_path / "pids", os.getpid()
    pids.mkdir()

    def export(name: str, bundle: Path) -> None:
        if name == "n1" and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        _write(pids, name, bundle)

    monkeypatch.setattr(suite_files_of, "_export", export)
    monkeypatch.setattr(suite_files_of, "_files_of", lambda name, bundle: [])
    monkeypatch.setattr(workers, "parallel_processes", lambda weight_bytes, count: 1)
    suite_files_of.suite_files(["n0", "n1", "n2"], lambda what, share: None, folder=tmp_path / "suite")
    made_here = {name: (pids / name).read_text() == str(here) for name in ("n0", "n1", "n2")}
    assert made_here == {"n0": False, "n1": True, "n2": True}


def test_a_task_does_its_own_tasks_one_after_the_other() -> None:
    def outer(say: workers.Progress) -> list[int | None]:
        tasks = [workers.Task(str(i), lambda say: os.getpid()) for i in range(2)]
        inner = workers.run_tasks(tasks, max_parallel=2, on_progress=lambda task, what: None)
        return [os.getpid(), *(each.value for each in inner)]

    (found,) = workers.run_tasks(
        [workers.Task("outer", outer)], max_parallel=1, on_progress=lambda task, what: None
    )
    assert found.value is not None
    assert len(set(found.value)) == 1
    assert found.value[0] != os.getpid()
