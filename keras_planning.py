"""What an export of a Keras model is going to do, decided before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bundle import check_output
from .converters.file_report import FileReport, inspect_file
from .converters.keras.client import KerasWorker
from .converters.keras.recipe import KerasRecipe, load_keras_recipe, precision_recipe
from .converters.keras.source import KerasSource, keras_calibration, load_keras_source
from .converters.keras.spec import check_files, origin_of, plain_spec
from .cost_model.machine import unknown_core_notes
from .device_profiles import DeviceProfile, load_profile
from .errors import InputError
from .models.data import Sample
from .models.deployment import check_deployment
from .models.findings import Finding
from .models.workload import Workload
from .optimizers.choose import choose_recipe
from .optimizers.precision import parse_precisions

Progress = Callable[[str], None]
_NO_PTE = Finding(
    "error",
    "ExecuTorch reads PyTorch programs only, so no .pte can be made of a Keras model",
    format="pte",
    suggestion="the .tflite runs on the same devices",
)


@dataclass(frozen=True)
class KerasChoice:
    """What ``--recipe auto`` chose, why, and what to fall back on when its accuracy fails."""

    recipe: KerasRecipe
    reasons: tuple[str, ...]
    fallbacks: tuple[KerasRecipe, ...]


@dataclass(frozen=True)
class KerasPlan:
    """What an export is going to do; ``--dry-run`` prints it.

    Attributes:
        float_report: what is inside the float32 .tflite of the model as it was given; the file itself is
            ``float_file``. It is to a Keras model what the capture is to a PyTorch one.
        training: FILE.npz or ``module:function`` for passes that train.
    """

    keras: KerasSource
    profile: DeviceProfile
    recipes: tuple[KerasRecipe, ...]
    choice: KerasChoice | None
    calibration: list[Sample] | None
    training: str | None
    findings: list[Finding]
    output: Path
    deployment: dict[str, Any] | None
    float_file: Path
    float_report: FileReport

    def files(self) -> list[tuple[str, KerasRecipe, str]]:
        """(format, recipe, file name) of each artefact; the first recipe's is ``model.tflite``."""
        return [
            ("tflite", recipe, "model.tflite" if index == 0 else f"model.{recipe.name}.tflite")
            for index, recipe in enumerate(self.recipes)
        ]


def make_keras_plan(
    model: Any,
    *,
    profile: str | DeviceProfile,
    formats: Sequence[str] = ("tflite",),
    precision: str | None = None,
    recipe: str = "auto",
    calibration: Any = None,
    training: str | None = None,
    output: Path | str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    labels: Path | str | Sequence[str] | None = None,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    weights: Path | None = None,
    model_args: str | dict[str, Any] | None = None,
    trust_pickle: bool = False,
    **source_options: Any,
) -> KerasPlan:
    """Start TensorFlow, load the model and decide what to make of it; nothing is written beside it.

    Arguments and errors as for ``make_plan``; ``training`` is FILE.npz or ``module:function``.
    """
    say = progress or (lambda what: None)
    target = profile if isinstance(profile, DeviceProfile) else load_profile(profile)
    findings = _format_findings(formats)
    named = _named_recipes(precision, recipe)
    _check_data(named, calibration, training)
    if weights is not None:
        raise InputError(
            "--weights takes a PyTorch state_dict: save the Keras model with its weights (model.save)."
        )
    check_files(model)
    if output is not None:
        check_output(Path(output), force=force)
    options = _arguments(model_args)
    worker = KerasWorker(say)
    try:
        say("loading the model")
        keras = load_keras_source(
            worker,
            plain_spec(model, worker.folder),
            origin_of(model),
            model_args=options,
            trust_pickle=trust_pickle,
            **source_options,
        )
        where = Path(output) if output is not None else Path(f"{keras.source.name}_{target.name}")
        check_output(where, force=force)
        deployment = check_deployment(keras.source, labels, mean, std, channels_last=True)
        samples = keras_calibration(keras, calibration) if calibration is not None else None
        say("converting the model in float32")
        float_file = worker.folder / "float.tflite"
        worker.write(0, float_file, keras.tensors_of_file(), [i.name for i in keras.source.outputs])
        report = inspect_file(float_file)
        choice = None
        if not named:
            choice = _choose(target, workload_of(report), calibrated=samples is not None)
            named = (choice.recipe,)
    except BaseException:
        worker.close()
        raise
    findings += keras.source.findings
    findings += [Finding("warning", note) for note in unknown_core_notes(target)]
    return KerasPlan(
        keras, target, named, choice, samples, training, findings, where, deployment, float_file, report
    )


def workload_of(report: FileReport) -> Workload:
    """The multiply-accumulates of a .tflite file, by family."""
    totals = {"conv": 0, "linear": 0, "attention": 0, "recurrent": 0}
    steps = 0
    for op in report.ops:
        kind = op.op.upper()
        if "CONV" in kind:
            totals["conv"] += op.macs
        elif "BATCH_MATMUL" in kind:
            totals["attention"] += op.macs
        elif "LSTM" in kind or "RNN" in kind or kind == "WHILE":
            totals["recurrent"] += op.macs
            steps += 1
        else:
            totals["linear"] += op.macs
    return Workload(totals["conv"], totals["linear"], totals["attention"], totals["recurrent"], steps)


def _format_findings(formats: Sequence[str]) -> list[Finding]:
    unknown = [name for name in formats if name not in ("pte", "tflite")]
    if unknown or not formats:
        raise InputError(
            f"unknown format {', '.join(unknown) or '(none)'}: a Keras model becomes a .tflite file."
        )
    if "tflite" not in formats:
        raise InputError(f"{_NO_PTE.message}: ask for --format tflite.")
    return [_NO_PTE] if "pte" in formats else []


def _named_recipes(precision: str | None, recipe: str) -> tuple[KerasRecipe, ...]:
    if precision is not None:
        if recipe != "auto":
            raise InputError("--precision and --recipe both set the precision: give one of them.")
        return tuple(precision_recipe(p.name) for p in parse_precisions(precision))
    if not isinstance(recipe, str):
        raise InputError("a Keras model takes its recipe by name or as a TOML file.")
    return () if recipe == "auto" else (load_keras_recipe(recipe),)


def _check_data(recipes: Sequence[KerasRecipe], calibration: Any, train: str | None) -> None:
    """Ask for missing data before TensorFlow is started.

    Raises:
        InputError: a pass lacks its data, or data have no pass.
    """
    training = [entry["pass"] for r in recipes for entry in r.entries() if r.training]
    if training and train is None:
        raise InputError(
            f"the recipe {recipes[0].name} trains ({', '.join(training)}): give --train FILE.npz (inputs and labels) or "
            "module:function."
        )
    if train is not None and not training:
        raise InputError(
            "--train goes with a recipe file whose passes train (sparsify, cluster, qat, finetune)."
        )
    for recipe in recipes:
        if recipe.precision == "int8-static" and not recipe.quantizes_in_training and calibration is None:
            raise InputError(
                "static int8 needs calibration data to find the range of each activation: give --calibration "
                "FILE.npz or module:function, or choose --precision int8-dynamic."
            )


def _choose(profile: DeviceProfile, work: Workload, *, calibrated: bool) -> KerasChoice:
    choice = choose_recipe(profile, work, calibrated=calibrated)
    return KerasChoice(
        precision_recipe(choice.recipe.precision),
        tuple(choice.reasons),
        tuple(precision_recipe(fallback.precision) for fallback in choice.fallbacks),
    )


def _arguments(model_args: str | dict[str, Any] | None) -> dict[str, Any]:
    if not isinstance(model_args, str):
        return dict(model_args or {})
    try:
        parsed = json.loads(model_args)
    except ValueError as error:
        raise InputError(f"--model-args is not JSON ({error}): write e.g. '{{\"classes\": 10}}'.") from error
    if not isinstance(parsed, dict):
        raise InputError("--model-args must be a JSON object of keyword arguments.")
    return parsed
