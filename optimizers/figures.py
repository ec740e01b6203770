"""What a module weighs and costs, counted and measured here, for the report of a pass."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..device_profiles import DeviceProfile
from ..errors import EdgeoptError
from ..models.source import SourceModel
from ..models.state import preserved_state

_COUNTED = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MAX_MEASURE_S = 2.0
# Below this the two times can't be told apart on a machine that does other things too.
FASTER_BY = 0.05


@dataclass(frozen=True)
class Figures:
    """Of one module.

    Attributes:
        nonzero: parameters that aren't 0.
        macs: multiply-accumulates of one inference in its convolutions and linear layers.
        weight_bytes: of parameters and buffers.
        compressed_bytes: the same after zlib, as an app store or an update would ship them.
        host_ms: median time of one inference in PyTorch on this machine, one thread; None when not measured.
        predicted_ms: format -> predicted time of one inference in float32 on a device; None without a profile.
    """

    parameters: int
    nonzero: int
    macs: int
    weight_bytes: int
    compressed_bytes: int
    host_ms: float | None = None
    predicted_ms: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        return dict(vars(self))


def figures(module: nn.Module, example: Sequence[torch.Tensor]) -> Figures:
    """The counted figures of ``module``; the time comes from :func:`with_times`."""
    parameters = list(module.parameters())
    tensors = [t.detach().cpu().contiguous() for t in [*parameters, *module.buffers()]]
    packed = zlib.compressobj(6)
    compressed = sum(len(packed.compress(_bytes(tensor))) for tensor in tensors) + len(packed.flush())
    return Figures(
        sum(p.numel() for p in parameters),
        sum(int(p.count_nonzero()) for p in parameters),
        count_macs(module, example),
        sum(t.numel() * t.element_size() for t in tensors),
        compressed,
    )


def count_macs(module: nn.Module, example: Sequence[torch.Tensor]) -> int:
    """Multiply-accumulates of one inference in convolutions and linear layers."""
    return sum(layer_macs(module, example).values())


def layer_macs(module: nn.Module, example: Sequence[torch.Tensor]) -> dict[nn.Module, int]:
    """Convolution or linear layer -> its multiply-accumulates in one inference, counted as it runs."""
    found: dict[nn.Module, int] = {}

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if isinstance(layer, nn.Linear):
            macs = output.numel() * layer.in_features
        else:
            data = inputs[0] if isinstance(layer, _TRANSPOSED) else output
            channels = layer.in_channels if isinstance(layer, _TRANSPOSED) else layer.out_channels
            weight: torch.Tensor = layer.weight  # type: ignore[assignment]
            macs = data.numel() // channels * weight.numel()  # type: ignore[operator]
        found[layer] = found.get(layer, 0) + macs

    handles = [part.register_forward_hook(count) for part in module.modules() if isinstance(part, _COUNTED)]
    try:
        with torch.no_grad(), preserved_state(module):
            module(*example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def with_times(
    before: tuple[nn.Module, Figures], after: tuple[nn.Module, Figures], example: Sequence[torch.Tensor]
) -> tuple[Figures, Figures]:
    """Both figures with the median time of an inference, measured in turns so that both meet the same load."""
    modules = (before[0], after[0])
    times: tuple[list[float], list[float]] = ([], [])
    with one_thread(), torch.no_grad():
        for _ in range(3):
            for module in modules:
                _time(module, example)
        began = time.monotonic()
        while len(times[0]) < 5 or (time.monotonic() - began < _MAX_MEASURE_S and len(times[0]) < 101):
            for found, module in zip(times, modules, strict=True):
                found.append(_time(module, example))
    return (
        replace(before[1], host_ms=statistics.median(times[0])),
        replace(after[1], host_ms=statistics.median(times[1])),
    )


def with_predictions(
    module: nn.Module, found: Figures, source: SourceModel, profile: DeviceProfile | None
) -> Figures:
    """The figures with the predicted time on ``profile``; without it, or for what can't be predicted, as they are."""
    if profile is None:
        return found
    from ..models.program import capture
    from .cleanup import fold_batch_norm
    from .cost import RUNTIME_OF, predicted_ms

    try:
        program = fold_batch_norm(capture(replace(source, module=module)).program)[0]  # type: ignore[arg-type]
        return replace(
            found, predicted_ms={name: predicted_ms(program, profile, name) for name in RUNTIME_OF}
        )
    except EdgeoptError:
        return found


def prediction_sentence(before: Figures, after: Figures, profile: DeviceProfile | None) -> str:
    """``predicted on pixel7 in float32: .pte 1.20 → 0.61 ms (49% less), ...``; empty without a prediction."""
    if profile is None or before.predicted_ms is None or after.predicted_ms is None:
        return ""
    each = []
    for name, old in before.predicted_ms.items():
        new = after.predicted_ms[name]
        saved = 1 - new / old
        words = f"{saved:.0%} less" if saved >= FASTER_BY else f"saves {max(0.0, saved):.0%}"
        each.append(f".{name} {_ms(old)} → {_ms(new)} ms ({words})")
    return f", predicted on {profile.name} in float32: {', '.join(each)}"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, as it was afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _time(module: nn.Module, example: Sequence[torch.Tensor]) -> float:
    began = time.perf_counter()
    module(*example)
    return (time.perf_counter() - began) * 1e3


def time_sentence(before: Figures, after: Figures) -> str:
    """``1.20 → 0.61 ms in PyTorch here (49% less)``, or that it isn't faster."""
    if before.host_ms is None or after.host_ms is None or before.host_ms <= 0:
        return ""
    times = f"{_ms(before.host_ms)} → {_ms(after.host_ms)} ms in PyTorch on this machine"
    saved = 1 - after.host_ms / before.host_ms
    return f"{times} ({saved:.0%} less)" if saved >= FASTER_BY else f"{times}: not faster"


def _ms(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 2
    return f"{value:.{min(digits, 4)}f}"


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
