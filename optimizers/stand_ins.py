"""What is said of a device whose cores the cost model has no figures of."""

from __future__ import annotations

from ..cost_model.machine import unknown_cores
from ..device_profiles import DeviceProfile


def unknown_core_notes(profile: DeviceProfile) -> list[str]:
    """A sentence about each core of the profile for which another core's figures are taken."""
    return [
        f"{core} isn't known to the cost model: {stand_in}'s figures stand in for it, so the estimate is rough"
        for core, stand_in in dict.fromkeys(unknown_cores(profile))
    ]
