"""The table ``[calibration]`` of a profile: what measurements on the device itself say beyond its data."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1, max_length=2000)]
# Natural logarithms of factors on time: e^±5 is 150 times.
LogFactor = Annotated[float, Field(ge=-5, le=5, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=-1e5, le=1e5, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=1)]


class Anchor(BaseModel):
    """A kernel that was measured, and how far it tells on its like.

    ``weights`` has one figure for each of the calibration's ``settings``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cls: Text
    op: Text
    where: Text  # "delegate" or "own": who executes it
    work: Annotated[float, Field(gt=0)]
    inputs: Annotated[float, Field(gt=0)]
    outputs: Annotated[float, Field(gt=0)]
    positions: Annotated[float, Field(gt=0)]
    kernel: Annotated[float, Field(gt=0)]
    stride: Annotated[float, Field(gt=0)]
    weights: tuple[Weight, ...]


class Calibration(BaseModel):
    """What was learned on the device and where it is from.

    Attributes:
        date, device, conditions: when, on what and how it was measured, in words.
        runtimes: runtime → version.
        suite: version of the suite of networks.
        measurements: how many latencies it rests on.
        constants: fingerprint of the cost model's constants that the corrections are on top of.
        threads: the numbers of threads that were measured.
        factors: component → natural logarithm of a factor on time (cost model).
        call_ms: "runtime threads" → what an inference costs beside its kernels.
        start_ms: runtime → what starting a kernel takes, where operators were timed.
        settings: "runtime arithmetic threads" of the anchors' weights.
        anchors: the measured kernels.
        band: 10th and 90th percentile of measured over predicted, for networks left out of the fit.
        within_10, within_20: share of those within ±10% and ±20%.
        median_error: of those, relative.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: Text
    device: Text
    conditions: Text
    runtimes: Annotated[dict[Text, Text], Field(min_length=1)]
    suite: Count
    measurements: Count
    constants: Text
    threads: Annotated[tuple[Count, ...], Field(min_length=1)]
    factors: dict[Text, LogFactor]
    call_ms: dict[Text, Milliseconds]
    start_ms: dict[Text, Milliseconds] = Field(default_factory=dict)
    settings: tuple[Text, ...]
    anchors: tuple[Anchor, ...]
    band: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(ge=1, le=100)]]
    within_10: Share
    within_20: Share
    median_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _rectangular(self) -> Calibration:
        if any(len(anchor.weights) != len(self.settings) for anchor in self.anchors):
            raise ValueError(f"each anchor needs {len(self.settings)} weights, one a setting")
        return self
