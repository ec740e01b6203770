"""Unstructured and N:M sparsity: weights become 0 while the model trains on.

The share of zeros rises along a cubic curve (Zhu & Gupta, 2017): s(t) = s_f · (1 − (1 − t / t_end)³), t being the
share of the training done, and is held from t_end on. N:M zeroes all but n of each m weights in a row, at once.
Neither makes a file faster where no sparse kernel runs, and none does in the formats made here: the report says so.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from .eager import EagerContext, PassReport, Workpiece
from .figures import figures, prediction_sentence, time_sentence, with_predictions, with_times
from .importance import gradients
from .registry import kind_of, recipe_pass, register
from .training import Supervised, TrainingOptions, fit
from .training.loop import Hooks, apply_masks

# From here on no more weights are zeroed and those that are left recover.
RAMP_END = 0.7
_UPDATES = 20
_PATTERN = re.compile(r"([1-9]\d?):([1-9]\d?)")
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)


@recipe_pass("sparsify", trains=True, eager=True)
@dataclass(frozen=True)
class Sparsify(TrainingOptions):
    """Zero the least important weights of convolutions and linear layers while training on.

    Attributes:
        sparsity: share of those weights that are 0 in the end; an N:M pattern has its own.
        pattern: ``unstructured``, or N:M such as ``2:4``: n of each m weights in a row are kept.
        importance: magnitude |w|, or gradient |w · ∂L/∂w| on training data.
        scope: rank the weights of all layers together, or each layer's by themselves.
    """

    sparsity: float = 0.8
    pattern: str = "unstructured"
    importance: Literal["magnitude", "gradient"] = "magnitude"
    scope: Literal["global", "layer"] = "layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity must be between 0 and 1, found {self.sparsity:g}")
        if self.pattern != "unstructured":
            match = _PATTERN.fullmatch(self.pattern)
            if match is None or int(match[1]) >= int(match[2]):
                raise ValueError(f"pattern must be unstructured or N:M such as 2:4, found {self.pattern!r}")

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """(n, m) of an N:M pattern."""
        match = _PATTERN.fullmatch(self.pattern)
        return (int(match[1]), int(match[2])) if match else None


@register(Sparsify)
def _sparsify(config: Sparsify, piece: Workpiece, context: EagerContext) -> Workpiece:
    data = context.data()
    before = copy.deepcopy(piece.module)
    module = piece.module
    objective = Supervised(config, data)
    weights = prunable_weights(module)
    masks: dict[str, torch.Tensor] = {}
    last = [-1]

    def scores() -> dict[str, torch.Tensor]:
        if config.importance == "magnitude":
            return {name: w.detach().abs() for name, w in weights.items()}
        found = gradients(module, objective, data, config.batch_size)
        return {name: (w.detach() * found[name].to(w.device)).abs() for name, w in weights.items()}

    def update(done: float) -> None:
        step = min(int(done / RAMP_END * _UPDATES), _UPDATES)
        if step == last[0]:
            return
        last[0] = step
        share = scheduled_sparsity(step / _UPDATES, config.sparsity)
        masks.clear()
        masks.update(_combined(_masks(config, scores(), share), piece.masks))
        apply_masks(weights, masks)

    def start_epoch(epoch: int) -> None:
        last[0] = -1

    hooks = Hooks(masks=masks, before_step=update, before_epoch=start_epoch, keep_from=RAMP_END)
    result = fit(
        module,
        data,
        objective,
        config,
        seed=context.seed,
        what="sparsifying",
        progress=context.progress,
        checkpoint=context.work.part("fit") if context.work else None,
        hooks=hooks,
    )
    final = {name: (w.detach() != 0).to(torch.uint8) for name, w in prunable_weights(module).items()}
    done = _report(config, before, piece, context, final, result.sentence())
    done = replace(done, details={**done.details, **result.to_dict()})
    return replace(piece, masks=final, reports=(*piece.reports, done))


def _report(
    config: Sparsify,
    before: nn.Module,
    piece: Workpiece,
    context: EagerContext,
    masks: Mapping[str, torch.Tensor],
    trained: str,
) -> PassReport:
    example = context.source.example
    old, new = with_times(
        (before, figures(before, example)), (piece.module, figures(piece.module, example)), example
    )
    old = with_predictions(before, old, context.source, context.profile)
    new = with_predictions(piece.module, new, context.source, context.profile)
    total = sum(mask.numel() for mask in masks.values())
    zeros = 1 - sum(int(mask.sum()) for mask in masks.values()) / total
    words = (
        f"{config.pattern}: {zeros:.1%} of the weights are 0 ({trained}); zlib takes them from "
        f"{old.compressed_bytes / 1e3:.1f} to {new.compressed_bytes / 1e3:.1f} kB, {time_sentence(old, new)}{prediction_sentence(old, new, context.profile)}"
    )
    warning = (
        f"{config.pattern} sparsity of {zeros:.0%} saves no time: no sparse kernel runs in these formats, the dense "
        "ones multiply the zeros too; it pays only in the compressed size"
    )
    return PassReport(kind_of(config).name, words, old, new, {"zeros_ratio": zeros}, (warning,))


def scheduled_sparsity(done: float, final: float) -> float:
    """s(t) = s_f · (1 − (1 − t)³), from 0 at t = 0 to ``final`` at t = 1 (Zhu & Gupta, 2017)."""
    return final * (1 - (1 - min(max(done, 0.0), 1.0)) ** 3)


def prunable_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameter name -> weight of each convolution and linear layer."""
    return {
        f"{path}.weight" if path else "weight": part.weight
        for path, part in module.named_modules()
        if isinstance(part, _LAYERS) and part.weight.requires_grad
    }


def _masks(config: Sparsify, scores: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    kept_of = config.kept_of
    if kept_of is not None:
        return {name: pattern_mask(score, *kept_of) for name, score in scores.items()}
    if config.scope == "layer":
        return {name: lowest_mask(score, share) for name, score in scores.items()}
    joined = lowest_mask(torch.cat([score.flatten() for score in scores.values()]), share)
    parts = joined.split([score.numel() for score in scores.values()])
    return {
        name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def lowest_mask(score: torch.Tensor, share: float) -> torch.Tensor:
    """0 for the lowest ⌊share · count⌉ entries of ``score``, 1 for the rest; the earlier of equals goes first."""
    count = round(score.numel() * share)
    mask = torch.ones(score.numel(), dtype=torch.uint8, device=score.device)
    mask[torch.argsort(score.flatten(), stable=True)[:count]] = 0
    return mask.reshape(score.shape)


def pattern_mask(score: torch.Tensor, kept: int, block: int) -> torch.Tensor:
    """1 for the ``kept`` highest of each ``block`` entries along a row [out, the rest]; a shorter last block keeps its share."""
    rows = score.flatten(1)
    mask = torch.zeros_like(rows, dtype=torch.uint8)
    for start in range(0, rows.shape[1], block):
        part = rows[:, start : start + block]
        count = min(part.shape[1], -(-part.shape[1] * kept // block))
        best = torch.argsort(part, dim=1, descending=True, stable=True)[:, :count]
        mask[:, start : start + block].scatter_(1, best, 1)
    return mask.reshape(score.shape)


def _combined(
    masks: Mapping[str, torch.Tensor], earlier: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    return {name: mask * earlier[name].to(mask) if name in earlier else mask for name, mask in masks.items()}
