"""What a target is: a device as data, one TOML a device.

Built-in profiles stand beside this file; the user's own in ``<config>/edgeopt/profiles`` or in a folder
that an entry point of the group ``edgeopt.profiles`` names. Importing this folder loads neither pydantic
nor any profile. Nothing here knows about models, runtimes or how a device is talked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_FROM = {
    "DeviceProfile": ".schema",
    "Cluster": ".schema",
    "ProfileEntry": ".catalog",
    "list_profiles": ".catalog",
    "load_profile": ".loader",
}

__all__ = ["Cluster", "DeviceProfile", "ProfileEntry", "list_profiles", "load_profile"]

if TYPE_CHECKING:
    from .catalog import ProfileEntry as ProfileEntry
    from .catalog import list_profiles as list_profiles
    from .loader import load_profile as load_profile
    from .schema import Cluster as Cluster
    from .schema import DeviceProfile as DeviceProfile


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FROM[name], __name__), name)
