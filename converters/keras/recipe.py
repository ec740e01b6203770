"""Recipes of Keras models: tensorflow-model-optimization's techniques and a precision, in the same TOML files.

Passes that PyTorch recipes have under the same name do the same here: ``sparsify``, ``qat``, and the three
precisions. ``cluster`` and ``finetune`` are described in docs/keras.md.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...optimizers.precision import parse_precision
from ...optimizers.registry import PassKind, build


@dataclass(frozen=True)
class _Training:
    """What every pass that trains can be told.

    Attributes:
        epochs: rounds through the training data.
        batch_size: samples a step.
        learning_rate: of Adam.
    """

    epochs: int = 2
    batch_size: int = 128
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must be between 0 and 1, found {self.learning_rate}")


@dataclass(frozen=True)
class FineTune(_Training):
    """Train on, before anything else is done."""


@dataclass(frozen=True)
class Sparsify(_Training):
    """Set the smallest weights to zero by a polynomial schedule (Zhu and Gupta 2017) while training."""

    sparsity: float = 0.8
    initial_sparsity: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sparsity < 1 or not 0 <= self.initial_sparsity <= self.sparsity:
            raise ValueError("sparsity must be between 0 and 1, and initial_sparsity not above it")


@dataclass(frozen=True)
class Cluster(_Training):
    """Let each kernel keep a few different values (weight clustering) while training."""

    clusters: int = 16
    centroids: Literal["kmeans++", "linear", "density", "random"] = "kmeans++"
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.clusters <= 256:
            raise ValueError(f"clusters must be from 2 to 256, found {self.clusters}")


@dataclass(frozen=True)
class Qat(_Training):
    """Quantisation-aware training to static int8; it keeps the zeros and clusters of the passes before it."""

    learning_rate: float = 1e-4


@dataclass(frozen=True)
class _Precision:
    """A precision, set after training."""


@dataclass(frozen=True)
class QuantizeStatic(_Precision):
    """int8 weights and activations; ranges from ``samples`` calibration samples at most."""

    samples: int = 128


@dataclass(frozen=True)
class QuantizeDynamic(_Precision):
    """int8 weights; activations quantised at run time."""


@dataclass(frozen=True)
class CastToHalf(_Precision):
    """float16 weights."""


_KINDS = {
    kind.name: kind
    for kind in (
        PassKind("finetune", FineTune, None, trains=True),
        PassKind("sparsify", Sparsify, None, trains=True),
        PassKind("cluster", Cluster, None, trains=True),
        PassKind("qat", Qat, "int8-static", trains=True),
        PassKind("quantize_static", QuantizeStatic, "int8-static"),
        PassKind("quantize_dynamic", QuantizeDynamic, "int8-dynamic"),
        PassKind("cast_to_half", CastToHalf, "fp16"),
    )
}
_OF_PRECISION: dict[str, tuple[Any, ...]] = {
    "fp32": (),
    "fp16": (CastToHalf(),),
    "int8-dynamic": (QuantizeDynamic(),),
    "int8-static": (QuantizeStatic(),),
}
# PyTorch's passes that a reader may look for here -> what to write instead.
_ELSEWHERE = {
    "prune": 'it removes whole channels of PyTorch models; pass = "sparsify" sets single weights to zero',
    "distill": "it trains PyTorch models",
    "fold_batch_norm": "TensorFlow's converter folds batch normalisations itself: leave it out",
}


@dataclass(frozen=True)
class KerasRecipe:
    """A named, ordered list of passes for a Keras model."""

    name: str
    passes: tuple[Any, ...]
    seed: int = 0

    @property
    def precision(self) -> str:
        """The canonical name of the precision it ends in."""
        return next((k.precision for k in map(_kind, self.passes) if isinstance(k.precision, str)), "fp32")

    @property
    def training(self) -> tuple[Any, ...]:
        """The passes that train."""
        return tuple(p for p in self.passes if _kind(p).trains)

    @property
    def trains(self) -> bool:
        """Whether any pass does."""
        return bool(self.training)

    @property
    def quantizes_in_training(self) -> bool:
        """Whether the ranges of static int8 are learnt, not calibrated."""
        return any(isinstance(p, Qat) for p in self.passes)

    @property
    def samples(self) -> int:
        """Calibration samples to use at most."""
        return next((p.samples for p in self.passes if isinstance(p, QuantizeStatic)), 0)

    def entries(self) -> list[dict[str, Any]]:
        """The passes as plain data, every option written out."""
        return [{"pass": _kind(p).name, **dataclasses.asdict(p)} for p in self.passes]

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, as a recipe file holds it."""
        seed = {"seed": self.seed} if self.training else {}
        return {"name": self.name, **seed, "passes": self.entries()}


def _kind(config: Any) -> PassKind:
    return next(kind for kind in _KINDS.values() if kind.config is type(config))


def precision_recipe(name: str) -> KerasRecipe:
    """The recipe that only sets a precision.

    Raises:
        InputError: an unknown name.
    """
    precision = parse_precision(name).name
    if precision not in _OF_PRECISION:
        raise InputError(
            f"precision {precision} isn't there for Keras models: use {', '.join(_OF_PRECISION)}."
        )
    return KerasRecipe(precision, _OF_PRECISION[precision])


def load_keras_recipe(name_or_path: str) -> KerasRecipe:
    """A precision's recipe, or one from a TOML file.

    Raises:
        InputError: an unknown name, a missing or malformed file, an unknown pass or option.
    """
    if not name_or_path.endswith(".toml"):
        return precision_recipe(name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(f"no recipe file {path}.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    unknown = sorted(set(data) - {"name", "seed", "passes", "description"})
    if unknown:
        raise InputError(
            f"{path}: unknown key {unknown[0]!r} (it has name, description, seed and [[passes]])."
        )
    entries = data.get("passes")
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise InputError(f"{path} needs [[passes]] tables, each with pass = one of {', '.join(_KINDS)}.")
    seed = data.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise InputError(f"{path}: seed must be a whole number from 0 to 2147483647, found {seed!r}.")
    passes = tuple(_parse_pass(entry, f"{path}, pass {index}") for index, entry in enumerate(entries, 1))
    recipe = KerasRecipe(str(data.get("name", path.stem)), passes, seed)
    _check_order(recipe, str(path))
    return recipe


def _parse_pass(entry: dict[str, Any], where: str) -> Any:
    options = dict(entry)
    name = options.pop("pass", None)
    if name in _ELSEWHERE:
        raise InputError(f"{where}: {name} is no pass for a Keras model: {_ELSEWHERE[name]}.")
    if name not in _KINDS:
        raise InputError(f"{where}: unknown pass {name!r}; Keras models take {', '.join(_KINDS)}.")
    try:
        return build(_KINDS[name], options)
    except ValueError as error:
        raise InputError(f"{where} ({name}): {error}.") from error


def _check_order(recipe: KerasRecipe, where: str) -> None:
    """Refuse passes that can't follow each other.

    Raises:
        InputError: two precisions, training after a precision, or a pass that undoes an earlier one.
    """
    rank = {FineTune: 0, Sparsify: 1, Cluster: 2, Qat: 3}
    seen = [rank.get(type(p), 4) for p in recipe.passes]
    if sum(_kind(p).precision is not None for p in recipe.passes) > 1:
        raise InputError(f"{where} sets the precision more than once (qat ends in static int8).")
    if seen != sorted(set(seen)):
        raise InputError(
            f"{where}: each pass preserves those before it only in the order finetune, sparsify, cluster, qat or a "
            "precision, each once."
        )
