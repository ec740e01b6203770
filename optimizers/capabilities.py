"""Which kind of optimised model each format can take, by which road, and why it refuses the rest."""

from __future__ import annotations

# The kind of model that a precision leaves behind:
#   dense   a captured program in float (float32, pruned, distilled)
#   half    a captured program that is to compute in float16
#   format  a captured program that the format's own tool quantises (dynamic int8)
#   pt2e    a graph that PT2E prepared and calibrated (static int8, mixed)
KIND_OF_PRECISION = {
    "fp32": "dense",
    "fp16": "half",
    "int8-dynamic": "format",
    "int8-static": "pt2e",
    "mixed": "pt2e",
}

# (kind, format) -> the road taken. What isn't here is refused.
ROADS = {
    ("dense", "pte"): "ExecuTorch, XNNPACK partitioner",
    ("half", "pte"): "graph cast to float16, ExecuTorch, XNNPACK partitioner",
    ("format", "pte"): "PT2E dynamic int8 (linear layers), ExecuTorch, XNNPACK partitioner",
    ("pt2e", "pte"): "PT2E static int8, ExecuTorch, XNNPACK partitioner",
    ("dense", "tflite"): "litert-torch",
    ("half", "tflite"): "litert-torch float32, then ai-edge-quantizer float16",
    ("format", "tflite"): "litert-torch float32, then ai-edge-quantizer dynamic int8",
    ("pt2e", "tflite"): "PT2E static int8, litert-torch",
}


def unsupported_reason(precision: str, output_format: str, *, dynamic_shapes: bool) -> str | None:
    """Why ``output_format`` can't carry this precision, or None when it can."""
    kind = KIND_OF_PRECISION[precision]
    if (kind, output_format) not in ROADS:
        return f"no road leads from {precision} to .{output_format}"
    return None
