"""What the cost model says of memory and energy, without a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.cost_model import Kernel, predict
from edgeopt.cost_model.energy import dram_bytes, estimate_energy
from edgeopt.cost_model.memory import MemoryFacts, estimate_memory, peak_bytes
from edgeopt.device_profiles import load_profile


def test_the_peak_of_memory_is_where_most_is_alive() -> None:
    steps = [([0], [1]), ([1], [2]), ([1, 2], [3])]
    assert peak_bytes(steps, {0: 10, 1: 20, 2: 30, 3: 5}, inputs=[0], outputs=[3]) == 55


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9), min_size=1)), min_size=1, max_size=8
    ),
    st.lists(st.integers(1, 1000), min_size=10, max_size=10),
)
def test_the_peak_is_between_the_largest_step_and_everything(
    steps: list[tuple[set[int], set[int]]], sizes: list[int]
) -> None:
    found = peak_bytes(steps, dict(enumerate(sizes)))
    assert found <= sum(sizes)
    assert found >= max(sum(sizes[tensor] for tensor in writes) for _, writes in steps)


def test_widened_weights_count_twice_and_tables_not_at_all() -> None:
    kernel = Kernel("fc", "linear", "fp32", macs=100, bytes_weights=4 << 20, delegate="XNNPACK")
    plain = estimate_memory(MemoryFacts(4 << 20, 4 << 20, 0), [kernel], "litert").peak_mib
    widened = MemoryFacts(1 << 20, 1 << 20, 0, unpacked_bytes=4 << 20)
    table = MemoryFacts(12 << 20, 12 << 20, 0, table_bytes=8 << 20)
    assert estimate_memory(widened, [kernel], "litert").peak_mib == pytest.approx(plain + 1)
    assert estimate_memory(table, [kernel], "litert").peak_mib == pytest.approx(plain)


def test_energy_is_power_times_time_and_nothing_without_power() -> None:
    profile = load_profile("pixel7")
    kernels = [
        Kernel(
            "conv", "conv", "fp32", macs=10**8, bytes_in=1e5, bytes_out=1e5, in_channels=64, out_channels=64
        )
    ]
    one, two = (predict(kernels, profile, num_threads=count) for count in (1, 2))
    energy = estimate_energy(one, profile)
    assert energy is not None and profile.power.active_mw_per_core is not None
    # One thread takes a core of the fastest cluster, the last of this phone's.
    assert energy.cores_mj == pytest.approx(one.latency_ms * profile.power.active_mw_per_core[-1] * 1e-3)
    both = estimate_energy(two, profile)
    assert both is not None and both.power_mw > 1.9 * energy.power_mw
    silent = profile.model_copy(
        update={"power": profile.power.model_copy(update={"active_mw_per_core": None})}
    )
    assert estimate_energy(one, silent) is None


def test_what_fits_the_caches_costs_no_dram() -> None:
    small = [Kernel("a", "conv", "fp32", macs=1, bytes_in=1e4, bytes_out=1e4, bytes_weights=1e4)]
    large = [Kernel("a", "conv", "fp32", macs=1, bytes_in=1e4, bytes_out=1e4, bytes_weights=1e9)]
    assert dram_bytes(small, 8e6) < 10
    assert dram_bytes(large, 8e6) == pytest.approx(1e9, rel=0.01)
