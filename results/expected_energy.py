"""What an inference should cost of energy where no meter can be read: the profile's power for the measured time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..android_harness.device_measure import DeviceMeasurement
from ..converters.kernels import read_work
from ..cost_model import predict
from ..cost_model.energy import estimate_energy
from ..device_profiles import DeviceProfile
from ..errors import EdgeoptError


def expected_energy(path: Path, profile: DeviceProfile | None, done: DeviceMeasurement) -> str | None:
    """A sentence with mJ above idle, graded predicted; None where the profile or the file says too little."""
    if profile is None or done.summary is None:
        return None
    latency_ms, num_threads = done.summary.median_ms, done.options.num_threads
    try:
        work = read_work(path)
        found = predict(work.kernels, profile, runtime=work.runtime, num_threads=num_threads)
        energy = estimate_energy(replace(found, latency_ms=latency_ms), profile)
    except EdgeoptError:
        return None
    if energy is None:
        return None
    return f"{profile.name}'s power for {latency_ms:.3g} ms would be {energy.dynamic_mj:.3g} mJ above idle (predicted)"
