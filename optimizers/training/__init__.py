"""The training that passes share: data as the user gives it, objectives, and one small loop on plain PyTorch.

Front door: :func:`load_training` (→ :class:`TrainingData`), :class:`TrainingOptions` (what every pass that trains
can be told), :func:`fit` (trains, checkpoints each epoch, and goes on from there). This folder knows no pass.
"""

from .data import TrainingData, load_training
from .loop import FitReport, fit
from .objectives import Supervised
from .options import TrainingOptions

__all__ = ["FitReport", "Supervised", "TrainingData", "TrainingOptions", "fit", "load_training"]
