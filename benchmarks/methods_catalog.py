"""Which models and methods the tables of docs/methods.md have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOTH = ("pte", "tflite")


@dataclass(frozen=True)
class Method:
    """One way of making a model smaller.

    Attributes:
        name: of its cell, and of the file in ``recipes`` if it isn't a precision.
        title: as the table prints it.
        recipe: a precision, or the name of a file in ``recipes``; by default ``name``.
        variant: suffix of another model of the same task, e.g. ``_student``.
        formats: when it isn't for all of the model's.
    """

    name: str
    title: str
    recipe: str = ""
    variant: str = ""
    formats: tuple[str, ...] = ()

    @property
    def recipe_file(self) -> Path | None:
        """The recipe's file, or None for a precision."""
        path = HERE / "recipes" / f"{self.recipe or self.name}.toml"
        return path if path.is_file() else None


@dataclass(frozen=True)
class Model:
    """A model with its data: ``<name>``, ``<name>_example``, ``_calibration``, ``_evaluate`` and, when it can be trained
    here, ``_training`` in the file ``source``."""

    name: str
    title: str
    source: Path
    methods: tuple[Method, ...]
    trains: bool = False
    formats: tuple[str, ...] = BOTH
    note: str = ""


def _precision(name: str, title: str) -> Method:
    return Method(name, title, name)


PLAIN = (
    _precision("fp32", "float32"),
    _precision("fp16", "float16"),
    _precision("int8-dynamic", "int8 dynamic"),
    _precision("int8-static", "int8 static"),
)
WEIGHTS = _precision("int8-weights", "int8 weights only")
INT4 = _precision("int4-dynamic", "int4 weights, int8 dynamic")
EQUAL = Method("equalized-int8", "int8 static, equalised")


def _images(name: str) -> tuple[Method, ...]:
    return (
        *PLAIN,
        Method("qat", "int8, trained in int8 (QAT)"),
        Method("prune50", "50% of the MACs pruned"),
        Method("prune50-qat", "50% pruned, QAT"),
        Method("sparse80", "80% sparse"),
        Method("sparse2of4", "2:4 sparse"),
        Method("sparse80-qat", "80% sparse, QAT"),
        Method("teacher", "the teacher, float32", "fp32", "_teacher"),
        Method("cluster16", "16 weights a layer (k-means)"),
        Method("alone", "student alone, float32", "alone", "_student"),
        Method("distill", "student distilled, float32", f"distill-{name}", "_student"),
        Method("chain", "distilled, 50% pruned, QAT", f"chain-{name}"),
        Method("outliers-fp32", "outlier channels, float32", "fp32", "_outliers"),
        Method("outliers-int8", "outlier channels, int8 static", "int8-static", "_outliers"),
        Method("outliers-equal", "outlier channels, equalised int8", "equalized-int8", "_outliers"),
        Method("outliers-mixed", "outlier channels, mixed", "mixed", "_outliers"),
    )


LITE0 = (
    "148 photos (cut out on white) with labels by hand, each in four views: one photo is 0.68 points, and the views of "
    "a photo aren't independent. Judge by SNR too."
)
SPEAKERS = "370 series of nine speakers, eight steps each; one series is 0.27 points."
_IMAGES = HERE / "method_models.py"
MODELS = {
    model.name: model
    for model in (
        Model("mnist", "MNIST, depthwise CNN", _IMAGES, _images("mnist"), trains=True),
        Model(
            "lite0",
            "EfficientNet-Lite0, photos",
            HERE / "photo_models.py",
            (*PLAIN, WEIGHTS),
            note=LITE0,
        ),
        Model("minilm", "MiniLM-L6, film reviews", HERE / "text_models.py", (*PLAIN, WEIGHTS, INT4, EQUAL)),
        Model(
            "speakers", "LSTM, Japanese vowels", HERE / "series_models.py", PLAIN, trains=True, note=SPEAKERS
        ),
        Model("crepe", "CREPE tiny, tones", HERE / "series_models.py", PLAIN),
        Model("fashion", "Fashion-MNIST, depthwise CNN", _IMAGES, _images("fashion"), trains=True),
    )
}
