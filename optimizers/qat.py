"""Quantisation-aware training: the captured graph learns to live with int8 before it becomes int8.

The graph is prepared with PT2E as for static int8, but with fake quantisation (round to int8 and back, with the
straight-through gradient) in place of observers, and trained on. Batch normalisation is folded first: on a short
fine-tune its statistics are better left as they are, and what is trained is then exactly what is converted.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch.export import ExportedProgram

from ..errors import EdgeoptError, InputError
from ..models.inputs import DynamicDim
from ..models.program import Capture, capture
from .annotation import make_quantizer
from .cleanup import fold_batch_norm
from .lost_operands import operators_that_lose_an_operand
from .passes import Context, OptimizedModel
from .registry import recipe_pass, register
from .training import Supervised, TrainingData, TrainingOptions, fit
from .training.loop import Hooks

# Ranges follow the data in the first part of the training and stay as they are in the rest.
_RANGES_MOVE = 0.5
_MAX_BATCH = 1 << 16
_CALIBRATION_ROWS = 256


@recipe_pass("qat", precision="int8-static", trains=True)
@dataclass(frozen=True)
class QuantizeAware(TrainingOptions):
    """Train with int8 in the loop, then make it int8 weights and activations.

    Attributes:
        per_channel: one weight scale an output channel instead of one a tensor.
    """

    epochs: int = 2
    learning_rate: float = 2e-4
    per_channel: bool = True


@register(QuantizeAware)
def _qat(config: QuantizeAware, model: OptimizedModel, context: Context) -> OptimizedModel:
    data = context.training
    if data is None:
        raise InputError(
            "the recipe's qat needs training data: give --train module:function (inputs and targets), or put a "
            "function training() beside the model."
        )
    context.progress("preparing the graph for training in int8")
    folded, count = fold_batch_norm(model.capture.program)
    captured = replace(model.capture, program=folded)
    prepared, trained, module = _with_ranges(captured, data, config)
    by_rows = trained is None
    inner = prepared if trained is None else trained
    result = fit(
        module,
        data,
        Supervised(config, data),
        config,
        seed=context.seed,
        what="training in int8",
        progress=context.progress,
        checkpoint=context.checkpoints / "qat.pt" if context.checkpoints else None,
        hooks=_hooks(inner, model, prefix="graph." if by_rows else ""),
        device=torch.device("cpu"),
    )
    if trained is not None:
        _carry_over(trained, prepared, data.pick(data.held_out_rows[:1]).inputs, captured)
    reference = copy.deepcopy(prepared)
    words = (
        f"trained in int8 (weights per {'channel' if config.per_channel else 'tensor'}) {result.sentence()}"
    )
    changes = (f"folded {count} batch normalisations into convolutions",) if count else ()
    return replace(
        model,
        capture=captured,
        precision="int8-static",
        prepared=prepared,
        reference=reference,
        changes=(*model.changes, *changes, words),
        figures={**model.figures, "qat": result.to_dict()},
    )


def _with_ranges(
    captured: Capture, data: TrainingData, config: QuantizeAware
) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule | None, torch.nn.Module]:
    """The graph to convert, its form for batches if there is one, and what to train, with first ranges."""
    kept: set[str] = set()
    while True:
        prepared = _prepare(captured.program, config, kept)
        trained = _batched(captured, prepared, config, kept)
        module: torch.nn.Module = _RowByRow(prepared, captured) if trained is None else trained
        _find_ranges(module, data, config)
        lost = operators_that_lose_an_operand(prepared if trained is None else trained) - kept
        if not lost:
            return prepared, trained, module
        kept |= lost


def _prepare(
    program: ExportedProgram, config: QuantizeAware, keep_float: Collection[str]
) -> torch.fx.GraphModule:
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    quantizer = make_quantizer(per_channel=config.per_channel, qat=True, keep_float=keep_float)
    prepared: torch.fx.GraphModule = prepare_qat_pt2e(program.module(), quantizer)
    return prepared


def _batched(
    captured: Capture, prepared: torch.fx.GraphModule, config: QuantizeAware, keep_float: Collection[str]
) -> torch.fx.GraphModule | None:
    """The same graph for batches of any size, or None when the model's code fixes the batch.

    It is the same when its state has the same names and shapes: then what it learns can be carried over.
    """
    source = captured.source
    example = tuple(t if t.ndim and t.shape[0] > 1 else torch.cat([t, t]) for t in source.example if t.ndim)
    if len(example) != len(source.example):
        return None
    batch = DynamicDim("batch", 1, _MAX_BATCH)
    dynamic = {**source.dynamic, **{(index, 0): batch for index in range(len(example))}}
    try:
        wide = capture(replace(source, example=example, dynamic=dynamic))
        folded, _ = fold_batch_norm(wide.program)
        found = _prepare(folded, config, keep_float)
    except Exception:
        return None
    shapes = {name: value.shape for name, value in prepared.named_parameters()}
    same = {name: value.shape for name, value in found.named_parameters()} == shapes
    return found if same and set(found.state_dict()) == set(prepared.state_dict()) else None


class _RowByRow(torch.nn.Module):
    """A graph of fixed batch size that takes larger batches, a piece after the other."""

    def __init__(self, graph: torch.fx.GraphModule, captured: Capture) -> None:
        super().__init__()
        self.graph = graph
        self.rows = captured.source.example[0].shape[0] if captured.source.example[0].ndim else 1

    def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        count = len(tensors[0])
        pieces = []
        for start in range(0, count, self.rows):
            part = [tensor[start : start + self.rows] for tensor in tensors]
            missing = self.rows - len(part[0])
            # A last piece that is too short is filled up with its last row, whose results are dropped again.
            full = [torch.cat([t, t[-1:].expand(missing, *t.shape[1:])]) if missing else t for t in part]
            found = self.graph(*full)
            pieces.append({name: value[: self.rows - missing] for name, value in found.items()})
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def _find_ranges(module: torch.nn.Module, data: TrainingData, config: QuantizeAware) -> None:
    """First ranges from some training rows, without which fake quantisation would clamp everything."""
    rows = data.training_rows[:: max(1, len(data.training_rows) // _CALIBRATION_ROWS)][:_CALIBRATION_ROWS]
    with torch.no_grad():
        for start in range(0, len(rows), config.batch_size):
            module(*data.pick(rows[start : start + config.batch_size]).inputs)


def _hooks(graph: torch.fx.GraphModule, model: OptimizedModel, prefix: str) -> Hooks:
    from torchao.quantization.pt2e import disable_observer, enable_observer

    moving: list[bool | None] = [None]

    def move_ranges(wanted: bool) -> None:
        if moving[0] != wanted:
            graph.apply(enable_observer if wanted else disable_observer)
            moving[0] = wanted

    def set_mode(training: bool) -> None:
        # The graph is captured in evaluation mode; what differs in training is that ranges may move.
        moving[0] = None
        if not training:
            move_ranges(False)

    return Hooks(
        masks={f"{prefix}{name}": mask for name, mask in model.masks.items()},
        before_step=lambda done: move_ranges(done < _RANGES_MOVE),
        set_mode=set_mode,
    )


def _carry_over(
    trained: torch.fx.GraphModule,
    prepared: torch.fx.GraphModule,
    row: tuple[torch.Tensor, ...],
    captured: Capture,
) -> None:
    """Give the graph that is converted what the batched one learned, and see that both agree.

    Raises:
        EdgeoptError: they don't.
    """
    rows = captured.source.example[0].shape[0]
    inputs = tuple(t.expand(rows, *t.shape[1:]).contiguous() for t in row)
    with torch.no_grad():
        prepared(*inputs)  # gives the observers' state its shapes
        prepared.load_state_dict(trained.state_dict())
        found, wanted = prepared(*inputs), trained(*inputs)
    for name, value in wanted.items():
        # One step of an activation may round the other way; anything more is another graph.
        scale = float(value.abs().max()) or 1.0
        if float((found[name] - value).abs().max()) > 0.02 * scale:
            raise EdgeoptError(
                f"training in int8 was done on a graph that differs from the one to convert (output {name!r})."
            )
