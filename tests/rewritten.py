"""Captures models and compares a rewritten program with what it was: for the tests of rewrites."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from edgeopt.models.program import Capture, capture
from edgeopt.models.source import load_source_model


def _odd_modules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("odd_modules", Path(__file__).parent / "odd_modules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["odd_modules"] = module
    spec.loader.exec_module(module)
    return module


ODD = _odd_modules().ODD


class Function(nn.Module):
    """A model of one function of its inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self._function(x)


def captured(model: nn.Module, example: Any, **options: Any) -> Capture:
    return capture(load_source_model(model.eval(), example_inputs=example, **options))


def operators(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def assert_equal(before: Capture, program: torch.export.ExportedProgram, tolerance: float = 1e-5) -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        inputs = [
            torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
            for t in before.source.example
        ]
        wanted = before.program.module()(*inputs)
        found = program.module()(*inputs)
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)
