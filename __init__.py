"""edgeopt: a trained model and a device profile in, verified and measured files for that device out.

The public names are loaded on first use, so that ``import edgeopt`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_PUBLIC = {
    "EdgeoptError": ".errors",
    "GateError": ".errors",
    "InputError": ".errors",
    "DeviceProfile": ".device_profiles",
    "load_profile": ".device_profiles",
    "Bundle": ".bundle",
    "load_bundle": ".bundle",
    "export": ".pipeline",
    "optimize": ".optimization",
    "MeasureOptions": ".android_harness.measure",
    "bench": ".results.api",
    "compare": ".results.api",
    "estimate": ".estimating",
}

__all__ = ["__version__", *sorted(_PUBLIC)]  # noqa: PLE0604

if TYPE_CHECKING:
    from .android_harness.measure import MeasureOptions as MeasureOptions
    from .bundle import Bundle as Bundle
    from .bundle import load_bundle as load_bundle
    from .device_profiles import DeviceProfile as DeviceProfile
    from .device_profiles import load_profile as load_profile
    from .errors import EdgeoptError as EdgeoptError
    from .errors import GateError as GateError
    from .errors import InputError as InputError
    from .estimating import estimate as estimate
    from .optimization import optimize as optimize
    from .pipeline import export as export
    from .results.api import bench as bench
    from .results.api import compare as compare


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
