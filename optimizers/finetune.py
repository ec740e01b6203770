"""Fine-tuning: a few more epochs on the user's data, after something else changed the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .eager import EagerContext, Workpiece, report
from .registry import recipe_pass, register
from .training import Supervised, TrainingOptions, fit
from .training.loop import Hooks


@recipe_pass("finetune", trains=True, eager=True)
@dataclass(frozen=True)
class FineTune(TrainingOptions):
    """Train on the user's targets; the weights of the best epoch are kept, those from before when none was better."""


@register(FineTune)
def _finetune(config: FineTune, piece: Workpiece, context: EagerContext) -> Workpiece:
    import copy

    data = context.data()
    before = copy.deepcopy(piece.module)
    result = fit(
        piece.module,
        data,
        Supervised(config, data),
        config,
        seed=context.seed,
        what="fine-tuning",
        progress=context.progress,
        checkpoint=context.work.part("fit") if context.work else None,
        hooks=Hooks(masks=piece.masks),
    )
    words = f"fine-tuned {result.sentence()}"
    done = report(config, before, piece.module, context, words, details=result.to_dict())
    return replace(piece, reports=(*piece.reports, done))
