"""Names a compiler takes, from names a model has: keywords, spaces, digits first, any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from ...errors import InputError

# What Kotlin, Java, Swift or C++ reserve, in one set: a name is then the same on every platform.
_RESERVED = """
    abstract alignas alignof and as asm assert associatedtype auto await bool boolean break byte case
    catch char class co_await co_return co_yield concept const const_cast consteval constexpr constinit
    continue decltype default defer deinit delete do double dynamic_cast else enum errno explicit export extends
    extension extern fallthrough false fileprivate final finally float for friend fun func goto guard if
    implements import in indirect init inline inout instanceof int interface internal is let long mutable
    namespace native new nil noexcept not null nullptr object open operator or override package
    precedencegroup private protected protocol public register reinterpret_cast repeat requires rethrows
    return self short signed sizeof some static static_assert static_cast std strictfp struct subscript super
    switch synchronized template this thread_local throw throws transient true try typealias typedef
    typeid typename typeof union unsigned using val var virtual void volatile wchar_t when where while xor
"""
KEYWORDS = frozenset(_RESERVED.split())
# Letters that have no decomposition but a usual spelling.
_SPELT = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "þ": "th", "ð": "d", "ı": "i"}
# Classes that the generated code has or uses itself.
_TAKEN = """
    Accelerator Activity Agreement Any Array BenchmarkActivity BenchmarkReport Bitmap Boolean Buffer
    BuildConfig Bundle Byte Classification Closeable CompiledModel Context Data Delegate Dispatchers
    Double EValue ElementType Environment Exception File Float Golden GoldenSample GoldenTensor GoldenTest
    GoldenTests Int Labels List Log Long Map Model ModelError ModelException ModelFile ModelRuntime
    ModelSpec ModelSpecTest Module Mutex Options Outputs Pixels Placement Random Result Runtime
    RuntimeVersion Sample Scalar Set Short String Task Tensor TensorBuffer TensorSpec Tolerance URL Unit
    Value
"""
_TAKEN_CLASSES = frozenset(_TAKEN.split())
# Files and build targets that the C++ example has of its own.
_TAKEN_SLUGS = frozenset(
    {"all", "clean", "edit_cache", "golden", "help", "install", "main", "package", "runtime", "test"}
)
_PACKAGE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")

# The class loaders of a phone refuse an app's classes there, or its own shadow them.
_PLATFORM = frozenset({"android", "androidx", "dalvik", "java", "javax", "kotlin", "kotlinx"})


def check_package(name: str) -> str:
    """``name`` when Android takes it as a package and application id.

    Raises:
        InputError: it isn't two or more lower-case words with dots between, a word is reserved, or the platform owns it.
    """
    if not _PACKAGE.fullmatch(name):
        raise InputError(
            f"--package {name!r} is not a package name: give two or more words of lower-case letters, digits "
            "and _ with dots between, each beginning with a letter, like com.acme.vision."
        )
    reserved = [word for word in name.split(".") if word in KEYWORDS]
    if reserved:
        raise InputError(
            f"--package {name!r} has the reserved word {reserved[0]!r} in it: choose another, like com.acme.vision."
        )
    owner = name.partition(".")[0]
    if owner in _PLATFORM:
        raise InputError(
            f"--package {name!r} begins with {owner}, which belongs to the platform: choose another, like com.acme.vision."
        )
    return name


def words_of(name: str) -> list[str]:
    """The ASCII words in ``name``; none when nothing of it can be written in ASCII."""
    text = "".join(_SPELT.get(c, _SPELT.get(c.lower(), c)) for c in name)
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"[A-Za-z0-9]+", text)


def camel(name: str, fallback: str) -> str:
    """``name`` as a lowerCamelCase identifier; ``fallback`` when no letter or digit is left."""
    words = [word.lower() for word in words_of(name)]
    text = "".join(word if index == 0 else word[:1].upper() + word[1:] for index, word in enumerate(words))
    text = text or fallback
    if text[0].isdigit():
        text = fallback.rstrip("0123456789") + text
    return text + "Value" if text in KEYWORDS else text


def class_name(name: str, fallback: str = "EdgeModel") -> str:
    """``name`` as an UpperCamelCase class name that the generated code doesn't use for something else."""
    text = "".join(word[:1].upper() + word[1:] for word in words_of(name)) or fallback
    if text[0].isdigit():
        text = "Model" + text
    return text + "Net" if text in _TAKEN_CLASSES else text


def snake(name: str, fallback: str = "edge_model") -> str:
    """``name`` as a lower_snake_case word for files, targets and namespaces."""
    text = "_".join(word.lower() for word in words_of(name)) or fallback
    text = "model_" + text if text[0].isdigit() else text
    return text + "_model" if text in KEYWORDS | _TAKEN_SLUGS else text


def unique(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """``names`` with a number behind each that is there already (also when only the case differs)."""
    seen = {name.lower() for name in taken}
    result = []
    for name in names:
        candidate, number = name, 2
        while candidate.lower() in seen:
            candidate, number = f"{name}{number}", number + 1
        seen.add(candidate.lower())
        result.append(candidate)
    return result
