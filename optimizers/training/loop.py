"""One training loop for every pass: plain PyTorch, the same result whether it was interrupted or not.

Nothing random outlives an epoch: shuffling and dropout are seeded by (seed, epoch), so a run that goes on from
an epoch's checkpoint sees the same numbers as one that was never stopped.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from .data import TrainingData
from .objectives import Objective, Score
from .options import TrainingOptions

Progress = Callable[[str], None]
# Steps that the learning rate takes to rise, as a share of all.
_WARMUP_SHARE = 0.05


@dataclass(frozen=True)
class FitReport:
    """What training did: the score before, that of the epoch whose weights were kept, and each epoch's."""

    before: Score
    best: Score
    best_epoch: int
    epochs: int
    history: tuple[dict[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        return {
            "epochs": self.epochs,
            "kept_epoch": self.best_epoch,
            "held_out_loss": [self.before.loss, self.best.loss],
            "held_out_accuracy": [self.before.accuracy, self.best.accuracy],
            "history": list(self.history),
        }

    def sentence(self) -> str:
        """``3 epochs, held-out accuracy 96.1% → 97.8%``."""
        epochs = f"{self.epochs} epoch{'s' if self.epochs != 1 else ''}"
        if self.before.accuracy is None or self.best.accuracy is None:
            return f"{epochs}, held-out loss {self.before.loss:.4g} → {self.best.loss:.4g}"
        return f"{epochs}, held-out accuracy {self.before.accuracy:.2%} → {self.best.accuracy:.2%}"


@dataclass
class Hooks:
    """What a pass does while the model is trained.

    Attributes:
        masks: parameter name -> 0/1 mask, applied after every step; a pass may change them on the way.
        before_step: called with (share of the training done, 0 to 1) before each step.
        after_backward: called when the gradients of a step are there.
        before_epoch: called with the epoch's number, from 0.
        keep_from: share of the training before which no epoch's weights are kept as the best; at 0 the weights
            that training began with are kept when no epoch was better.
        set_mode: puts the module in training (True) or evaluation mode.
    """

    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    before_step: Callable[[float], None] | None = None
    after_backward: Callable[[], None] | None = None
    before_epoch: Callable[[int], None] | None = None
    keep_from: float = 0.0
    set_mode: Callable[[bool], None] | None = None


def fit(
    module: torch.nn.Module,
    data: TrainingData,
    objective: Objective,
    options: TrainingOptions,
    *,
    seed: int = 0,
    what: str = "training",
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    hooks: Hooks | None = None,
    device: torch.device | None = None,
) -> FitReport:
    """Train ``module`` in place and leave it with the weights of its best epoch, in evaluation mode.

    Args:
        module: flat tensors in, dict of tensors out.
        checkpoint: file written after each epoch; when it is there, training goes on from it.
        device: by default the GPU when there is one (then with bfloat16 autocast), else the CPU.

    Raises:
        InputError: the loss became NaN or infinite.
    """
    say = progress or (lambda text: None)
    run = _Run(module, data, objective, options, seed, hooks or Hooks(), device or default_device(), what)
    run.resume(checkpoint)
    if run.before is None:
        run.before = run.score()
        run.best = run.before if run.hooks.keep_from == 0 else None
    while run.epoch < options.epochs and not run.stopped:
        say(f"{what}: epoch {run.epoch + 1} of {options.epochs}")
        score = run.train_epoch()
        say(f"{what}: epoch {run.epoch} of {options.epochs}, {score}")
        if checkpoint is not None:
            save_atomically(run.state(), checkpoint)
    return run.finish()


def default_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        module: torch.nn.Module,
        data: TrainingData,
        objective: Objective,
        options: TrainingOptions,
        seed: int,
        hooks: Hooks,
        device: torch.device,
        what: str,
    ) -> None:
        self.module, self.data, self.objective, self.options = module, data, objective, options
        self.seed, self.hooks, self.device, self.what = seed, hooks, device, what
        module.to(device)
        self.named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.optimizer = _optimizer(list(self.named.values()), objective.parameters(), options)
        self.total_steps = options.epochs * data.steps(options.batch_size)
        self.epoch = 0
        self.stopped = False
        self.before: Score | None = None
        self.best: Score | None = None
        self.best_epoch = 0
        self.best_state = _copy(module.state_dict())
        self.history: list[dict[str, float]] = []

    def train_epoch(self) -> Score:
        if self.hooks.before_epoch is not None:
            self.hooks.before_epoch(self.epoch)
        torch.manual_seed((self.seed * 1_000_003 + self.epoch) % 2**31)
        self._set_mode(True)
        steps, total = self.data.steps(self.options.batch_size), 0.0
        for index, batch in enumerate(self.data.batches(self.options.batch_size, self.seed + self.epoch)):
            total += self._step(batch.to(self.device), self.epoch * steps + index)
        self.epoch += 1
        score = self.score()
        self.history.append(
            {"epoch": self.epoch, "loss": total / steps, "held_out_loss": score.loss}
            | ({} if score.accuracy is None else {"held_out_accuracy": score.accuracy})
        )
        if self.epoch / self.options.epochs >= self.hooks.keep_from and (
            self.best is None or score.rank > self.best.rank
        ):
            self.best, self.best_epoch, self.best_state = score, self.epoch, _copy(self.module.state_dict())
        waited = self.epoch - self.best_epoch
        self.stopped = bool(self.options.patience and self.best and waited >= self.options.patience)
        return score

    def _step(self, batch: Any, number: int) -> float:
        if self.hooks.before_step is not None:
            self.hooks.before_step(number / self.total_steps)
        rate = learning_rate(number, self.total_steps, self.options.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with _autocast(self.device):
            loss = self.objective.loss(self.module, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"{self.what} diverged: the loss became {value} in epoch {self.epoch + 1} with learning rate "
                f"{self.options.learning_rate:g}; lower learning_rate, or look for NaN in the training data."
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if self.hooks.after_backward is not None:
            self.hooks.after_backward()
        self.optimizer.step()
        apply_masks(self.named, self.hooks.masks)
        return value

    def score(self) -> Score:
        self._set_mode(False)
        with torch.no_grad():
            return self.objective.score(self.module, self.data, self.options.batch_size * 4, self.device)

    def _set_mode(self, training: bool) -> None:
        if self.hooks.set_mode is not None:
            self.hooks.set_mode(training)
        else:
            self.module.train(training)

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "stopped": self.stopped,
            "module": self.module.state_dict(),
            "best_state": self.best_state,
            "own": [p.detach() for p in self.objective.parameters()],
            "optimizer": self.optimizer.state_dict(),
            "before": _score_to_list(self.before),
            "best": _score_to_list(self.best),
            "best_epoch": self.best_epoch,
            "history": self.history,
        }

    def resume(self, checkpoint: Path | None) -> None:
        kept = load_checkpoint(checkpoint)
        if kept is None:
            return
        self.module.load_state_dict(kept["module"])
        self.optimizer.load_state_dict(kept["optimizer"])
        with torch.no_grad():
            for parameter, value in zip(self.objective.parameters(), kept["own"], strict=True):
                parameter.copy_(value)
        self.epoch, self.stopped, self.best_epoch = kept["epoch"], kept["stopped"], kept["best_epoch"]
        self.best_state, self.history = kept["best_state"], kept["history"]
        self.before, self.best = _score_of_list(kept["before"]), _score_of_list(kept["best"])

    def finish(self) -> FitReport:
        assert self.before is not None
        if self.best is not None:
            self.module.load_state_dict(self.best_state)
        self._set_mode(False)
        self.module.to("cpu")
        best = self.best or self.before
        return FitReport(self.before, best, self.best_epoch, self.epoch, tuple(self.history))


def learning_rate(step: int, total: int, highest: float) -> float:
    """The rate of a step (from 0): a linear rise over 5% of the steps, then half a cosine down to 0."""
    warmup = max(1, round(total * _WARMUP_SHARE)) if total > 1 else 0
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def apply_masks(named: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]) -> None:
    """Multiply each parameter that has a mask by it, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            if name in named:
                named[name].mul_(mask.to(named[name]))


def save_atomically(value: Any, path: Path) -> None:
    """``torch.save`` that leaves either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        torch.save(value, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path | None) -> dict[str, Any] | None:
    """What :func:`save_atomically` wrote, or None when it isn't there or can't be read."""
    if path is None or not path.is_file():
        return None
    try:
        kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return kept
    except Exception:
        # A damaged checkpoint costs time, not the run.
        return None


def _optimizer(
    parameters: list[torch.nn.Parameter], own: list[torch.nn.Parameter], options: TrainingOptions
) -> torch.optim.Optimizer:
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": decayed + own, "weight_decay": options.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=options.learning_rate)


@contextlib.contextmanager
def _autocast(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    # bfloat16 has float32's range, so it needs no scaling of the loss.
    with torch.autocast("cuda", dtype=torch.bfloat16):
        yield


def _copy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.items() if isinstance(value, torch.Tensor)}


def _score_to_list(score: Score | None) -> list[float | None] | None:
    return None if score is None else [score.loss, score.accuracy]


def _score_of_list(kept: list[Any] | None) -> Score | None:
    return None if kept is None else Score(kept[0], kept[1])
