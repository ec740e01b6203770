"""The unit of a profile's figure, which stands at the end of its key."""

from __future__ import annotations

_UNITS = {
    "mhz": "MHz",
    "kib": "KiB",
    "mib": "MiB",
    "gb_s": "GB/s",
    "mw": "mW",
    "mw_per_core": "mW",
    "c": "°C",
    "ms": "ms",
    "mj": "mJ",
}


def unit_of(key: str) -> str:
    """The unit of the figure at a dotted key (``memory.ram_mib`` is in MiB); empty for a mere number."""
    name = next((part for part in reversed(key.split(".")) if not part.isdigit()), "")
    return next((unit for suffix, unit in _UNITS.items() if name.endswith(f"_{suffix}")), "")
