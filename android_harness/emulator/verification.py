"""A bundle's files on the emulated device: golden inputs, every core of the profile, three-way comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .cpu import cpu_of
from .execution import run
from .parity import Agreement, Parity, agreement, check_parity
from .rounding import tolerance_of

if TYPE_CHECKING:
    import numpy as np

    from ...bundle import Bundle
    from ...device_profiles import DeviceProfile

# How much further than the host's run the emulated one may be from the source model, as a share of the
# host's own distance: a rounding that falls the other way moves a quantised output by one step.
_WORSE = 1.5


@dataclass(frozen=True)
class BundleCheck:
    """One file on one core. ``host_with_reference`` is how far this machine's run is from the source model."""

    artifact: str
    core: str
    parity: Parity
    host_with_reference: Agreement
    feature_problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Outputs as on the host, or no further from the source model than the host's; features as they must."""
        found = self.parity.with_reference
        near = found is not None and found.relative <= (
            _WORSE * self.host_with_reference.relative + self.parity.tolerance
        )
        return not self.feature_problems and (self.parity.ok or near)

    def as_json(self) -> dict[str, Any]:
        """The object in the JSON list ``checks``."""
        return {
            "artifact": self.artifact,
            "core": self.core,
            "ok": self.ok,
            "parity": self.parity.to_dict(),
            "host_with_reference": self.host_with_reference.to_dict(),
            "feature_problems": list(self.feature_problems),
        }


def verify_on_emulator(
    bundle: Bundle,
    profile: DeviceProfile,
    *,
    sample: int = 0,
    progress: Callable[[str, float | None], None] | None = None,
) -> list[BundleCheck]:
    """Run every file of ``bundle`` on every kind of core of ``profile``, and on this machine.

    Raises:
        InputError: the golden data is unreadable, or the profile is not arm64.
        EdgeoptError: the emulator is not set up, or a run crashed.
    """
    from ...runtimes import run_isolated

    inputs, outputs = bundle.golden()
    arrays, reference = inputs[sample], outputs[sample]
    cores: dict[str, int] = {}
    for index, cluster in enumerate(profile.cpu.clusters):
        cores.setdefault(cluster.core, index)
    found = []
    for number, artifact in enumerate(bundle.artifacts):
        path = bundle.artifact_path(artifact)
        if progress:
            progress(f"running {artifact.file}", number / len(bundle.artifacts))
        host = run_isolated(path, [arrays])[0]
        for core, index in cores.items():
            done = run(path, arrays, cpu_of(profile, index), count=False)
            found.append(
                BundleCheck(
                    artifact=artifact.file,
                    core=core,
                    parity=check_parity(
                        done.outputs,
                        host,
                        _in_shape(reference, host),
                        tolerance=tolerance_of(path, done.cpu_features),
                    ),
                    host_with_reference=agreement(host, _in_shape(reference, host)),
                    feature_problems=done.feature_problems,
                )
            )
    return found


def _in_shape(reference: Sequence[np.ndarray], like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The source model's outputs, one for each output of the file (a file may leave trailing ones out)."""
    return list(reference[: len(like)])
