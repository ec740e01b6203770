"""Computes a model in float32 that casts to a narrower float type in its forward.

LiteRT has no arithmetic in bfloat16 and little in float16, and no delegate of either runtime takes bfloat16. The casts
are changed while forward runs, so that the capture, the reference and whatever trains the model see the same numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

_NARROW = (torch.bfloat16, torch.float16)
_CASTS = {torch.Tensor.bfloat16: torch.bfloat16, torch.Tensor.half: torch.float16}
_TYPES = {"torch.BFloat16Tensor": torch.bfloat16, "torch.HalfTensor": torch.float16}
_HERE = Path(__file__)


class Float32Arithmetic(TorchFunctionMode):
    """While active, operators that ask for bfloat16 or float16 are given float32.

    Attributes:
        replaced: the types that were asked for -> ``file.py:12`` of the first place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced: dict[torch.dtype, str | None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Reading an attribute (x.dtype, x.shape) computes nothing.
        if getattr(func, "__name__", "") == "__get__":
            return func(*args, **(kwargs or {}))
        if func in _CASTS:
            self.note(_CASTS[func])
            return args[0].float()
        widened = {key: self._widened(value) for key, value in (kwargs or {}).items()}
        return func(*(self._widened(value) for value in args), **widened)

    def note(self, dtype: torch.dtype) -> None:
        """Remember that forward asked for ``dtype``."""
        if dtype not in self.replaced:
            self.replaced[dtype] = _users_line()

    def _widened(self, value: Any) -> Any:
        value = _TYPES.get(value, value) if isinstance(value, str) else value
        if isinstance(value, torch.dtype) and value in _NARROW:
            self.note(value)
            return torch.float32
        # Tensors that are no weights, such as plain attributes, keep the type that they were made with.
        if isinstance(value, torch.Tensor) and value.dtype in _NARROW:
            self.note(value.dtype)
            return value.float()
        if type(value) in (list, tuple):
            return type(value)(self._widened(each) for each in value)
        return value


@contextmanager
def float32_arithmetic() -> Iterator[Float32Arithmetic]:
    """Run what is inside in float32, whatever narrower type it casts to or ``torch.autocast`` would."""
    mode = Float32Arithmetic()

    def enter(context: torch.autocast) -> torch.autocast:
        if context._enabled and context.device == "cpu":
            mode.note(context.fast_dtype)
        return context

    nothing = mock.patch.multiple(torch.autocast, __enter__=enter, __exit__=lambda *exception: None)
    with nothing, mode:
        yield mode


def _users_line() -> str | None:
    """The innermost line of the user's code that is running."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parent == _HERE.parent and path != _HERE:
            # What called forward: an exported program has no lines of its own.
            return None
        if "torch" not in path.parts and path != _HERE and not path.name.startswith(("<", "mock")):
            return f"{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return None
