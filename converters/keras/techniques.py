"""Pruning, clustering and quantisation-aware training by tensorflow-model-optimization (the worker's side).

Each technique takes a plain tf_keras model and gives a plain one back (quantisation-aware training: one with
quantisers), so that they can follow one another; a later one preserves what the earlier ones made.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.clustering.keras.clustering_registry import ClusteringRegistry
from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import cluster_weights
from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (
    default_8bit_cluster_preserve_quantize_scheme as cluster_preserve,
)
from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve import (
    default_8bit_prune_preserve_quantize_scheme as prune_preserve,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_registry import (
    Default8BitQuantizeRegistry,
)

from ...errors import InputError
from ...models.resolve import brief
from .checkpoints import Place
from .training import Progress, TrainingData, fit, steps

_WEIGHTY = (
    tf_keras.layers.Dense,
    tf_keras.layers.Conv1D,
    tf_keras.layers.Conv2D,
    tf_keras.layers.Conv3D,
    tf_keras.layers.Conv2DTranspose,
    tf_keras.layers.Embedding,
)
_CENTROIDS = {
    "kmeans++": "KMEANS_PLUS_PLUS",
    "linear": "LINEAR",
    "density": "DENSITY_BASED",
    "random": "RANDOM",
}


@dataclass(frozen=True)
class State:
    """A model on its way through a recipe, and what must survive the next technique."""

    model: Any
    sparse: bool = False
    clustered: bool = False
    quantized: bool = False


@dataclass(frozen=True)
class Work:
    """Whom a pass tells what it does, and where it keeps its epochs."""

    progress: Progress
    place: Place


def apply(entry: dict[str, Any], state: State, data: TrainingData, work: Work) -> tuple[State, str]:
    """Apply one pass and say what it did.

    Args:
        entry: the pass as a recipe file holds it, with every option.

    Raises:
        InputError: the model or the data don't suit the technique.
    """
    options = dict(entry)
    name = options.pop("pass")
    tf_keras.utils.set_random_seed(int(options.pop("seed")))
    technique = {"sparsify": _sparsify, "cluster": _cluster, "qat": _qat, "finetune": _finetune}[name]
    try:
        return technique(options, state, data, work)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{name}: tensorflow-model-optimization refuses the model: {brief(error)}."
        ) from error


def _finetune(options: dict[str, Any], state: State, data: TrainingData, work: Work) -> tuple[State, str]:
    if state.sparse or state.clustered:
        raise InputError(
            "finetune after sparsify or cluster would undo them: put it before, or leave it out."
        )
    model = tf_keras.models.clone_model(state.model)
    model.set_weights(state.model.get_weights())
    loss = _fit(model, data, "fine-tuning", options, [], work)
    return State(model), f"fine-tuned for {options['epochs']} epochs (loss {loss:.4f})"


def _sparsify(options: dict[str, Any], state: State, data: TrainingData, work: Work) -> tuple[State, str]:
    sparsity, epochs = options["sparsity"], options["epochs"]
    # The last third of the steps trains at the full sparsity.
    total = steps(data, epochs, options["batch_size"])
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=min(options["initial_sparsity"], sparsity),
        final_sparsity=sparsity,
        begin_step=0,
        end_step=max(1, total * 2 // 3),
        frequency=max(1, total // 60),
    )

    def wrap(layer: Any) -> Any:
        if isinstance(layer, _WEIGHTY):
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
        return layer

    wrapped = _clone(state.model, wrap, "sparsify")
    _fit(
        wrapped,
        data,
        f"pruning to {sparsity:.0%}",
        options,
        [tfmot.sparsity.keras.UpdatePruningStep()],
        work,
    )
    model = tfmot.sparsity.keras.strip_pruning(wrapped)
    found = sparsity_of(model)
    return State(model, sparse=True), (
        f"pruned by magnitude with polynomial decay to {found:.1%} zeros in kernels, {compressed(model)}"
    )


def _cluster(options: dict[str, Any], state: State, data: TrainingData, work: Work) -> tuple[State, str]:
    clusters = options["clusters"]
    left: list[str] = []
    centroids = getattr(tfmot.clustering.keras.CentroidInitialization, _CENTROIDS[options["centroids"]])

    def wrap(layer: Any) -> Any:
        if not isinstance(layer, _WEIGHTY) or not ClusteringRegistry.supports(layer):
            return layer
        # k-means needs more values than it looks for; zeros that are kept don't count.
        if min((np.count_nonzero(k) for k in _kernels_of(layer)), default=0) <= 2 * clusters:
            left.append(layer.name)
            # Training on would fill its zeros.
            layer.trainable = layer.trainable and not state.sparse
            return layer
        return cluster_weights(layer, clusters, centroids, preserve_sparsity=state.sparse)

    wrapped = _clone(state.model, wrap, "cluster")
    _fit(wrapped, data, f"clustering into {clusters} values", options, [], work)
    model = tfmot.clustering.keras.strip_clustering(wrapped)
    for name in left:
        model.get_layer(name).trainable = state.model.get_layer(name).trainable
    kept = f", {sparsity_of(model):.1%} zeros kept" if state.sparse else ""
    kept += f", too small for it: {', '.join(left[:5])}" if left else ""
    return State(model, sparse=state.sparse, clustered=True), (
        f"clustered into at most {clusters} values a kernel{kept}, {compressed(model)}"
    )


def _qat(options: dict[str, Any], state: State, data: TrainingData, work: Work) -> tuple[State, str]:
    quantize = tfmot.quantization.keras
    registry = Default8BitQuantizeRegistry()
    left = [layer.name for layer in state.model.layers if not _quantizable(layer, registry)]

    def annotate(layer: Any) -> Any:
        if layer.name in left or isinstance(layer, tf_keras.layers.InputLayer):
            return layer
        return quantize.quantize_annotate_layer(layer)

    if state.clustered:
        scheme: Any = cluster_preserve.Default8BitClusterPreserveQuantizeScheme(
            preserve_sparsity=state.sparse
        )
        kind = "sparsity- and cluster-preserving" if state.sparse else "cluster-preserving"
    elif state.sparse:
        scheme, kind = prune_preserve.Default8BitPrunePreserveQuantizeScheme(), "sparsity-preserving"
    else:
        scheme, kind = quantize.default_8bit.Default8BitQuantizeScheme(), "plain"
    annotated = _clone(state.model, annotate, "qat")
    with quantize.quantize_scope():
        model = quantize.quantize_apply(annotated, scheme)
    loss = _fit(model, data, f"quantisation-aware training ({kind})", options, [], work)
    note = f"; left in float: {', '.join(left[:5])}" if left else ""
    return State(model, state.sparse, state.clustered, quantized=True), (
        f"{kind} quantisation-aware training, {options['epochs']} epochs (loss {loss:.4f}){note}"
    )


def _quantizable(layer: Any, registry: Any) -> bool:
    """Whether tfmot has quantisers for a layer; a batch normalisation only where it folds into the layer before."""
    layers = tf_keras.layers
    if isinstance(layer, layers.InputLayer | layers.SeparableConv1D | layers.SeparableConv2D):
        return True
    if isinstance(layer, layers.BatchNormalization):
        before = layer.inbound_nodes[0].inbound_layers
        return isinstance(
            before, layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D | layers.Dense
        )
    return bool(registry.supports(layer))


def _clone(model: Any, wrap: Any, what: str) -> Any:
    """A copy of ``model`` whose layers went through ``wrap``, with its weights."""
    # tfmot's wrappers take the layer itself, with its weights: each technique gets layers of its own.
    plain = tf_keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    wrapped: list[str] = []

    def through(layer: Any) -> Any:
        made = wrap(layer)
        if made is not layer:
            wrapped.append(layer.name)
        return made

    made = tf_keras.models.clone_model(plain, clone_function=through)
    if not wrapped:
        raise InputError(f"{what}: the model has no layer that tensorflow-model-optimization can work on.")
    return made


def _fit(
    model: Any,
    data: TrainingData,
    what: str,
    options: dict[str, Any],
    callbacks: list[Any],
    work: Work,
) -> float:
    return fit(
        model,
        data,
        what=what,
        epochs=options["epochs"],
        batch_size=options["batch_size"],
        learning_rate=options["learning_rate"],
        callbacks=callbacks,
        progress=work.progress,
        place=work.place,
    )


def kernels(model: Any) -> list[np.ndarray]:
    """The weights that pruning and clustering work on: those of more than one dimension."""
    return [k for layer in model.layers if isinstance(layer, _WEIGHTY) for k in _kernels_of(layer)]


def _kernels_of(layer: Any) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in layer.trainable_weights if len(weight.shape) > 1]


def sparsity_of(model: Any) -> float:
    """Share of zeros in the kernels, 0 to 1."""
    found = kernels(model)
    total = sum(k.size for k in found)
    return sum(int((k == 0).sum()) for k in found) / total if total else 0.0


def compressed(model: Any) -> str:
    """How far the kernels' bytes shrink under zlib, in words."""
    raw = b"".join(k.tobytes() for k in kernels(model))
    ratio = len(zlib.compress(raw, 9)) / len(raw) if raw else 1.0
    return f"kernels compress to {ratio:.0%} (zlib)"
