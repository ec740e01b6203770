"""Which operators int8 would leave nothing of, by what their observers have seen."""

from __future__ import annotations

import math

import torch

from .annotation import MOVING, quantized_layers

_ATEN = torch.ops.aten
_SUMS = (_ATEN.add.Tensor, _ATEN.add_.Tensor, _ATEN.sub.Tensor, _ATEN.sub_.Tensor)
_SOFTMAXES = (_ATEN.softmax.int, _ATEN._softmax.default, _ATEN._safe_softmax.default)
_STEPS = 255
# Scales of int8 are kept in float32, and multiplied with each other.
_LARGEST_SPAN = 1e15


def operators_that_lose_an_operand(prepared: torch.fx.GraphModule) -> set[str]:
    """Operators that int8 would leave nothing of: sums of scores and a mask of float32's lowest number, most often.

    Args:
        prepared: a graph whose observers have seen samples.

    Returns:
        Names of sums before a softmax in which an operand's whole range is less than a step of the other's, and of all
        operators with values too large for any scale.
    """
    layers = {layer.name for layer in quantized_layers(prepared)}
    lost = set()
    for node in prepared.graph.nodes:
        if node.name not in layers:
            continue
        spans = [_observed_span(prepared, source) for source in node.all_input_nodes]
        known = [span for span in spans if span is not None]
        results = [_observed_span(prepared, user) for user in node.users]
        too_large = any(span is not None and not span < _LARGEST_SPAN for span in (*known, *results))
        drowned = len(known) == 2 and min(known) * _STEPS < max(known)
        if too_large or (drowned and _is_softmax_input(node)):
            lost.add(node.name)
    return lost


def _is_softmax_input(node: torch.fx.Node) -> bool:
    """Whether a sum goes into a softmax, moved perhaps. (Elsewhere what is lost beside the other hardly counts.)"""
    behind = list(node.users) if node.target in _SUMS else []
    while behind:
        user = behind.pop()
        if user.target in _SOFTMAXES:
            return True
        if user.op == "call_module" or user.target in MOVING:
            behind += user.users
    return False


def _observed_span(prepared: torch.fx.GraphModule, node: torch.fx.Node) -> float | None:
    """From the lowest to the highest value an observer has seen, zero among them; None for what is no observer of a
    tensor's one range."""
    observer = prepared.get_submodule(str(node.target)) if node.op == "call_module" else None
    # Fake quantisation holds the observer that it follows.
    observer = getattr(observer, "activation_post_process", observer)
    low, high = getattr(observer, "min_val", None), getattr(observer, "max_val", None)
    if low is None or high is None or low.numel() != 1:
        return None
    # An observer passes over infinite values, and then begins at infinity itself.
    return float(high.clamp(min=0) - low.clamp(max=0)) if low <= high else math.inf
