"""The page a person reads in a bundle: SUMMARY.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..models.findings import not_made_because


def bundle_summary(manifest: Mapping[str, Any]) -> str:
    """SUMMARY.md of a bundle from its manifest (as plain data)."""
    profile = manifest["profile"]
    lines = [
        f"# {manifest['name']} for {profile.get('title', profile['name'])}",
        "",
        f"Status: **{manifest['status']}** · made by edgeopt {manifest['versions']['edgeopt']} on {manifest['created']}",
        "",
        *(f"- {reason}" for reason in manifest["choice"]),
        "",
        "## Files",
        "",
        "| File | Precision | Size | Parity | Delegated work | Work in integers | Weights in integers | Metric | Status |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(artifact) for artifact in manifest["artifacts"]),
        "",
        *_predictions(manifest["artifacts"]),
    ]
    evaluation = manifest.get("evaluation")
    if evaluation:
        size = f" on {evaluation['samples']} samples" if evaluation.get("samples") else ""
        lines += [
            f"Source model: {evaluation['metric']} {evaluation['value']:.4f}{size} (measured on this host).",
            "",
        ]
    optimization = manifest.get("optimization")
    if optimization:
        lines += ["## What the recipe did", "", *_passes(optimization), ""]
    if manifest["not_made"]:
        reasons = not_made_because(manifest["not_made"])
        # A finding of the plan names its format, which the file's name says.
        reasons = [(files, why.removeprefix("pte: ").removeprefix("tflite: ")) for files, why in reasons]
        lines += ["## Not made", "", *(f"- {files}: {why}" for files, why in reasons), ""]
    warnings = [
        *manifest["warnings"],
        *(f"{a['file']}: {w}" for a in manifest["artifacts"] for w in a["warnings"]),
    ]
    if warnings:
        lines += ["## Warnings", "", *(f"- {warning}" for warning in warnings), ""]
    lines += [
        "## Inputs and outputs",
        "",
        *(f"- input `{_tensor(tensor)}`" for tensor in manifest["inputs"]),
        *(f"- output `{_tensor(tensor)}`" for tensor in manifest["outputs"]),
        "",
        "Parity and metric were measured on the host that made the bundle, in each file's own runtime.",
        "Speed was not: what stands above is foretold, `edgeopt bench` measures it.",
        "",
    ]
    return "\n".join(lines)


def _predictions(artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Expected latency of each file by threads, with its band and what it rests on."""
    rows = [(artifact["file"], entry) for artifact in artifacts for entry in artifact.get("predicted", ())]
    if not rows:
        return []
    bases = dict.fromkeys(f"{entry['grade']} from {entry['basis']}" for _, entry in rows)
    return [
        "## Expected on the device",
        "",
        "| File | Threads | Latency | 80% band | Peak memory | Grade |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{file}` | {entry['threads']} | {entry['latency_ms']:.3g} ms | {entry['band80'][0]:.3g} to "
            f"{entry['band80'][1]:.3g} ms | {entry['peak_memory_mib']:.3g} MiB | {entry['grade']} |"
            for file, entry in rows
        ),
        "",
        f"Latency: {'; '.join(bases)}.",
        "",
    ]


def _passes(optimization: Mapping[str, Any]) -> list[str]:
    """One line a pass, and the figures of the whole model before and after."""
    lines = [
        f"{i}. **{entry['pass']}**: {entry['change']}" for i, entry in enumerate(optimization["passes"], 1)
    ]
    (old_parameters, parameters), (old_macs, macs) = optimization["parameters"], optimization["macs"]
    lines += [
        "",
        f"Parameters {old_parameters:,} → {parameters:,}, multiply-accumulates {old_macs:,} → {macs:,}.",
    ]
    if "predicted_ms" in optimization:
        before, after = optimization["predicted_ms"]
        grade = optimization["predicted_grade"]
        lines.append(f"Latency in float32 on one thread: {before:.3g} → {after:.3g} ms ({grade}).")
    if optimization.get("metric") is not None:
        lines.append(f"The optimised model in PyTorch, before conversion: {optimization['metric']:.4f}.")
    return lines


def _row(artifact: Mapping[str, Any]) -> str:
    parity = artifact["parity"]
    contents = artifact["contents"]
    cells = [
        f"`{artifact['file']}`",
        artifact["precision"],
        _size(artifact),
        worst_snr(parity) if parity else "not run",
        percent(contents.get("delegated_macs_ratio")),
        percent(contents.get("quantized_macs_ratio")),
        percent(contents.get("quantized_weights_ratio")),
        f"{artifact['metric']:.4f}" if artifact["metric"] is not None else "–",
        artifact["status"],
    ]
    return "| " + " | ".join(cells) + " |"


def _size(artifact: Mapping[str, Any]) -> str:
    size = file_size(artifact["size_bytes"])
    packed = artifact.get("compressed_bytes")
    return size if packed is None else f"{size} ({file_size(packed)} after zlib)"


def _tensor(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['name']}: {tensor['dtype']}[{', '.join(str(size) for size in tensor['shape'])}]"


def file_size(size_bytes: float) -> str:
    """``4.21 MB``, ``93.0 kB``: powers of ten, as file managers show them."""
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def worst_snr(parity: Iterable[Mapping[str, Any]]) -> str:
    """The least signal-to-noise ratio of a file's outputs; a dash where all of them hold whole numbers."""
    found = [output["snr_db"] for output in parity if output["snr_db"] is not None]
    return f"{min(found):.1f} dB" if found else "–"


def percent(ratio: float | None) -> str:
    """A ratio as a percentage, a dash when there is none."""
    if ratio is None:
        return "–"
    if 0.9995 <= ratio < 1.0:
        return ">99.9%"
    if 0.0 < ratio < 0.0005:
        return "<0.1%"
    return f"{ratio:.0%}" if ratio in (0.0, 1.0) else f"{ratio:.1%}"
