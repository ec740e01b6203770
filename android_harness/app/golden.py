"""The bundle's golden data as plain files that Kotlin, Swift and C++ read in a few lines.

``golden.txt`` has one line a tolerance (``tolerance OUTPUT snr_db|agreement LEAST``) and one line a tensor
(``SAMPLE input|output INDEX DTYPE SHAPE FILE``; SHAPE is ``1x3x8x8``, ``-`` for a scalar). The files hold the
values in little-endian order, in the dtype of the model file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import InputError
from .context import AppContext

if TYPE_CHECKING:
    from ...bundle import Artifact, Bundle

_MAX_SAMPLES = 4
_MAX_BYTES = 8 * 2**20


def golden_files(bundle: Bundle, artifact: Artifact, context: AppContext) -> dict[str, bytes]:
    """File name -> content: ``golden.txt`` and one file a tensor; as many samples as fit 8 MiB, at most four.

    Raises:
        InputError: the golden data is missing or unreadable.
    """
    import numpy as np

    inputs, outputs = bundle.golden()
    if not inputs:
        raise InputError(f"{bundle.path} has no golden data: export the bundle again.")
    files: dict[str, bytes] = {}
    lines = ["# edgeopt golden data 1", *_tolerances(artifact, context)]
    total = 0
    for sample, chosen in enumerate(_varied([[a.shape for a in arrays] for arrays in inputs])):
        sides = (inputs[chosen], outputs[chosen])
        part: dict[str, bytes] = {}
        rows = []
        for side, tensors, arrays in zip(
            ("input", "output"), (context.inputs, context.outputs), sides, strict=True
        ):
            for index, (tensor, array) in enumerate(zip(tensors, arrays, strict=True)):
                name = f"{sample}.{side}.{index}.bin"
                dtype = np.dtype(tensor.dtype).newbyteorder("<")
                part[name] = np.ascontiguousarray(array).astype(dtype).tobytes()
                shape = "x".join(str(size) for size in array.shape) or "-"
                rows.append(f"{sample} {side} {index} {tensor.dtype} {shape} {name}")
        total += sum(len(data) for data in part.values())
        if sample and total > _MAX_BYTES:
            break
        files |= part
        lines += rows
    return {"golden.txt": ("\n".join(lines) + "\n").encode(), **files}


def _varied(shapes: Sequence[object]) -> list[int]:
    """At most four samples, those with sizes that no earlier one has first."""
    first = [i for i, shape in enumerate(shapes) if shape not in shapes[:i]]
    others = [i for i in range(len(shapes)) if i not in first]
    return sorted([*first, *others][:_MAX_SAMPLES])


def _tolerances(artifact: Artifact, context: AppContext) -> list[str]:
    """Each output's bound as the export had it: noise for floats, share of equal values for whole numbers."""
    from ...converters.verification import least_agreement

    found = {row["output"]: row for row in artifact.parity}
    lines = []
    for index, tensor in enumerate(context.outputs):
        if tensor.dtype.startswith("float"):
            lines.append(f"tolerance {index} snr_db {float(found[tensor.name]['min_snr_db'])}")
        else:
            lines.append(f"tolerance {index} agreement {least_agreement(artifact.precision)}")
    return lines
