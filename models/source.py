"""The source model: the user's module in eval mode, its example inputs, and what stands beside it.

A model is given as ``package.module:attribute`` (a module, a class or a factory), as ``file.py:attribute``,
as an exported program (.pt2), a TorchScript file, or, through the Python API, as a module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..wording import counted
from .checkpoints import load_file, load_weights
from .dtypes import float32_inputs, other_types, to_float32, widened_forward
from .factories import instantiate
from .findings import Finding
from .inputs import (
    DEFAULT_MAX_BATCH,
    DynamicDim,
    ExampleInputs,
    inputs_from_npz,
    inputs_from_shapes,
    inputs_from_value,
)
from .resolve import brief, resolve
from .state import preserved_state
from .tensors import FlatModel, Signature, TensorInfo, dtype_name, left_out, named_tensors, parameter_names


@dataclass(frozen=True)
class SourceModel:
    """The user's model, ready to be captured.

    Attributes:
        name: a short name for files and tables.
        origin: what the user wrote, e.g. ``my_pkg.models:net``.
        module: the flat form of the model, in eval mode.
        inputs: names, shapes and dtypes of the flat inputs.
        outputs: the same for the flat outputs.
        example: one tensor an input.
        dynamic: (input index, axis) -> :class:`DynamicDim`.
        companions: the Python module the model came from; example, calibration and evaluation
            functions may stand beside the model there.
    """

    name: str
    origin: str
    module: FlatModel
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    example: tuple[torch.Tensor, ...]
    dynamic: dict[tuple[int, int], DynamicDim] = field(default_factory=dict)
    companions: ModuleType | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def parameter_count(self) -> int:
        """Number of parameters, tied ones once."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def weight_bytes(self) -> int:
        """Bytes of parameters and buffers as they are in the source model."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return sum(t.numel() * t.element_size() for t in tensors)

    def companion(self, name: str) -> Any:
        """The function ``name`` beside the model (``<attribute>_<name>`` is preferred), or None."""
        attribute = self.origin.partition(":")[2].split(".")[-1]
        for candidate in (f"{attribute}_{name}", name):
            found = getattr(self.companions, candidate, None)
            if callable(found):
                return found
        return None

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The source model's outputs (CPU, no gradients), in order."""
        with torch.no_grad():
            return [tensor.detach() for tensor in self.module(*inputs).values()]


def load_source_model(
    model: str | torch.nn.Module | type[torch.nn.Module] | Callable[..., Any],
    *,
    weights: Path | None = None,
    model_args: str | dict[str, Any] | None = None,
    example_inputs: Any = None,
    input_shapes: Sequence[str] = (),
    dynamic_batch: bool = False,
    trust_pickle: bool = False,
    name: str | None = None,
) -> SourceModel:
    """Load a model, find its example inputs and run it once on them.

    Args:
        model: a spec (see the module's docstring) or the module itself.
        weights: a state_dict (.pt or .safetensors) to load into it.
        model_args: keyword arguments of the class or factory, as a dict or as JSON.
        example_inputs: tensors, an .npz path, or ``module:function``; by default a function
            ``example_inputs`` beside the model.
        input_shapes: ``name:float32[1,3,224,224]`` descriptions instead of example inputs.
        dynamic_batch: let the first dimension of every input vary together.
        trust_pickle: allow files that hold pickles, which run code when they are read.

    Raises:
        InputError: anything wrong with any of these, in one sentence.
    """
    arguments = _parse_arguments(model_args)
    module, origin, companions, example = _resolve_model(model, arguments, trust_pickle)
    if weights is not None:
        load_weights(module, weights, trust_pickle)
    findings = _to_eval(module)
    _check_finite(module)
    types = other_types(module)
    findings += to_float32(module)
    if example_inputs is None and not input_shapes and example is None:
        example = _companion_inputs(module, origin, companions)
    if example_inputs is not None or input_shapes:
        example = _given_inputs(module, example_inputs, input_shapes)
    if example is None:
        raise InputError(
            f"{origin}: no example inputs; give --input-shape name:float32[1,3,224,224] or --example-inputs "
            "FILE.npz, or put a function example_inputs() beside the model."
        )
    widened = widened_forward(module, types, example, origin)
    findings += [widened] if widened else []
    example = float32_inputs(example)
    return _finish(
        module, origin, companions, example, dynamic_batch, name, findings, in_float32=widened is not None
    )


def _finish(
    module: torch.nn.Module,
    origin: str,
    companions: ModuleType | None,
    example: ExampleInputs,
    dynamic_batch: bool,
    name: str | None,
    findings: list[Finding],
    *,
    in_float32: bool,
) -> SourceModel:
    signature, tensors = Signature.of(module, example.args, example.kwargs)
    dynamic = dict(example.dynamic)
    if dynamic_batch:
        batch = DynamicDim("batch", 1, DEFAULT_MAX_BATCH)
        dynamic |= {(index, 0): batch for index, tensor in enumerate(tensors) if tensor.ndim}
    _check_filled(signature, tensors)
    tensors = tuple(_widen(tensor, index, dynamic) for index, tensor in enumerate(tensors))
    flat = FlatModel(module, signature, in_float32=in_float32)
    _mirror_mode(flat, module)
    raw = _first_run(flat, tensors, origin)
    outputs = named_tensors(raw)
    findings += [
        Finding("warning", f"output {path!r} ({kind}) is not a tensor and is left out")
        for path, kind in left_out(raw).items()
    ]
    findings += [
        Finding("warning", f"output {key!r} has NaN or infinite values on the example inputs")
        for key, value in outputs.items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]
    infos = tuple(
        TensorInfo(
            input_name,
            tuple(
                dynamic[index, axis].name if (index, axis) in dynamic else size
                for axis, size in enumerate(tensor.shape)
            ),
            dtype_name(tensor.dtype),
        )
        for index, (input_name, tensor) in enumerate(zip(signature.names, tensors, strict=True))
    )
    return SourceModel(
        name=name or origin.partition(":")[2].split(".")[-1] or Path(origin).stem,
        origin=origin,
        module=flat,
        inputs=infos,
        outputs=tuple(TensorInfo(k, tuple(v.shape), dtype_name(v.dtype)) for k, v in outputs.items()),
        example=tensors,
        dynamic=dynamic,
        companions=companions,
        findings=tuple(findings),
    )


def _check_filled(signature: Signature, tensors: Sequence[torch.Tensor]) -> None:
    for input_name, tensor in zip(signature.names, tensors, strict=True):
        if tensor.numel() == 0:
            raise InputError(
                f"the example of input {input_name!r} is {list(tensor.shape)}, which holds no element: give one of "
                "the size that the device will see."
            )


def _widen(tensor: torch.Tensor, index: int, dynamic: dict[tuple[int, int], DynamicDim]) -> torch.Tensor:
    # torch.export takes a dimension of size 1 for a constant, so the example needs two.
    for axis in range(tensor.ndim):
        if (index, axis) in dynamic and tensor.shape[axis] == 1:
            tensor = torch.cat([tensor, tensor], dim=axis)
    return tensor


def _parse_arguments(model_args: str | dict[str, Any] | None) -> dict[str, Any]:
    if not isinstance(model_args, str):
        return dict(model_args or {})
    try:
        parsed = json.loads(model_args)
    except ValueError as error:
        raise InputError(
            f"--model-args is not JSON ({error}): write e.g. '{{\"num_classes\": 10}}'."
        ) from error
    if not isinstance(parsed, dict):
        raise InputError("--model-args must be a JSON object of keyword arguments.")
    return parsed


def _resolve_model(
    model: Any, arguments: dict[str, Any], trust_pickle: bool
) -> tuple[torch.nn.Module, str, ModuleType | None, ExampleInputs | None]:
    if not isinstance(model, str):
        origin = type(model).__name__ if isinstance(model, torch.nn.Module) else model.__name__
        return instantiate(model, arguments, origin), origin, None, None
    if ":" in model:
        value, companions = resolve(model, "model")
        return instantiate(value, arguments, model), model, companions, None
    path = Path(model)
    if path.suffix == ".py":
        raise InputError(
            f"model {model!r} names no attribute: write {model}:NAME, the model or what makes it."
        )
    if not path.is_file():
        raise InputError(
            f"model {model!r} is neither package.module:attribute nor an existing .pt2, .pt or .pth file."
        )
    module, example = load_file(path, trust_pickle)
    return module, model, None, example


def _to_eval(module: torch.nn.Module) -> list[Finding]:
    training = [path for path, part in module.named_modules() if part.training]
    # The unlifted module of an exported program has no modes and refuses eval().
    if isinstance(module, torch.fx.GraphModule):
        return []
    module.eval()
    stateful = [
        path or type(module).__name__
        for path, part in module.named_modules()
        if path in training and isinstance(part, torch.nn.modules.batchnorm._BatchNorm | torch.nn.Dropout)
    ]
    if not stateful:
        return []
    return [
        Finding(
            "warning",
            f"the model was in training mode (dropout or batch norm at {', '.join(stateful[:3])}); exported in eval mode",
            suggestion="call model.eval() in your factory",
        )
    ]


def _mirror_mode(flat: FlatModel, module: torch.nn.Module) -> None:
    # train() and eval() walk into children, which an exported module refuses.
    flat.training = False
    if not isinstance(module, torch.fx.GraphModule):
        flat.eval()


def _check_finite(module: torch.nn.Module) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor):
            raise InputError(
                f"weight {name!r} is lazy and has no shape yet: run the model once in its factory."
            )
        if tensor.is_floating_point():
            bad = int((~torch.isfinite(tensor)).sum())
            # -inf is how attention masks are written; a parameter never has a reason for it.
            if bad and (torch.isnan(tensor).any() or isinstance(tensor, torch.nn.Parameter)):
                raise InputError(
                    f"weight {name!r} has {counted(bad, 'NaN or infinite value')} of {tensor.numel()}: "
                    "load a checkpoint that is whole."
                )


def _companion_inputs(
    module: torch.nn.Module, origin: str, companions: ModuleType | None
) -> ExampleInputs | None:
    attribute = origin.partition(":")[2].split(".")[-1]
    candidates = [
        (getattr(companions, f"{attribute}_example_inputs", None), f"{attribute}_example_inputs()"),
        (getattr(companions, "example_inputs", None), "example_inputs()"),
        (getattr(module, "example_inputs", None), "the model's example_inputs()"),
    ]
    for found, where in candidates:
        if callable(found):
            return _call_for_inputs(found, where)
        if isinstance(found, torch.Tensor | np.ndarray | tuple | list | dict):
            return _call_for_inputs(found, where.removesuffix("()"))
    return None


def _call_for_inputs(found: Any, where: str) -> ExampleInputs:
    """Example inputs that a function returns, or that are themselves what ``found`` is."""
    try:
        value = found() if callable(found) else found
    except Exception as error:
        raise InputError(f"{where} failed: {brief(error)}.") from error
    return inputs_from_value(value, where)


def _given_inputs(module: torch.nn.Module, given: Any, shapes: Sequence[str]) -> ExampleInputs:
    if given is not None and shapes:
        raise InputError("--example-inputs and --input-shape are two ways to say the same: give one of them.")
    parameters = parameter_names(module)
    if shapes:
        return inputs_from_shapes(shapes, parameters)
    if isinstance(given, str | Path):
        if ":" in str(given) and not Path(given).exists():
            found, _ = resolve(str(given), "--example-inputs")
            return _call_for_inputs(found, f"--example-inputs {given}")
        return inputs_from_npz(Path(given), parameters)
    return inputs_from_value(given, "example_inputs")


def _first_run(flat: FlatModel, tensors: tuple[torch.Tensor, ...], origin: str) -> Any:
    try:
        with torch.no_grad(), preserved_state(flat):
            return flat.raw(*tensors)
    except Exception as error:
        given = ", ".join(
            f"{name}:{dtype_name(tensor.dtype)}{list(tensor.shape)}"
            for name, tensor in zip(flat.names, tensors, strict=True)
        )
        # Weights and inputs are in float32 by now: another float type can only come from a cast of the model's own.
        cast = re.search(r"BFloat16|Half|Double", str(error)) if "type" in str(error) else None
        if isinstance(error, RuntimeError) and cast:
            kind = {"BFloat16": "bfloat16", "Half": "float16", "Double": "float64"}[cast[0]]
            raise InputError(
                f"{origin} casts to {kind} in its forward, and float32 is exported ({brief(error)}): take the cast out."
            ) from error
        raise InputError(f"{origin} failed on the example inputs ({given}): {brief(error)}.") from error
