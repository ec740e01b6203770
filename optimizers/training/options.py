"""What every pass that trains can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training run; passes inherit them.

    Attributes:
        epochs: times that the training data is gone through at most.
        learning_rate: the highest; it falls to 0 along half a cosine after a short linear rise.
        batch_size: samples a step.
        optimizer: adamw, or sgd with momentum 0.9.
        weight_decay: of the weights; biases and normalisations have none.
        patience: epochs without a better held-out score after which training stops; 0 never stops.
        loss: cross_entropy, mse, auto (by the targets: whole numbers are classes), or module:function, which is
            called with (outputs, targets).
        output: name of the output that the loss is taken of; by default the only one, or ``logits``.
    """

    _least_epochs: ClassVar[int] = 1
    epochs: int = 3
    learning_rate: float = 1e-3
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.0
    patience: int = 0
    loss: str = "auto"
    output: str = ""

    def __post_init__(self) -> None:
        if self.epochs < self._least_epochs:
            raise ValueError(f"epochs must be at least {self._least_epochs}, found {self.epochs}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {self.batch_size}")
        if not 0 < self.learning_rate < 100:
            raise ValueError(f"learning_rate must be above 0, found {self.learning_rate:g}")
        if self.weight_decay < 0 or self.patience < 0:
            raise ValueError("weight_decay and patience can't be negative")
        if self.loss not in ("auto", "cross_entropy", "mse") and ":" not in self.loss:
            raise ValueError(f"loss must be auto, cross_entropy, mse or module:function, found {self.loss!r}")
