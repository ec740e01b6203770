"""Sensitivity of a model to int8: which layers lose, what they cost, and why, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from .converters.keras.spec import refuse_keras
from .converters.rewrites import rewrite_capture
from .device_profiles import DeviceProfile, load_profile
from .errors import EdgeoptError, InputError
from .models.data import Evaluation, Sample, find_calibration, load_evaluation
from .models.program import Capture, capture
from .models.source import SourceModel, load_source_model
from .optimizers.cleanup import fold_batch_norm
from .optimizers.cost import predicted_node_ms
from .optimizers.culprit import Culprit, find_culprit, suspects
from .optimizers.observers import ObserverName
from .optimizers.quantization import prepare_static
from .optimizers.sensitivity import PROBE_SAMPLES, LayerDamage, ProbeGraph, spread_samples

if TYPE_CHECKING:
    pass

Progress = Callable[[str, float | None], None]
# Layers whose task metric is measured alone, and whose damage is explained.
MOST_EXPLAINED = 5


@dataclass(frozen=True)
class Sensitivity:
    """What int8 does to each layer of a model.

    Attributes:
        int8_snr_db: of the outputs with every layer quantised.
        layers: the most damaging first.
        culprits: the worst of them explained.
        metric: the task metric's name, with its value in float and with every layer in int8; None without one.
        predicted_ms: layer -> predicted milliseconds in int8 on the profile; empty when that can't be said.
        goal_path: (layers in float, SNR) of the worst 1, 2, 4, ... layers kept in float.
    """

    model: str
    profile: str
    samples: int
    probe_samples: int
    int8_snr_db: float
    layers: tuple[LayerDamage, ...]
    culprits: tuple[Culprit, ...]
    metric: str | None = None
    metric_samples: int | None = None
    metric_float: float | None = None
    metric_int8: float | None = None
    predicted_ms: dict[str, float] | None = None
    goal_path: tuple[tuple[int, float], ...] = ()

    def cost_share(self, layer: LayerDamage) -> float:
        """A layer's share of the predicted time, or of the multiply-accumulates where no time is predicted."""
        if self.predicted_ms:
            return self.predicted_ms.get(layer.name, 0.0) / sum(self.predicted_ms.values())
        return layer.macs / (sum(other.macs for other in self.layers) or 1)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "model": self.model,
            "profile": self.profile,
            "samples": self.samples,
            "probe_samples": self.probe_samples,
            "int8_snr_db": self.int8_snr_db,
            "evaluation": None
            if self.metric is None
            else {
                "metric": self.metric,
                "samples": self.metric_samples,
                "float": self.metric_float,
                "int8": self.metric_int8,
            },
            "cost_basis": "predicted time" if self.predicted_ms else "multiply-accumulates",
            "layers": [
                {**asdict(layer), "cost_share": self.cost_share(layer), **self._predicted(layer)}
                for layer in self.layers
            ],
            "culprits": [culprit.to_dict() for culprit in self.culprits],
            "kept_float": [{"layers": count, "snr_db": snr} for count, snr in self.goal_path],
        }

    def measurements(self) -> list[dict[str, Any]]:
        """The figures of the whole model as measurements of the fake-quantised graph."""
        common = {"grade": "measured", "artifact": self.model, "target": "host"}
        found: list[dict[str, Any]] = [
            {"metric": "snr_db", "value": self.int8_snr_db, "precision": "int8-static", **common}
        ]
        for precision, value in (("fp32", self.metric_float), ("int8-static", self.metric_int8)):
            if value is not None:
                found.append({"metric": "accuracy", "value": value, "precision": precision, **common})
        return found

    def _predicted(self, layer: LayerDamage) -> dict[str, float]:
        return {"predicted_ms": self.predicted_ms.get(layer.name, 0.0)} if self.predicted_ms else {}


def analyze(
    model: Any,
    *,
    profile: str | DeviceProfile,
    calibration: Any = None,
    evaluate: Any = None,
    observer: ObserverName = "histogram",
    explain: int = MOST_EXPLAINED,
    progress: Progress | None = None,
    **source_options: Any,
) -> Sensitivity:
    """Rank the layers of ``model`` by what static int8 does to its outputs.

    Args:
        profile: the target whose cost the layers are ranked by.
        calibration: samples; by default the function ``calibration`` beside the model.
        evaluate: a task metric; it is taken in float, in int8, and for each of the worst layers alone.
        observer: how ranges are found; see ``optimizers.observers``.
        explain: how many of the worst layers are explained.
        source_options: how the model is loaded; see ``load_source_model``.

    Raises:
        InputError: anything wrong with the input, or nothing in the model that int8 could quantise.
    """
    say = progress or (lambda what, fraction: None)
    target = profile if isinstance(profile, DeviceProfile) else load_profile(profile)
    say("loading the model", None)
    refuse_keras(model, "analyze")
    source = load_source_model(model, **source_options)
    samples = _samples(source, calibration)
    evaluation = load_evaluation(source, evaluate) if evaluate is not None else None
    say("capturing the model", None)
    captured = rewrite_capture(capture(source))
    captured = replace(captured, program=fold_batch_norm(captured.program)[0])
    say(f"calibrating on {len(samples)} samples", None)
    prepared = prepare_static(captured, samples, per_channel=True, observer=observer)
    probe = ProbeGraph(captured, prepared, spread_samples(samples, PROBE_SAMPLES))
    if not probe.layers:
        raise InputError(
            f"{source.origin} has no layer that static int8 quantises (convolutions, linear layers, "
            "additions and multiplications are): there is nothing to analyse."
        )
    return _analyzed(captured, target, probe, len(samples), evaluation, explain, say)


def _samples(source: SourceModel, calibration: Any) -> list[Sample]:
    samples = find_calibration(source, calibration)
    if samples is None:
        raise InputError(
            "analysing int8 needs calibration data to find the range of each activation: give --calibration "
            "FILE.npz or module:function, or put a function calibration() beside the model."
        )
    return samples


def _analyzed(
    captured: Capture,
    profile: DeviceProfile,
    probe: ProbeGraph,
    samples: int,
    evaluation: Evaluation | None,
    explain: int,
    say: Progress,
) -> Sensitivity:
    damages = []
    for index, layer in enumerate(probe.layers.values()):
        say(f"layer {index + 1} of {len(probe.layers)}: {layer.name}", index / len(probe.layers))
        damages.append(probe.damage(layer))
    damages.sort(key=lambda damage: damage.snr_db)
    all_int8_db = probe.snr_db()
    say("explaining the worst", None)
    culprits = [find_culprit(probe, damage, all_int8_db) for damage in suspects(damages, explain)]
    figures: dict[str, Any] = {}
    if evaluation is not None:
        figures, damages = _with_metric(probe, evaluation, damages, explain, say)
    return Sensitivity(
        model=captured.source.name,
        profile=profile.name,
        samples=samples,
        probe_samples=len(probe.samples),
        int8_snr_db=all_int8_db,
        layers=tuple(damages),
        culprits=tuple(culprits),
        predicted_ms=_predicted_ms(captured, profile, damages),
        goal_path=_goal_path(probe, damages),
        **figures,
    )


def _goal_path(probe: ProbeGraph, damages: Sequence[LayerDamage]) -> tuple[tuple[int, float], ...]:
    counts = [count for count in (1, 2, 4, 8, 16) if count < len(damages)]
    names = [damage.name for damage in damages]
    return tuple((count, probe.snr_db(kept_float=names[:count])) for count in counts)


def _with_metric(
    probe: ProbeGraph,
    evaluation: Evaluation,
    damages: list[LayerDamage],
    explain: int,
    say: Progress,
) -> tuple[dict[str, Any], list[LayerDamage]]:
    say(f"{evaluation.metric} in float", None)
    in_float, count = probe.metric(evaluation, quantized=())
    say(f"{evaluation.metric} in int8", None)
    in_int8, _ = probe.metric(evaluation, quantized=list(probe.layers))
    measured = []
    for damage in damages[:explain]:
        say(f"{evaluation.metric} with {damage.name} alone in int8", None)
        alone, _ = probe.metric(evaluation, quantized=(damage.name,))
        measured.append(replace(damage, metric=alone))
    figures = {
        "metric": evaluation.metric,
        "metric_samples": count,
        "metric_float": in_float,
        "metric_int8": in_int8,
    }
    return figures, [*measured, *damages[explain:]]


def _predicted_ms(
    captured: Capture, profile: DeviceProfile, damages: Sequence[LayerDamage]
) -> dict[str, float] | None:
    """Layer -> predicted milliseconds in int8; None where the cost model can't take the model."""
    try:
        found = predicted_node_ms(captured.program, profile, "int8-static")
    except EdgeoptError:
        return None
    times = {damage.name: found.get(damage.name, 0.0) for damage in damages}
    return times if sum(times.values()) > 0 else None
