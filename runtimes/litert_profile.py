"""Op times of a .tflite file from LiteRT's own profiler, through the C interface of ``libLiteRt.so``.

The Python package can't switch the profiler on; the library can. The wheel ships no headers: names and
layouts here follow the project's public C API (litert/c/litert_profiler_event.h) and are used only with the
versions they were checked with.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeoptError

CHECKED_VERSIONS = ("2.2", "2.3")
_CPU = 1
_LOCK_WRITE = 1
# tflite::Profiler::EventType: an operator of the interpreter, a delegate's call, an operator inside one.
_OPERATOR, _DELEGATE_CALL, _INSIDE_DELEGATE = 2, 4, 8


class _Layout(ctypes.Structure):
    _fields_ = [("flags", c_uint8), ("dimensions", c_int * 8), ("strides", c_uint32 * 8)]


class _TensorType(ctypes.Structure):
    _fields_ = [("element_type", c_int), ("layout", _Layout)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", c_char_p),
        ("kind", c_uint32),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory", c_size_t * 6),
        ("index", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_uint32),
    ]


def profile(
    path: Path, inputs: Sequence[np.ndarray], *, runs: int, num_threads: int = 1
) -> list[dict[str, Any]]:
    """Run ``inputs`` ``runs`` times and return the recorded operator events, in order.

    Returns:
        objects with ``name``, ``ms``, ``delegated`` (inside a delegate) and ``call`` (a delegate's whole call).

    Raises:
        EdgeoptError: another version of the library, or it refused.
    """
    version = metadata.version("ai-edge-litert")
    if not version.startswith(CHECKED_VERSIONS):
        raise EdgeoptError(
            f"op profiles of .tflite files are known to work with LiteRT {' and '.join(CHECKED_VERSIONS)}, "
            f"not {version}: measure without --profile-ops or install one of these."
        )
    return _Profiled(path, num_threads).events(inputs, runs)


class _Profiled:
    """A model compiled with the profiler on. Lives as long as the process: used in a worker only."""

    def __init__(self, path: Path, num_threads: int) -> None:
        import ai_edge_litert

        self._library = ctypes.CDLL(str(Path(str(ai_edge_litert.__file__)).parent / "libLiteRt.so"))
        self._libc = ctypes.CDLL(None)
        self._libc.strdup.restype = c_void_p
        self._environment, model, options = c_void_p(), c_void_p(), c_void_p()
        self._call("LiteRtCreateEnvironment", c_int(0), None, byref(self._environment))
        self._call("LiteRtCreateModelFromFile", self._environment, str(path).encode(), byref(model))
        self._call("LiteRtCreateOptions", byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, c_int(_CPU))
        self._option(options, b"xnnpack", f"num_threads = {num_threads}\n")
        self._option(options, b"runtime_options_string", "enable_profiling = true\n")
        self._compiled, self._signature = c_void_p(), c_void_p()
        self._call("LiteRtCreateCompiledModel", self._environment, model, options, byref(self._compiled))
        self._call("LiteRtGetModelSignature", model, c_size_t(0), byref(self._signature))

    def events(self, inputs: Sequence[np.ndarray], runs: int) -> list[dict[str, Any]]:
        profiler = c_void_p()
        self._call("LiteRtCompiledModelGetProfiler", self._compiled, byref(profiler))
        given = self._buffers("Input", [self._resized(i, value) for i, value in enumerate(inputs)])
        for buffer, value in zip(given, inputs, strict=True):
            self._fill(buffer, value)
        count = c_size_t()
        self._call("LiteRtGetNumSignatureOutputs", self._signature, byref(count))
        layouts = (_Layout * count.value)()
        self._call(
            "LiteRtGetCompiledModelOutputTensorLayouts",
            self._compiled, c_size_t(0), count, layouts, ctypes.c_bool(True),
        )  # fmt: skip
        taken = self._buffers("Output", list(layouts))
        arguments = (
            self._compiled, c_size_t(0),
            c_size_t(len(given)), (c_void_p * len(given))(*given),
            c_size_t(len(taken)), (c_void_p * len(taken))(*taken),
        )  # fmt: skip
        try:
            for _ in range(5):
                self._call("LiteRtRunCompiledModel", *arguments)
        except EdgeoptError as error:
            raise EdgeoptError(
                "LiteRT's profiler can't run this file (it refuses files whose outputs change shape at run "
                f"time): {error}"
            ) from error
        self._call("LiteRtResetProfiler", profiler)
        self._call("LiteRtStartProfiler", profiler)
        for _ in range(runs):
            self._call("LiteRtRunCompiledModel", *arguments)
        self._call("LiteRtStopProfiler", profiler)
        return self._recorded(profiler)

    def _recorded(self, profiler: c_void_p) -> list[dict[str, Any]]:
        count = c_int()
        self._call("LiteRtGetNumProfilerEvents", profiler, byref(count))
        events = (_Event * max(1, count.value))()
        if count.value:
            self._call("LiteRtGetProfilerEvents", profiler, count, events)
        return [
            {
                "name": (event.tag or b"").decode(errors="replace"),
                "ms": event.elapsed_us / 1e3,
                "delegated": bool(event.kind & _INSIDE_DELEGATE),
                "call": bool(event.kind & _DELEGATE_CALL),
            }
            for event in events[: count.value]
            # The profiler closes some events of the delegate with a sentinel instead of a duration.
            if event.kind & (_OPERATOR | _DELEGATE_CALL | _INSIDE_DELEGATE) and event.elapsed_us < 1 << 32
        ]

    def _resized(self, position: int, value: np.ndarray) -> _Layout:
        """Give a free input the shape of its value; returns the layout it then has."""
        tensor, kind, index = c_void_p(), _TensorType(), c_size_t(position)
        self._call("LiteRtGetSignatureInputTensorByIndex", self._signature, index, byref(tensor))
        self._call("LiteRtGetRankedTensorType", tensor, byref(kind))
        if list(kind.layout.dimensions[: value.ndim]) != list(value.shape):
            shape = (c_int * value.ndim)(*value.shape)
            rank = c_size_t(value.ndim)
            resize = "LiteRtCompiledModelResizeInputTensor"
            self._call(resize, self._compiled, c_size_t(0), index, shape, rank)
            kind.layout.dimensions[: value.ndim] = list(value.shape)
        return kind.layout

    def _buffers(self, side: str, layouts: Sequence[_Layout]) -> list[int]:
        buffers = []
        for i, layout in enumerate(layouts):
            tensor, kind, needs, buffer = c_void_p(), _TensorType(), c_void_p(), c_void_p()
            index = c_size_t(i)
            self._call(f"LiteRtGetSignature{side}TensorByIndex", self._signature, index, byref(tensor))
            self._call("LiteRtGetRankedTensorType", tensor, byref(kind))
            kind.layout = layout
            requirements = f"LiteRtGetCompiledModel{side}BufferRequirements"
            self._call(requirements, self._compiled, c_size_t(0), index, byref(needs))
            create = "LiteRtCreateManagedTensorBufferFromRequirements"
            self._call(create, self._environment, byref(kind), needs, byref(buffer))
            buffers.append(buffer.value or 0)
        return buffers

    def _fill(self, buffer: int, value: np.ndarray) -> None:
        size, memory = c_size_t(), c_void_p()
        self._call("LiteRtGetTensorBufferPackedSize", c_void_p(buffer), byref(size))
        if size.value != value.nbytes:
            raise EdgeoptError(
                f"LiteRT's profiler takes an input of {size.value} bytes, not {value.nbytes}: files with free "
                "dimensions can't be profiled."
            )
        self._call("LiteRtLockTensorBuffer", c_void_p(buffer), byref(memory), c_int(_LOCK_WRITE))
        data = np.ascontiguousarray(value)
        ctypes.memmove(memory, data.ctypes.data, data.nbytes)
        self._call("LiteRtUnlockTensorBuffer", c_void_p(buffer))

    def _option(self, options: c_void_p, identifier: bytes, toml: str) -> None:
        opaque = c_void_p()
        text = c_void_p(self._libc.strdup(toml.encode()))
        free = ctypes.cast(self._libc.free, c_void_p)
        self._call("LiteRtCreateOpaqueOptions", identifier, text, free, byref(opaque))
        self._call("LiteRtAddOpaqueOptions", options, opaque)

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise EdgeoptError(f"this LiteRT has no {name}: op profiles can't be taken.")
        function.restype = c_int
        status = function(*arguments)
        if status != 0:
            raise EdgeoptError(f"LiteRT's profiler failed: {name} returned {status}.")
