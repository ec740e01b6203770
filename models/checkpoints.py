"""Files that hold a model or its weights: .pt2, TorchScript, state_dicts. A pickle is never run unasked."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from .inputs import ExampleInputs
from .resolve import brief


def load_file(path: Path, trust_pickle: bool) -> tuple[torch.nn.Module, ExampleInputs | None]:
    """The module in a .pt2, TorchScript or (trusted) pickle file, and its example inputs if it has any.

    Raises:
        InputError: the file can't be read, holds weights only, or a pickle that isn't trusted.
    """
    if path.suffix == ".pt2":
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise InputError(f"{path} can't be read as an exported program: {brief(error)}.") from error
        example = ExampleInputs(*program.example_inputs) if program.example_inputs else None
        return program.module(), example
    if _is_torchscript(path):
        try:
            return torch.jit.load(path, map_location="cpu"), None
        except Exception as error:
            raise InputError(f"{path} can't be read as TorchScript: {brief(error)}.") from error
    loaded = _read_checkpoint(path, trust_pickle)
    if isinstance(loaded, torch.nn.Module):
        return loaded, None
    if isinstance(loaded, dict):
        raise InputError(
            f"{path} holds weights only: name the code that makes the model (package.module:factory) and give "
            f"this file as --weights {path}."
        )
    raise InputError(f"{path} holds a {type(loaded).__name__}, not a torch.nn.Module.")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry for entry in archive.namelist())


def _read_checkpoint(path: Path, trust_pickle: bool) -> Any:
    if not path.is_file():
        raise InputError(f"no file {path}.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:
            raise InputError(f"{path} can't be read as safetensors: {brief(error)}.") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except Exception as error:
        if not trust_pickle and "weights_only" in str(error).lower():
            raise InputError(
                f"{path} holds a pickle, which runs code when it is read: if you trust where it comes from, "
                "add --trust-pickle."
            ) from error
        raise InputError(f"{path} can't be read as a PyTorch file: {brief(error)}.") from error


def load_weights(module: torch.nn.Module, path: Path, trust_pickle: bool) -> None:
    """Load a state_dict (.pt or .safetensors, possibly inside a training checkpoint) into ``module``.

    Raises:
        InputError: the file can't be read or its weights don't fit.
    """
    state = _read_checkpoint(Path(path), trust_pickle)
    if isinstance(state, torch.nn.Module):
        state = state.state_dict()
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise InputError(f"--weights {path} holds a {type(state).__name__}, not a state_dict.")
    try:
        module.load_state_dict(state)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise InputError(f"--weights {path} doesn't fit the model: {' '.join(lines)}") from error
