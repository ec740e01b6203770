"""Where a graph is quantised: XNNPACK's quantizer, with what it leaves out, and layers kept in float.

XNNPACK's quantizer fuses a convolution with a ReLU behind it but not with a ReLU6, whose input then is given a
range of its own, many times what ReLU6 lets through: EfficientNet-Lite0 loses most of its accuracy by that alone (docs/methods.md). Here the range is taken behind the clamp, which the kernels of both formats fuse.
"""

from __future__ import annotations

import contextlib
import io
import operator
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest.mock import patch

import torch

from ..models.depthwise import is_large_depthwise, rows_of_parts
from ..models.nodes import argument_of
from ..models.workload import node_shape
from .observers import ObserverName, activation_observer
from .operands import a_bias_for_each_call, a_weight_for_each_call, give_back, operands_of_whole_numbers
from .precision import LEAST_WEIGHT_STEP

_ATEN = torch.ops.aten
_CLAMPS = (_ATEN.hardtanh.default, _ATEN.hardtanh_.default, _ATEN.relu6.default, _ATEN.relu6_.default)
_FUSING = (_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.linear.default)
_RELUS = (_ATEN.relu.default, _ATEN.relu_.default)
_PADS = (_ATEN.pad.default, _ATEN.constant_pad_nd.default)
_PRODUCTS = (_ATEN.matmul.default, _ATEN.bmm.default)
# Operators that move values without changing them.
MOVING = (
    _ATEN.transpose.int, _ATEN.permute.default, _ATEN.t.default, _ATEN.view.default, _ATEN.reshape.default,
    _ATEN._unsafe_view.default, _ATEN.unsqueeze.default, _ATEN.squeeze.dim, _ATEN.expand.default,
    _ATEN.contiguous.default, _ATEN.clone.default, _ATEN.flatten.using_ints, _ATEN.slice.Tensor,
)  # fmt: skip
# Operators that give a part of a tensor, and what takes one part of several.
_PARTS = (
    _ATEN.split.Tensor, _ATEN.split_with_sizes.default, _ATEN.chunk.default, _ATEN.unbind.int, _ATEN.select.int,
    operator.getitem,
)  # fmt: skip
# Scale and zero point that LiteRT's own kernels want of these operators' int8 results, and refuse to run without;
# with others the .tflite's operator computes in float32.
FIXED_RESULTS = {"sigmoid": (1 / 256, -128), "softmax": (1 / 256, -128), "tanh": (1 / 128, 0)}
_FIXED = {
    _ATEN.sigmoid.default: "sigmoid", _ATEN.sigmoid_.default: "sigmoid", _ATEN.softmax.int: "softmax",
    _ATEN._softmax.default: "softmax", _ATEN.tanh.default: "tanh", _ATEN.tanh_.default: "tanh",
}  # fmt: skip
_LAYERS_KEY = "edgeopt_quantized_layers"


@dataclass(frozen=True)
class QuantizedLayer:
    """One operator of a prepared graph that computes in int8.

    Attributes:
        name: its node in the graph.
        operator: ``conv2d``, ``linear``, ``add``, ...
        inputs: the nodes it takes, weight and all, whose values are quantised.
        output: the node whose value is quantised as its result: itself, or the activation fused with it.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    output: str


def make_quantizer(
    *,
    per_channel: bool = True,
    dynamic: bool = False,
    qat: bool = False,
    observer: ObserverName = "histogram",
    percentile: float = 99.99,
    keep_float: Collection[str] = (),
) -> Any:
    """The quantizer that ``prepare_pt2e`` and ``prepare_qat_pt2e`` take.

    Args:
        per_channel: one weight scale an output channel instead of one a tensor.
        dynamic: activations quantised at run time; linear layers and convolutions but depthwise ones are
            annotated.
        qat: fake quantisation that trains, instead of observers.
        observer: how the range of an activation is found; not for ``dynamic`` and ``qat``.
        keep_float: names of operators (nodes of the captured graph) that stay in float.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config

    config = get_symmetric_quantization_config(is_per_channel=per_channel, is_dynamic=dynamic, is_qat=qat)
    if not qat:
        assert config.weight is not None
        made: Any = config.weight.observer_or_fake_quant_ctr
        finer = made.p.func.with_args(**{**made.p.keywords, "eps": LEAST_WEIGHT_STEP})
        config = replace(config, weight=replace(config.weight, observer_or_fake_quant_ctr=finer))
    if not dynamic and not qat and observer != "histogram":
        assert config.input_activation is not None
        spec = replace(
            config.input_activation, observer_or_fake_quant_ctr=activation_observer(observer, percentile)
        )
        config = replace(config, input_activation=spec, output_activation=spec)
    quantizer = _quantizer_class()(frozenset(keep_float))
    return quantizer.set_global(config)


def quantized_layers(prepared: torch.fx.GraphModule) -> tuple[QuantizedLayer, ...]:
    """The operators of a prepared graph that will compute in int8, in the order of the graph."""
    found: tuple[QuantizedLayer, ...] = prepared.meta.get(_LAYERS_KEY, ())
    return found


@cache
def _quantizer_class() -> Any:
    """The class is made when it is first needed: ExecuTorch takes seconds to import."""
    with contextlib.redirect_stderr(io.StringIO()):
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            propagate_annotation,
        )
        from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    class EdgeQuantizer(XNNPACKQuantizer):
        """XNNPACK's quantizer with ranges behind clamps and operators that stay in float."""

        def __init__(self, keep_float: frozenset[str]) -> None:
            super().__init__()
            self._keep_float = keep_float
            # set_module_name() quantises nothing; a filter on the operators does what it promises.
            self.set_filter_function(lambda node: node.name not in keep_float)

        def transform_for_annotation(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            whole = operands_of_whole_numbers(model)
            transformed: torch.fx.GraphModule = super().transform_for_annotation(model)
            give_back(transformed, whole)
            a_weight_for_each_call(transformed)
            a_bias_for_each_call(transformed)
            return transformed

        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            with _no_norms_sought(model):
                model = self._annotate_for_quantization_config(model)
            _convolutions_before_relus(model, self.global_config, self._keep_float, Q_ANNOTATION_KEY)
            _one_range_for_stacks(model, Q_ANNOTATION_KEY)
            for node in model.graph.nodes:
                # Concatenations are annotated past every filter.
                if node.name in self._keep_float:
                    node.meta.pop(Q_ANNOTATION_KEY, None)
            _no_padded_input_at_run_time(model, Q_ANNOTATION_KEY)
            _no_large_depthwise(model, Q_ANNOTATION_KEY)
            _range_behind_clamps(model, Q_ANNOTATION_KEY)
            _no_zero_point_on_the_right(model, Q_ANNOTATION_KEY)
            _ranges_known_beforehand(model, Q_ANNOTATION_KEY)
            model.meta[_LAYERS_KEY] = _recorded(model, Q_ANNOTATION_KEY)
            propagate_annotation(model)
            while _one_range_for_zeros_around(model, Q_ANNOTATION_KEY):
                propagate_annotation(model)
            return model

    return EdgeQuantizer


@contextlib.contextmanager
def _no_norms_sought(model: torch.fx.GraphModule) -> Iterator[None]:
    """XNNPACK's quantizer exports a dozen graphs of convolutions before batch norms to look for them, which takes longer
    than all else it does. A model without batch norms, as those that are calibrated, has none."""
    if any("batch_norm" in str(node.target) for node in model.graph.nodes):
        yield
        return
    module = "executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils"

    def nothing(graph: torch.fx.GraphModule, *args: Any, **options: Any) -> list[list[torch.fx.Node]]:
        graph.graph.eliminate_dead_code()
        graph.recompile()
        return []

    with patch(f"{module}._do_annotate_conv_bn", nothing):
        yield


def _convolutions_before_relus(
    model: torch.fx.GraphModule, config: Any, keep_float: frozenset[str], key: str
) -> None:
    """Quantise convolutions with a ReLU behind them at run time too, as XNNPACK computes them.

    XNNPACK's quantizer leaves them to a pattern that it has for ranges from calibration only; they stay in float, which
    is nearly all of a plain convolutional network.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        from torchao.quantization.pt2e.quantizer import (
            QuantizationAnnotation,
            get_bias_qspec,
            get_input_act_qspec,
            get_weight_qspec,
        )

    if config is None or config.input_activation is None or not config.input_activation.is_dynamic:
        return
    for node in model.graph.nodes:
        if node.target is not _ATEN.conv2d.default or len(node.users) != 1 or node.meta.get(key) is not None:
            continue
        source, weight = node.args[0], node.args[1]
        # One input channel is a depthwise convolution to XNNPACK, which has none for ranges found at run time.
        one_channel = node_shape(weight)[1] == 1
        if (
            next(iter(node.users)).target not in _RELUS
            or one_channel
            or {node.name, weight.name} & keep_float
        ):
            continue
        specs = {source: get_input_act_qspec(config), weight: get_weight_qspec(config)}
        if isinstance(argument_of(node, "bias", None), torch.fx.Node):
            specs[node.args[2]] = get_bias_qspec(config)
        node.meta[key] = QuantizationAnnotation(input_qspec_map=specs, output_qspec=None, _annotated=True)


def _no_padded_input_at_run_time(model: torch.fx.GraphModule, key: str) -> None:
    """Leave a convolution in float that would quantise what a padding gives at run time: XNNPACK refuses the shapes.

    Reflections and replications are computed outside of XNNPACK, which only meets their results.
    """
    for node in model.graph.nodes:
        annotation = node.meta.get(key)
        if node.target is not _ATEN.conv2d.default or annotation is None or node.args[0].target not in _PADS:
            continue
        if argument_of(node.args[0], "mode", "constant") != "constant":
            continue
        spec = annotation.input_qspec_map.get(node.args[0])
        if spec is not None and spec.is_dynamic:
            del node.meta[key]


def _one_range_for_zeros_around(model: torch.fx.GraphModule, key: str) -> int:
    """Give what is padded with zeros the range of what it was; the number of paddings that were given one.

    XNNPACK pads int8 by a kernel that keeps the scale, and doesn't load a file in which a concatenation, say, wants
    another one.
    """
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

    found = 0
    for pad in model.graph.nodes:
        if pad.target not in _PADS or pad.meta.get(key) is not None:
            continue
        annotation = pad.args[0].meta.get(key)
        spec: Any = getattr(annotation, "output_qspec", None)
        zeros = argument_of(pad, "mode", "constant") == "constant" and not argument_of(pad, "value", None)
        if spec is None or getattr(spec, "is_dynamic", False) or not zeros:
            continue
        shared = SharedQuantizationSpec(pad.args[0])
        pad.meta[key] = type(annotation)(
            input_qspec_map={pad.args[0]: shared}, output_qspec=shared, _annotated=True
        )
        found += 1
    return found


def _no_large_depthwise(model: torch.fx.GraphModule, key: str) -> None:
    """Leave depthwise convolutions in float for which XNNPACK has no kernel: in float they go in parts, which is faster."""
    for node in model.graph.nodes:
        if is_large_depthwise(node) and rows_of_parts(node_shape(node.args[1])):
            node.meta.pop(key, None)


def _range_behind_clamps(model: torch.fx.GraphModule, key: str) -> None:
    """Take the range of a convolution or linear layer from the clamp behind it, where it is its only user."""
    for clamp in model.graph.nodes:
        if clamp.target not in _CLAMPS or clamp.meta.get(key) is not None:
            continue
        layer = clamp.args[0]
        annotation = layer.meta.get(key)
        if layer.target not in _FUSING or len(layer.users) != 1 or annotation is None:
            continue
        if annotation.output_qspec is not None and not annotation.output_qspec.is_dynamic:
            clamp.meta[key] = type(annotation)(output_qspec=annotation.output_qspec, _annotated=True)
            annotation.output_qspec = None


def _no_zero_point_on_the_right(model: torch.fx.GraphModule, key: str) -> None:
    """Quantise the second operand of a product of two activations symmetrically.

    XNNPACK multiplies int8 matrices only where the second has zero point 0; LiteRT computes others itself, ten times
    slower (attention's keys, usually).
    """
    for product in model.graph.nodes:
        if product.target not in _PRODUCTS:
            continue
        source = product.args[1]
        # Keys and values may be parts of what one layer gives, and a part has the whole's zero point.
        while source.target in (*MOVING, *_PARTS) and source.meta.get(key) is None:
            source = source.args[0]
        annotation = source.meta.get(key)
        if annotation is None:
            continue
        spec: Any = annotation.output_qspec
        if getattr(spec, "qscheme", None) == torch.per_tensor_affine and not spec.is_dynamic:
            annotation.output_qspec = replace(spec, qscheme=torch.per_tensor_symmetric)


def _one_range_for_stacks(model: torch.fx.GraphModule, key: str) -> None:
    """Give all that is stacked one range, as XNNPACK's quantizer gives it to concatenations.

    LiteRT joins int8 tensors of one scale only. Left alone it takes the first one's for all, which cuts off whatever
    the others have beyond it: the states of an LSTM grow from step to step.
    """
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

    for stack in model.graph.nodes:
        if stack.target is not _ATEN.stack.default or stack.meta.get(key) is not None:
            continue
        parts = list(dict.fromkeys(stack.args[0]))
        annotations = [_static_annotation(part, key) for part in parts]
        found = next((a for a in annotations if a is not None), None)
        if found is None or not stack.meta["val"].is_floating_point():
            continue
        shared = SharedQuantizationSpec((parts[0], stack))
        specs = dict.fromkeys(parts[1:], shared)
        stack.meta[key] = type(found)(
            input_qspec_map={parts[0]: found.output_qspec, **specs}, output_qspec=shared, _annotated=True
        )


def _static_annotation(node: torch.fx.Node, key: str) -> Any:
    """The annotation of what computes ``node``'s values, if they are quantised by a range from calibration."""
    while node.target in MOVING and node.meta.get(key) is None:
        node = node.args[0]  # type: ignore[assignment]
    annotation = node.meta.get(key)
    spec: Any = getattr(annotation, "output_qspec", None)
    return annotation if hasattr(spec, "qscheme") and not spec.is_dynamic else None


def _ranges_known_beforehand(model: torch.fx.GraphModule, key: str) -> None:
    """Quantise what comes out of a sigmoid, softmax or tanh by the range it can have, where it is quantised at all.

    A concatenation quantises it by its own range, at once: LiteRT's converter loses the second of two quantisations,
    and refuses the graph (the boxes and scores of a detector).
    """
    from torchao.quantization.pt2e.quantizer import FixedQParamsQuantizationSpec

    for node in model.graph.nodes:
        if node.target not in _FIXED or node.meta.get(key) is not None:
            continue
        readers = [user.meta.get(key) for user in node.users]
        specs = [(a, a.input_qspec_map[node]) for a in readers if a is not None and node in a.input_qspec_map]
        if not specs or any(getattr(spec, "is_dynamic", False) for _, spec in specs):
            continue
        scale, zero_point = FIXED_RESULTS[_FIXED[node.target]]
        fixed = FixedQParamsQuantizationSpec(
            torch.int8, scale, zero_point, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine
        )
        shares = [hasattr(annotation.output_qspec, "edge_or_node") for annotation, _ in specs]
        for (annotation, _), shared in zip(specs, shares, strict=True):
            if not shared:
                annotation.input_qspec_map[node] = fixed
        if not any(shares):
            node.meta[key] = type(specs[0][0])(output_qspec=fixed, _annotated=True)


def _recorded(model: torch.fx.GraphModule, key: str) -> tuple[QuantizedLayer, ...]:
    layers = []
    for node in model.graph.nodes:
        annotation = node.meta.get(key)
        if node.op != "call_function" or annotation is None or not annotation.input_qspec_map:
            continue
        inputs = tuple(source.name for source, spec in annotation.input_qspec_map.items() if spec is not None)
        output = node.name
        if annotation.output_qspec is None and len(node.users) == 1:
            user = next(iter(node.users))
            behind = user.meta.get(key)
            if behind is not None and behind.output_qspec is not None and not behind.input_qspec_map:
                output = user.name
        layers.append(QuantizedLayer(node.name, str(node.target).split(".")[1], inputs, output))
    return tuple(layers)
