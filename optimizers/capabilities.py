"""Which kind of optimised model each format can take, by which road, and why it refuses the rest."""

from __future__ import annotations

# The kind of model that a precision leaves behind:
#   dense   a captured program in float (float32, pruned, distilled)
#   half    a captured program that is to compute in float16
#   format  a captured program that the format's own tools quantise (dynamic int8, weights alone, int16 activations)
#   pt2e    a graph that PT2E prepared and calibrated (static int8, mixed)
KIND_OF_PRECISION = {
    "fp32": "dense",
    "fp16": "half",
    "int8-dynamic": "format",
    "int8-weights": "format",
    "int4-dynamic": "format",
    "int4-weights": "format",
    "w8a16": "format",
    "int8-static": "pt2e",
    "mixed": "pt2e",
}

_QUANTIZER = "litert-torch float32, then ai-edge-quantizer"

# (precision, format) -> the road taken. What isn't here is refused.
ROADS = {
    ("fp32", "pte"): "ExecuTorch, XNNPACK partitioner",
    ("fp16", "pte"): "graph cast to float16, ExecuTorch, XNNPACK partitioner",
    (
        "int8-dynamic",
        "pte",
    ): "PT2E dynamic int8 (linear layers), int8 embeddings, ExecuTorch, XNNPACK partitioner",
    (
        "int4-dynamic",
        "pte",
    ): "torchao 8da4w (linear layers), int8 embeddings, ExecuTorch, XNNPACK partitioner",
    ("int8-static", "pte"): "PT2E static int8, ExecuTorch, XNNPACK partitioner",
    ("mixed", "pte"): "PT2E static int8, ExecuTorch, XNNPACK partitioner",
    ("fp32", "tflite"): "litert-torch",
    ("fp16", "tflite"): f"{_QUANTIZER} float16",
    ("int8-dynamic", "tflite"): f"{_QUANTIZER} dynamic int8",
    ("int8-weights", "tflite"): f"{_QUANTIZER} weight-only int8",
    ("int4-dynamic", "tflite"): f"{_QUANTIZER} dynamic int4 (linear layers)",
    ("int4-weights", "tflite"): f"{_QUANTIZER} weight-only int4 (linear layers)",
    ("w8a16", "tflite"): f"{_QUANTIZER} static int8 weights and int16 activations",
    ("int8-static", "tflite"): "PT2E static int8, litert-torch",
    ("mixed", "tflite"): "PT2E static int8, litert-torch",
}

_REFUSED = {
    ("int8-weights", "pte"): "XNNPACK has no kernels for int8 weights with float arithmetic: choose int8-dynamic, "
    "which keeps the weights as small",
    ("int4-weights", "pte"): "ExecuTorch exports int4 weights with float arithmetic cleanly and computes wrong results "
    "with them: choose int4-dynamic, which keeps the weights as small",
    ("w8a16", "pte"): "XNNPACK has no kernels for int16 activations: choose int8-static, or mixed where that loses "
    "too much",
}  # fmt: skip


def unsupported_reason(precision: str, output_format: str, *, dynamic_shapes: bool) -> str | None:
    """Why ``output_format`` can't carry this precision, or None when it can."""
    if (precision, output_format) in ROADS:
        if precision == "w8a16" and dynamic_shapes:
            return "w8a16 is calibrated on the finished file, whose dimensions must be fixed: leave out --dynamic-batch"
        return None
    return _REFUSED.get((precision, output_format), f"no road leads from {precision} to .{output_format}")
