"""What is trained for: a loss of one batch, and a score of the held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.nn import functional

from ...errors import InputError
from ...models.resolve import brief, resolve
from .data import Batch, TrainingData
from .options import TrainingOptions

Forward = Callable[..., dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Score:
    """How good the held-out rows come out: accuracy where there are classes, else the negative loss."""

    loss: float
    accuracy: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better; the loss decides between equal accuracies."""
        return (0.0 if self.accuracy is None else self.accuracy, -self.loss)

    def __str__(self) -> str:
        if self.accuracy is None:
            return f"held-out loss {self.loss:.4g}"
        return f"held-out accuracy {self.accuracy:.2%}"


class Objective(Protocol):
    """What :func:`fit` trains a model for."""

    def loss(self, forward: Forward, batch: Batch) -> torch.Tensor:
        """The loss of a batch (a scalar with gradients)."""
        ...

    def score(self, forward: Forward, data: TrainingData, batch_size: int, device: torch.device) -> Score:
        """The score of the held-out rows."""
        ...

    def parameters(self) -> list[torch.nn.Parameter]:
        """Parameters of the objective's own that are trained with the model's."""
        ...


@dataclass
class Supervised:
    """The user's targets.

    Args:
        options: whose ``loss`` and ``output`` say what to compare.
        data: decides what ``auto`` means.

    Raises:
        InputError: data without targets, or a loss that doesn't go with them.
    """

    options: TrainingOptions
    data: TrainingData
    kind: str = field(init=False)
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        targets = self.data.pick([0]).targets
        if targets is None:
            raise InputError(
                "the training data has no targets: give (inputs, targets), or use distill, which needs none."
            )
        self.kind = self.options.loss
        if self.kind == "auto":
            self.kind = "mse" if targets.is_floating_point() else "cross_entropy"
        elif ":" in self.kind:
            self.function, _ = resolve(self.kind, "loss")
            self.kind = "function"

    def loss(self, forward: Forward, batch: Batch) -> torch.Tensor:
        return self.of(chosen_output(forward(*batch.inputs), self.options.output), batch.targets)

    def of(self, found: torch.Tensor, targets: torch.Tensor | None) -> torch.Tensor:
        """The loss of one batch's output [rows, ...] against its targets."""
        assert targets is not None
        try:
            if self.function is not None:
                return self.function(found, targets)
            if self.kind == "mse":
                return functional.mse_loss(found, targets.to(found.dtype).reshape(found.shape))
            return functional.cross_entropy(_classes_second(found, targets), _class_targets(targets))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"the {self.kind} loss can't compare outputs {list(found.shape)} with targets "
                f"{list(targets.shape)} of {targets.dtype}: {brief(error)}."
            ) from error

    def score(self, forward: Forward, data: TrainingData, batch_size: int, device: torch.device) -> Score:
        loss = right = rows = 0.0
        answers = 0
        for batch in data.held_out(batch_size):
            moved = batch.to(device)
            found = chosen_output(forward(*moved.inputs), self.options.output)
            assert moved.targets is not None
            count = len(moved.targets)
            loss += float(self.of(found, moved.targets)) * count
            rows += count
            if self.kind == "cross_entropy":
                targets = _class_targets(moved.targets)
                if not targets.is_floating_point():
                    best = _classes_second(found, moved.targets).argmax(1)
                    right += float((best == targets).sum())
                    answers += targets.numel()
        return Score(loss / rows, right / answers if answers else None)

    def parameters(self) -> list[torch.nn.Parameter]:
        return []


def chosen_output(outputs: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """The output of this name; without a name the only one, or ``logits``.

    Raises:
        InputError: no such output, or several and none is named.
    """
    if name:
        if name not in outputs:
            raise InputError(f"the model has no output {name!r} (it has {', '.join(outputs)}).")
        return outputs[name]
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    if "logits" in outputs:
        return outputs["logits"]
    raise InputError(
        f"the model has several outputs ({', '.join(outputs)}): name the one to train with output = in the recipe."
    )


def _class_targets(targets: torch.Tensor) -> torch.Tensor:
    if targets.is_floating_point():
        return targets
    return targets.long().squeeze(-1) if targets.ndim > 1 and targets.shape[-1] == 1 else targets.long()


def _classes_second(found: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Logits with the classes on axis 1, where cross_entropy wants them: sequences have them last."""
    if found.ndim == 3 and targets.shape == found.shape[:2]:
        return found.transpose(1, 2)
    return found
