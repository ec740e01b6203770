"""Steps that vanish when XNNPACK prepares a graph, and threads that sleep meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgeopt
from edgeopt.android_harness.measure import MeasureOptions
from edgeopt.android_harness.op_profile import profile_ops
from edgeopt.converters.kernels import file_kernels
from edgeopt.converters.kernels_fused import Step, clamped, with_tables
from edgeopt.cost_model import Kernel, predict
from edgeopt.cost_model.corrections import settings_of
from edgeopt.cost_model.pauses import PAUSE_MS, Pauses
from edgeopt.device_profiles import load_profile


def _kernel(op: str, precision: str, name: str = "k", **fields: object) -> Kernel:
    sizes = {"bytes_in": 4000.0, "bytes_out": 4000.0, "in_channels": 10, "out_channels": 10, "spatial": 100}
    return Kernel(name, "elementwise", precision, op=op, delegate="XNNPACK", **(sizes | fields))  # type: ignore[arg-type]


def _chain(*ops: tuple[str, str]) -> list[Step]:
    return [Step(_kernel(op, precision), (i,), (i + 1,)) for i, (op, precision) in enumerate(ops)]


def _ops(steps: list[Step]) -> list[str]:
    return [f"{step.kernel.op} {step.kernel.precision}" for step in steps]


WIDEN, NARROW = ("dequantize", "fp32"), ("quantize", "int8")


def test_a_function_between_int8_values_is_one_table() -> None:
    assert _ops(with_tables(_chain(WIDEN, ("gelu", "fp32"), NARROW), ())) == ["gelu int8"]
    assert _ops(with_tables(_chain(WIDEN, ("add", "fp32"), ("clamp", "fp32"), ("mul", "fp32"), NARROW), ())) == ["mul int8"]  # fmt: skip


def test_what_is_read_twice_or_needed_outside_is_no_table() -> None:
    chain = _chain(WIDEN, ("gelu", "fp32"), NARROW)
    assert len(with_tables(chain, [2])) == 3
    other = Step(_kernel("mul", "fp32"), (1,), (9,))
    assert len(with_tables([*chain, other], ())) == 4


def test_bounds_alone_and_functions_with_stored_values_are_no_table() -> None:
    assert len(with_tables(_chain(WIDEN, ("clamp", "fp32"), NARROW), ())) == 3
    chain = _chain(WIDEN, ("prelu", "fp32"), NARROW)
    assert len(with_tables([chain[0], replace(chain[1], constants=True), chain[2]], ())) == 3


def test_a_clamped_sum_is_two_kernels_that_follow_one_another() -> None:
    first, second = clamped(Step(_kernel("add", "fp32", "sum"), (1, 2), (3,)))
    assert first.writes == second.reads and second.writes == (3,)
    assert (second.kernel.name, second.kernel.op) == ("sum.clamp", "clamp")


class Swished(nn.Module):
    """Convolutions with a padding between, which one of them takes over, and with an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            nn.Conv2d(16, 32, 1),
            nn.Conv2d(32, 16, 3, 2),
            nn.Conv2d(16, 24, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 16, 24, 24) → (1, 24, 12, 12)."""
        y = nn.functional.pad(torch.relu(self.first(x)), (0, 1, 0, 1))
        return self.third(nn.functional.hardswish(self.second(y)))


@pytest.mark.parametrize("format", ["pte", "tflite"])
def test_the_kernels_of_a_file_are_those_that_its_profile_shows(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 16, 24, 24)
    edgeopt.export(
        Swished().eval(), profile="host", precision="fp32,int8-static,int8-dynamic", formats=format,
        example_inputs=(x,), calibration=[(x,)], output=tmp_path / "bundle",
    )  # fmt: skip
    for path in sorted((tmp_path / "bundle").glob(f"*.{format}")):
        timed = [op for op in profile_ops(path, MeasureOptions()) if "Reshape" not in op.name]
        kernels = file_kernels(path)
        assert len(kernels) == len(timed), (path.name, [k.op for k in kernels], [op.name for op in timed])
    found = [k for k in file_kernels(tmp_path / "bundle" / f"model.int8-static.{format}") if "swish" in k.op]
    assert [kernel.precision for kernel in found] == ["int8"]


# Threads that sleep while the runtime's own kernels run.


def _network(own_work: float) -> list[Kernel]:
    work = replace(_kernel("add", "fp32"), bytes_in=4e5, bytes_out=4e5, spatial=10_000)
    own = replace(work, op="native_layer_norm", kind="norm", delegate=None, spatial=int(own_work))
    return [work, own, own, work, own]


def test_own_kernels_use_one_thread_beside_a_delegate() -> None:
    settings = settings_of(_network(1000), "executorch", 2)
    assert [threads for *_, threads in settings] == [2, 1, 1, 2, 1]
    # Where nobody knows who executes what, all count as threaded.
    alone = [replace(kernel, delegate=None) for kernel in _network(1000)]
    assert {threads for *_, threads in settings_of(alone, "executorch", 2)} == {2}


def test_threads_are_woken_once_after_a_long_run_of_own_kernels() -> None:
    kernels = _network(1000)
    pauses = Pauses.of([(kernels, 2), (kernels, 1), (kernels, 2)])
    assert pauses.before.tolist() == [3, 13]
    assert pauses.run.tolist() == [-1, 0, 0, -1, -1, *[-1] * 5, -1, 1, 1, -1, -1]
    times = np.array([1, 0.05, 0.05, 1, 1] * 2 + [1, 0.001, 0.001, 1, 1])
    long, short = pauses.sleeping(times)
    assert long > 0.99 and short < 0.01


def test_the_kernel_that_wakes_the_threads_takes_longer() -> None:
    profile = load_profile("pixel7")
    kernels = _network(200_000)
    one, two = (predict(kernels, profile, num_threads=threads).kernels for threads in (1, 2))
    assert two[3].latency_ms - two[0].latency_ms == pytest.approx(PAUSE_MS, rel=0.05)
    assert one[3].latency_ms == pytest.approx(one[0].latency_ms)
