"""Recipes carried out on the small net of optimizer_models.py, without conversion."""

from __future__ import annotations

from typing import Any

import optimizer_models as models
import torch
from torch import nn

from edgeopt.models.program import capture
from edgeopt.models.source import SourceModel, load_source_model
from edgeopt.optimization import train
from edgeopt.optimizers.passes import Context, OptimizedModel, Optimizer
from edgeopt.optimizers.recipe import Recipe, check_order
from edgeopt.optimizers.registry import build, known_passes
from edgeopt.optimizers.sensitivity import ProbeGraph
from edgeopt.optimizers.training import load_training
from edgeopt.planning import Optimized


def a_pass(name: str, **options: Any) -> Any:
    return build(known_passes()[name], options)


def source_of(model: nn.Module | None = None) -> SourceModel:
    return load_source_model(model or models.net(), example_inputs=models.example_inputs(), name="net")


def apply(
    *passes: Any, model: nn.Module | None = None, training: Any = models.training, seed: int = 0
) -> Optimized:
    """A recipe carried out on the model, without conversion."""
    source = source_of(model)
    recipe = Recipe("test", passes, seed)
    check_order(recipe, "test")
    rows = load_training(source, training) if training is not None else None
    samples = [(sample,) for sample in models.calibration()]
    made, _ = train(recipe, source, capture(source), rows, None, samples, lambda what: None, use_cache=False)
    return made


def quantized(model: nn.Module, *passes: Any) -> tuple[OptimizedModel, ProbeGraph]:
    """The model after these passes, and its graph with quantisers that can be switched."""
    captured = capture(source_of(model))
    samples = [(sample,) for sample in models.calibration()]
    done = Optimizer(captured, Context(samples, lambda what: None)).run(Recipe("test", passes))
    assert done.prepared is not None
    return done, ProbeGraph(done.capture, done.prepared, samples[:8])


def module_of(made: Optimized) -> nn.Module:
    return made.model.capture.source.module.model


def logits_of(made: Optimized) -> nn.Module:
    """The captured program as a module of images and logits."""
    graph = made.model.capture.program.module()

    class Logits(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([next(iter(graph(row).values())) for row in images.split(1)])

    return Logits()
