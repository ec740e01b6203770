"""Weight clustering: each layer keeps a few different weights (Han et al., 2016), so that its file compresses.

A layer's weights are replaced by the nearest of k centroids that k-means finds. Training on moves the centroids: the
gradients of all weights of a cluster are averaged, so they stay equal. k = 16 needs 4 bits a weight and a codebook;
the formats made here have no codebooks, so the file keeps its size and gains when it is compressed.
"""

from __future__ import annotations

import copy
import math
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from .eager import EagerContext, PassReport, Workpiece
from .figures import figures, prediction_sentence, time_sentence, with_predictions, with_times
from .registry import kind_of, recipe_pass, register
from .sparsity import prunable_weights
from .training import Supervised, TrainingOptions, fit
from .training.loop import FitReport, Hooks

# More weights than this tell k-means nothing new about where a layer's centroids lie.
_MOST_FITTED = 100_000


@recipe_pass("cluster", trains=True, eager=True, seals=True)
@dataclass(frozen=True)
class Cluster(TrainingOptions):
    """Let each convolution and linear layer keep a few different weights, and train on with them.

    Attributes:
        clusters: different weights a layer; 16 make 4 bits a weight.
        epochs: of training the centroids; 0 leaves them where k-means put them.
    """

    _least_epochs: ClassVar[int] = 0
    clusters: int = 16
    epochs: int = 1
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.clusters <= 256:
            raise ValueError(f"clusters must be from 2 to 256, found {self.clusters}")


@register(Cluster)
def _cluster(config: Cluster, piece: Workpiece, context: EagerContext) -> Workpiece:
    data = context.data() if config.epochs else None
    before = copy.deepcopy(piece.module)
    weights = prunable_weights(piece.module)
    context.progress(f"clustering the weights of {len(weights)} layers")
    members = {}
    for name, weight in weights.items():
        centroids, members[name] = codebook(
            weight, config.clusters, context.seed, keep_zeros=name in piece.masks
        )
        with torch.no_grad():
            weight.copy_(centroids[members[name]])
    trained: FitReport | None = None
    if data is not None:
        trained = fit(
            piece.module,
            data,
            Supervised(config, data),
            config,
            seed=context.seed,
            what="training the clusters",
            progress=context.progress,
            checkpoint=context.work.part("fit") if context.work else None,
            hooks=Hooks(masks=piece.masks, after_backward=lambda: _average_gradients(weights, members)),
        )
        for name, weight in weights.items():
            _snap(weight, members[name])
    done = _report(config, before, piece, context, trained)
    return replace(piece, reports=(*piece.reports, done))


def codebook(
    weight: torch.Tensor, clusters: int, seed: int, *, keep_zeros: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(centroids, number of each weight's centroid) by k-means; the centroids rise.

    Args:
        keep_zeros: weights that are 0 stay so, on a centroid of their own.
    """
    from sklearn.cluster import KMeans

    flat = weight.detach().double().cpu().flatten()
    free = flat[flat != 0] if keep_zeros else flat
    fitted = free[:: max(1, len(free) // _MOST_FITTED)].reshape(-1, 1).numpy()
    count = min(clusters - keep_zeros, len(free.unique()))
    if count < 1:
        return torch.zeros(1, dtype=weight.dtype), torch.zeros(weight.shape, dtype=torch.long)
    with warnings.catch_warnings():
        # Fewer different weights than clusters is no accident here.
        warnings.simplefilter("ignore")
        found = KMeans(count, n_init=1, random_state=seed % 2**31).fit(fitted).cluster_centers_[:, 0]
    centroids = torch.from_numpy(found).sort().values
    borders = (centroids[1:] + centroids[:-1]) / 2
    members = torch.bucketize(flat, borders)
    if keep_zeros:
        centroids = torch.cat([centroids, torch.zeros(1, dtype=centroids.dtype)])
        members[flat == 0] = count
    return centroids.to(weight.dtype), members.reshape(weight.shape)


def _average_gradients(weights: Mapping[str, torch.Tensor], members: Mapping[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        if weight.grad is not None:
            weight.grad.copy_(_means(weight.grad, members[name]))


def _snap(weight: torch.Tensor, members: torch.Tensor) -> None:
    """Make the weights of each cluster the same to the last bit."""
    with torch.no_grad():
        weight.copy_(_means(weight, members))


def _means(values: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Each value replaced by the mean of its cluster."""
    index = members.to(values.device).flatten()
    sums = torch.zeros(int(index.max()) + 1, dtype=torch.float64, device=values.device)
    sums.scatter_add_(0, index, values.detach().double().flatten())
    means = sums / torch.bincount(index, minlength=len(sums)).clamp_min(1)
    return means[index].reshape(values.shape).to(values.dtype)


def _report(
    config: Cluster, before: Any, piece: Workpiece, context: EagerContext, trained: FitReport | None
) -> PassReport:
    example = context.source.example
    old, new = with_times(
        (before, figures(before, example)), (piece.module, figures(piece.module, example)), example
    )
    old = with_predictions(before, old, context.source, context.profile)
    new = with_predictions(piece.module, new, context.source, context.profile)
    weights = prunable_weights(piece.module)
    count = sum(w.numel() for w in weights.values())
    packed = sum(codebook_bytes(weight) for weight in weights.values())
    words = (
        f"{config.clusters} different weights a layer{', ' + trained.sentence() if trained else ''}; zlib takes the "
        f"weights from {old.compressed_bytes / 1e3:.1f} to {new.compressed_bytes / 1e3:.1f} kB, {time_sentence(old, new)}{prediction_sentence(old, new, context.profile)}"
    )
    warning = (
        f"{config.clusters} clusters save no time and leave the file's size as it is: the formats have no codebooks "
        "(it pays in the compressed size)"
    )
    details = {
        "clustered_weights": count,
        "codebook_bytes": packed,
        **(trained.to_dict() if trained else {}),
    }
    return PassReport(kind_of(config).name, words, old, new, details, (warning,))


def codebook_bytes(weight: torch.Tensor) -> int:
    """What a clustered weight takes as a codebook in float32 and packed indices, after zlib."""
    values, index = weight.detach().flatten().unique(return_inverse=True)
    bits = max(1, math.ceil(math.log2(len(values))))
    per_byte = max(1, 8 // bits)
    padded = torch.cat([index, index.new_zeros(-len(index) % per_byte)]).reshape(-1, per_byte)
    packed = sum(padded[:, place] << (bits * place) for place in range(per_byte))
    assert isinstance(packed, torch.Tensor)
    return 4 * len(values) + len(zlib.compress(packed.to(torch.uint8).numpy().tobytes(), 6))
