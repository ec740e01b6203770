"""How important a channel is: what structured pruning ranks by. What is removed, and how much, is decided elsewhere.

A group (``torch_pruning``'s dependency group) holds all slices of weights that must go together. Each convolution
and linear layer in it gives a score a channel; a channel's score is their mean, divided by the group's mean so that
groups can be ranked together (Fang et al., 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from .training.data import TrainingData
from .training.objectives import Objective

Importance = Literal["l1", "l2", "taylor", "bn_scale", "random"]
# Enough batches for a stable mean of gradients.
_GRADIENT_BATCHES = 8


def channel_scores(
    group: Any, importance: Importance, gradients: Mapping[nn.Parameter, torch.Tensor], seed: int
) -> torch.Tensor:
    """One score a channel of the group's root layer; higher is more important.

    Args:
        group: a dependency group over all channels of its root.
        gradients: parameter -> mean gradient, for ``taylor``.
        seed: of ``random``.
    """
    count = len(group[0].idxs)
    if importance == "random":
        return torch.rand(count, generator=torch.Generator().manual_seed(seed))
    total, found = torch.zeros(count), 0
    for item in group:
        scores = _layer_scores(item, importance, gradients)
        if scores is not None and not any(index is None for index in item.root_idxs):
            total.scatter_add_(0, torch.tensor(item.root_idxs), scores)
            found += 1
    if not found:
        # Network slimming ranks by the batch normalisation's scale; a group without one is ranked by its weights.
        return channel_scores(group, "l1", gradients, seed)
    scores = total / found
    return scores / scores.mean().clamp_min(1e-12)


def _layer_scores(
    item: Any, importance: Importance, gradients: Mapping[nn.Parameter, torch.Tensor]
) -> torch.Tensor | None:
    """Scores of the channels ``item.idxs`` of one layer, or None when the layer has no say in this importance."""
    layer = item.dep.target.module
    norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    if importance == "bn_scale":
        return layer.weight.detach().abs()[item.idxs] if norm and layer.affine else None
    if not isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
        return None
    by_channel = weight_scores(layer.weight, importance, gradients.get(layer.weight))
    outputs = "out" in item.dep.handler.__name__
    # A transposed convolution's weight is [in, out, ...]; a depthwise one's has its channels on axis 0 either way.
    transposed = getattr(layer, "transposed", False)
    depthwise = getattr(layer, "groups", 1) > 1
    axis = 0 if (outputs != transposed or depthwise) else 1
    return by_channel.movedim(axis, 0).flatten(1).sum(1)[item.idxs]


def weight_scores(
    weight: torch.Tensor, importance: Importance, gradient: torch.Tensor | None
) -> torch.Tensor:
    """Score of each weight: |w| (l1), w² (l2), or |w · ∂L/∂w| (first-order Taylor; Molchanov et al., 2017)."""
    value = weight.detach()
    if importance == "taylor":
        assert gradient is not None
        return (value * gradient).abs()
    return value.abs() if importance == "l1" else value.pow(2)


def gradients(
    module: nn.Module, objective: Objective, data: TrainingData, batch_size: int
) -> dict[str, torch.Tensor]:
    """Parameter name -> mean gradient of the loss over the first batches of the training data, in evaluation mode."""
    training = module.training
    module.eval()
    device = next(module.parameters()).device
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    kept = {name: p.grad for name, p in named.items()}
    for parameter in named.values():
        parameter.grad = None
    count = 0
    with torch.enable_grad():
        for batch in data.batches(batch_size, seed=0):
            objective.loss(module, batch.to(device)).backward()  # type: ignore[no-untyped-call]
            count += 1
            if count == _GRADIENT_BATCHES:
                break
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach() / count for name, p in named.items()
    }
    for name, parameter in named.items():
        parameter.grad = kept[name]
    module.train(training)
    return found
