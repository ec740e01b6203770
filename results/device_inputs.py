"""What a file is run with on a device: its inputs, and the CPUs it runs on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..android_harness.device_measure import describe_inputs
from ..android_harness.device_session import DeviceSession
from ..android_harness.payload import Payload
from ..device_profiles import DeviceProfile
from ..errors import InputError
from .artifacts import Artifact

if TYPE_CHECKING:
    import numpy as np


def big_cpus(session: DeviceSession, profile: DeviceProfile | None) -> tuple[int, ...] | None:
    """The numbers of the fastest cluster's CPUs; None where neither the device nor a profile tells."""
    clusters = session.facts.clusters
    if profile is not None:
        position = profile.cpu.clusters.index(profile.big_cluster)
        if len(clusters) == len(profile.cpu.clusters):
            return clusters[position][0]
        if not clusters and not session.facts.emulated_by:
            first = sum(cluster.count for cluster in profile.cpu.clusters[:position])
            return tuple(range(first, first + profile.big_cluster.count))
    if len(clusters) > 1 and all(mhz for _, mhz in clusters):
        return max(clusters, key=lambda cluster: cluster[1] or 0.0)[0]
    return None


def inputs_for_device(
    session: DeviceSession, artifact: Artifact, payload: Payload, archive: Path | None, timeout_s: float
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Input arrays, and the source model's outputs on them where a bundle has both.

    The user's archive, else the bundle's first golden sample, else random ones of the file's shapes.
    """
    import numpy as np

    from ..bundle import MANIFEST, load_bundle

    if archive is not None:
        try:
            data = np.load(archive)
            return ([data] if isinstance(data, np.ndarray) else [data[n] for n in data.files]), None
        except (OSError, ValueError) as error:
            raise InputError(f"{archive} is not a readable .npz file ({error}).") from error
    if artifact.bundle is not None and (artifact.bundle / MANIFEST).is_file():
        bundle = load_bundle(artifact.bundle)
        inputs, outputs = bundle.golden()
        entry = next((e for e in bundle.artifacts if e.file == artifact.name), None)
        if inputs and entry is not None and not any(tensor.quantization for tensor in entry.inputs):
            arrays = [
                a.astype(t.dtype) if t.dtype.startswith("float") and a.dtype.kind == "f" else a
                for a, t in zip(inputs[0], entry.inputs, strict=True)
            ]
            return arrays, list(outputs[0])
    generator = np.random.default_rng(0)
    arrays = []
    for row in describe_inputs(session, artifact.path, payload, timeout_s=timeout_s):
        shape = [max(size, 1) for size in row["shape"]]
        if row["dtype"].startswith("float"):
            arrays.append(generator.standard_normal(shape).astype(row["dtype"]))
        else:
            arrays.append(generator.integers(0, 2, shape).astype(row["dtype"]))
    return arrays, None
