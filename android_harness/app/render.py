"""Templates to files: what stands where on each platform, and who owns it afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .context import AppContext, Tensor

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).resolve().parent
_RUNNER = _HERE.parent / "runner"


@dataclass(frozen=True)
class File:
    """One file of the output. ``regenerated``: ``--update`` writes it anew; else it is the user's."""

    path: str
    content: bytes
    regenerated: bool


def render(context: AppContext, golden: dict[str, bytes], model: bytes) -> list[File]:
    """All files of a platform's package, sorted by path. The same input gives the same bytes."""
    make = {"android": _android, "swift": _swift, "cpp": _cpp}[context.platform]
    return sorted(make(context, golden, model), key=lambda file: file.path)


def _android(context: AppContext, golden: dict[str, bytes], model: bytes) -> Iterable[File]:
    text = _Texts("android", context)
    for name in ("settings.gradle.kts", "build.gradle.kts", "gradle.properties", "gradle/libs.versions.toml"):
        yield text.once(name, name)
    yield text.once("gitignore", ".gitignore")
    for name in (
        "README.md",
        "model/build.gradle.kts",
        "model/consumer-rules.pro",
        "sample/build.gradle.kts",
    ):
        yield text.once(name, name)
    for name in ("model/src/main/AndroidManifest.xml", "sample/src/main/AndroidManifest.xml"):
        yield text.once(name, name)
    package = context.package_path
    main = f"model/src/main/kotlin/{package}"
    source = "model/src/main/kotlin"
    yield text.made(f"{source}/Model.kt", f"{main}/{context.class_name}.kt")
    yield text.made(f"{source}/{context.runtime.capitalize()}Runtime.kt", f"{main}/ModelRuntime.kt")
    extra = [*(["Pixels"] if context.image else []), *(["Labels"] if context.labels else [])]
    for name in ("ModelSpec", "ModelFile", "RuntimeVersion", *extra):
        yield text.made(f"{source}/{name}.kt", f"{main}/{name}.kt")
    yield text.made(
        "model/src/test/kotlin/ModelSpecTest.kt", f"model/src/test/kotlin/{package}/ModelSpecTest.kt"
    )
    for name in ("Golden", "GoldenTest"):
        yield text.made(
            f"model/src/androidTest/kotlin/{name}.kt", f"model/src/androidTest/kotlin/{package}/{name}.kt"
        )
    for name in ("BenchmarkActivity", "BenchmarkReport"):
        yield text.once(
            f"sample/src/main/kotlin/{name}.kt", f"sample/src/main/kotlin/{package}/sample/{name}.kt"
        )
    assets = f"edgeopt/{context.slug}"
    yield File(f"model/src/main/assets/{assets}/{context.model_file}", model, True)
    if context.labels:
        yield File(f"model/src/main/assets/{assets}/labels.txt", _lines(context.labels.names), True)
    for name, data in golden.items():
        yield File(f"model/src/androidTest/assets/{assets}/golden/{name}", data, True)


def _swift(context: AppContext, golden: dict[str, bytes], model: bytes) -> Iterable[File]:
    text = _Texts("swift", context)
    name = context.class_name
    for file in ("Package.swift", "README.md"):
        yield text.once(file, file)
    yield text.once("gitignore", ".gitignore")
    yield text.made("Sources/Model.swift", f"Sources/{name}/{name}.swift")
    yield text.made("Sources/ModelFile.swift", f"Sources/{name}/ModelFile.swift")
    yield text.made("Tests/GoldenTests.swift", f"Tests/{name}Tests/GoldenTests.swift")
    yield File(f"Sources/{name}/Resources/{context.model_file}", model, True)
    if context.labels:
        yield File(f"Sources/{name}/Resources/labels.txt", _lines(context.labels.names), True)
    for file, data in golden.items():
        yield File(f"Tests/{name}Tests/golden/{file}", data, True)


def _cpp(context: AppContext, golden: dict[str, bytes], model: bytes) -> Iterable[File]:
    text = _Texts("cpp", context)
    for file in ("CMakeLists.txt", "README.md", "src/main.cpp"):
        yield text.once(file, file)
    yield text.once("gitignore", ".gitignore")
    yield text.made("src/model.h", f"src/{context.slug}.h")
    yield text.made("src/model.cpp", f"src/{context.slug}.cpp")
    for file in ("src/runtime.h", "src/sha256.h", "src/golden.h"):
        yield text.made(file, file)
    yield text.made(f"src/{context.runtime}_runtime.cpp", f"src/{context.runtime}_runtime.cpp")
    if context.runtime == "litert":
        header = (_RUNNER / "litert_c_api.h").read_bytes()
        yield File("src/litert_c_api.h", header, True)
    yield File(f"data/{context.model_file}", model, True)
    if context.labels:
        yield File("data/labels.txt", _lines(context.labels.names), True)
    for file, data in golden.items():
        yield File(f"data/golden/{file}", data, True)


def _lines(names: Iterable[str]) -> bytes:
    return "".join(" ".join(name.split()) + "\n" for name in names).encode()


class _Texts:
    """Renders the templates of one platform's folder."""

    def __init__(self, platform: str, context: AppContext) -> None:
        self._platform = platform
        self._values = {field.name: getattr(context, field.name) for field in fields(context)}
        self._values["namespace"] = context.namespace

    def made(self, template: str, path: str) -> File:
        """A file that ``--update`` writes anew."""
        return File(path, self._render(template), True)

    def once(self, template: str, path: str) -> File:
        """A file that is the user's once it is written."""
        return File(path, self._render(template), False)

    def _render(self, template: str) -> bytes:
        found = _environment().get_template(f"{self._platform}/{template}.j2")
        return found.render(self._values).encode()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= FILTERS
    return environment


_KT_ARRAY = {
    "float32": "FloatArray", "float64": "DoubleArray", "float16": "ShortArray", "int64": "LongArray",
    "int32": "IntArray", "int8": "ByteArray", "uint8": "ByteArray", "bool": "BooleanArray",
}  # fmt: skip
_SWIFT = {
    "float32": "Float", "float64": "Double", "int64": "Int", "int32": "Int32", "int8": "Int8", "uint8": "UInt8",
    "bool": "Bool",
}  # fmt: skip
_CPP = {
    "float32": "float", "float64": "double", "float16": "uint16_t", "int64": "int64_t", "int32": "int32_t",
    "int16": "int16_t", "int8": "int8_t", "uint8": "uint8_t", "bool": "uint8_t",
}  # fmt: skip


def _escape(text: str, also: str = "") -> str:
    """``text`` inside double quotes of Kotlin, Swift or C++; control characters become spaces."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return "".join("\\" + c if c in '"\\' + also else c for c in clean)


def _comment(text: str) -> str:
    """``text`` inside a comment: on one line, and unable to end it."""
    return _escape(text).replace("\\", "").replace("*/", "* /").replace("/*", "/ *")


def _kt_numel(tensor: Tensor) -> str:
    sizes = [f"{size}.toLong()" if isinstance(size, str) else "" for size in tensor.shape]
    return " * ".join([*filter(None, sizes), f"{tensor.numel}L"])


def _kt_shape(tensor: Tensor) -> str:
    sizes = ", ".join(f"{s}.toLong()" if isinstance(s, str) else f"{s}L" for s in tensor.shape)
    return f"longArrayOf({sizes})"


def _kt_example(tensor: Tensor) -> str:
    """Random values for a benchmark: normal floats, whole numbers 0 or 1."""
    value = {
        "float32": "random.nextGaussian().toFloat()",
        "float64": "random.nextGaussian()",
        "float16": "random.nextInt(0x3c00).toShort()",  # positive halves below 1
        "int64": "random.nextInt(2).toLong()",
        "int32": "random.nextInt(2)",
        "bool": "random.nextBoolean()",
    }.get(tensor.dtype, "random.nextInt(2).toByte()")
    return f"{_KT_ARRAY[tensor.dtype]}({tensor.numel}) {{ {value} }}"


def _buffer(dtype: str) -> str:
    return _KT_ARRAY[dtype].replace("Array", "Buffer")


def _dim_of(dim: str, tensors: Iterable[Tensor], form: str = "sample.inputs[{}].shape[{}]") -> str:
    """Where in a golden sample the value of a dynamic size stands."""
    places = [(i, t.shape.index(dim)) for i, t in enumerate(tensors) if dim in t.shape]
    return form.format(*places[0])


FILTERS: dict[str, Any] = {
    "kt": lambda text: _escape(text, "$"),
    "swift": _escape,
    "cpp": _escape,
    "kdoc": _comment,
    "md": lambda text: "`" + _comment(text).replace("`", "'").replace("|", "/") + "`",
    "kt_array": _KT_ARRAY.__getitem__,
    "kt_buffer": _buffer,
    "kt_numel": _kt_numel,
    "kt_shape": _kt_shape,
    "kt_example": _kt_example,
    "kt_float": lambda value: f"{float(value)!r}f",
    "has_buffers": lambda tensors: bool(tensors) and all(t.dtype != "bool" for t in tensors),
    "buffer_imports": lambda tensors: (
        sorted({_buffer(t.dtype) for t in tensors}) if all(t.dtype != "bool" for t in tensors) else []
    ),
    "dim_of": _dim_of,
    "sorted_lines": lambda text: "".join(sorted(text.splitlines(keepends=True))),
    "swift_type": _SWIFT.__getitem__,
    "cpp_type": _CPP.__getitem__,
}
