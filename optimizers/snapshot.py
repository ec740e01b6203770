"""A model whose layers changed their widths, as plain data: no pickle, so it can be read back safely.

Pruning changes tensors' shapes and the numbers that layers keep of them (``out_channels``, ``num_features``,
``groups``). Both are kept as differences from the module that the change started from.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

Numbers = dict[str, dict[str, Any]]


def snapshot(module: torch.nn.Module, original: torch.nn.Module) -> dict[str, Any]:
    """What makes ``original`` into ``module``: its state, and the layers' numbers that differ."""
    changed: Numbers = {}
    before = dict(original.named_modules())
    for path, part in module.named_modules():
        found = _numbers(part)
        old = _numbers(before[path])
        difference = {name: value for name, value in found.items() if old.get(name) != value}
        if difference:
            changed[path] = difference
    return {"state": {k: v.detach().cpu() for k, v in module.state_dict().items()}, "numbers": changed}


def restore(kept: dict[str, Any], original: torch.nn.Module) -> torch.nn.Module:
    """A copy of ``original`` that is what :func:`snapshot` saw.

    Raises:
        KeyError, RuntimeError: ``kept`` is of another module.
    """
    module = copy.deepcopy(original)
    for path, numbers in kept["numbers"].items():
        part = module.get_submodule(path)
        for name, value in numbers.items():
            setattr(part, name, value)
    state = kept["state"]
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name in state and tensor.shape != state[name].shape:
            tensor.data = torch.empty(state[name].shape, dtype=tensor.dtype)
    module.load_state_dict(state)
    return module


def _numbers(part: torch.nn.Module) -> dict[str, Any]:
    """The plain numbers, and tuples of numbers, that a layer keeps."""
    return {
        name: value
        for name, value in vars(part).items()
        if name != "training"
        and (
            type(value) is int
            or (type(value) is tuple and value and all(type(item) is int for item in value))
        )
    }
