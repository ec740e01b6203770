"""From a bundle to what the templates may use: typed, checked, and the same for every platform."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from .naming import camel, check_package, class_name, snake, unique

if TYPE_CHECKING:
    from ...bundle import Artifact, Bundle, Manifest

PLATFORMS = ("android", "swift", "cpp")
_PACKAGE_OF = {"executorch": "executorch", "litert": "ai-edge-litert"}
_DEFAULT_MIN_SDK = 26
_MAX_THREADS = 4
# What each platform's own classes can carry (checked in their sources, docs/app.md).
DTYPES = {
    ("android", "executorch"): ("float32", "float64", "float16", "int64", "int32", "int8", "uint8"),
    ("android", "litert"): ("float32", "int64", "int32", "int8", "bool"),
    ("swift", "executorch"): ("float32", "float64", "int64", "int32", "int8", "uint8", "bool"),
    ("cpp", "executorch"): (
        "float32",
        "float64",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    ),
    ("cpp", "litert"): ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"),
}
_NARROWED = {("int64", "int32"), ("float64", "float32"), ("float32", "float16")}


@dataclass(frozen=True)
class Tensor:
    """One input or output.

    Attributes:
        name: as the model calls it; ``ident`` as the code does; ``file_name`` as the model file does.
        dtype: of the file, which may be narrower than the model's.
        shape: a dynamic size is the identifier of its parameter.
        varies: an output whose ``shape`` is the example's and follows the dynamic sizes.
    """

    name: str
    ident: str
    file_name: str
    dtype: str
    shape: tuple[int | str, ...]
    varies: bool = False

    @property
    def dynamic(self) -> bool:
        """Whether a size is only known when the model runs."""
        return any(isinstance(size, str) for size in self.shape)

    @property
    def numel(self) -> int:
        """Number of values, dynamic sizes counted as 1."""
        return math.prod(size for size in self.shape if isinstance(size, int))

    @property
    def text(self) -> str:
        """Like ``float32[1, 3, 224, 224]``, or ``float32 scalar``."""
        sizes = ", ".join(str(size) for size in self.shape)
        text = f"{self.dtype}[{sizes}]" if self.shape else f"{self.dtype} scalar"
        return f"{text} for the example's sizes" if self.varies else text


@dataclass(frozen=True)
class Image:
    """How pixels become the input at ``index``: (value / 255 - mean) / std, channel by channel.

    Attributes:
        channels_last: a pixel's channels stand side by side (NHWC), not in planes (NCHW).
    """

    index: int
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_last: bool = False


@dataclass(frozen=True)
class Labels:
    """The class names of the scores in the output at ``index``."""

    index: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class AppContext:
    """Everything a template may say."""

    platform: str
    package: str
    title: str
    class_name: str
    slug: str
    model_file: str
    model_sha256: str
    model_bytes: int
    format: str
    precision: str
    runtime: str
    runtime_version: str
    delegates: str
    device: str
    min_sdk: int
    threads: int
    gpu: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    dims: tuple[str, ...]
    image: Image | None
    labels: Labels | None

    @property
    def package_path(self) -> str:
        """The package as a path."""
        return self.package.replace(".", "/")

    @property
    def namespace(self) -> str:
        """The C++ namespace: the package's parts."""
        return self.package.replace(".", "::")

    def signature(self) -> dict[str, Any]:
        """What callers compile against; :mod:`.update` compares two of these."""
        return {
            "class": self.class_name,
            "inputs": [[t.ident, t.dtype, list(t.shape)] for t in self.inputs],
            "sizes": list(self.dims),
            "outputs": [
                [t.ident, t.dtype, ["varies" if t.varies else size for size in t.shape]] for t in self.outputs
            ],
            "image": self.image is not None,
            "labels": self.labels is not None,
        }


def app_context(bundle: Bundle, package: str, platform: str, file: str | None = None) -> AppContext:
    """Read a bundle for one platform.

    Raises:
        InputError: a bad package name or platform, a bundle that failed or is corrupt, or a model whose
            inputs or outputs the platform's classes can't carry.
    """
    if platform not in PLATFORMS:
        raise InputError(f"--platform {platform!r} is not known: choose from {', '.join(PLATFORMS)}.")
    check_package(package)
    artifact = _artifact(bundle, file)
    manifest = bundle.manifest
    if (platform, artifact.runtime) not in DTYPES:
        raise InputError(
            f"{artifact.file} runs on {artifact.runtime}, for which there is no {platform} package: give --file "
            "with another of the bundle's files."
        )
    sizes = list(dict.fromkeys(s for t in manifest.inputs for s in t.shape if isinstance(s, str)))
    idents = unique(
        [camel(t.name, f"input{i}") for i, t in enumerate(manifest.inputs)]
        + [camel(size, f"size{i}") for i, size in enumerate(sizes)]
    )
    dims = dict(zip(sizes, idents[len(manifest.inputs) :], strict=True))
    inputs = _tensors(manifest.inputs, artifact.inputs, idents[: len(manifest.inputs)], dims)
    names = unique([camel(t.name, f"output{i}") for i, t in enumerate(manifest.outputs)])
    outputs = _tensors(manifest.outputs, artifact.outputs, names, dims)
    outputs = tuple(replace(t, varies=bool(dims) and not t.dynamic) for t in outputs)
    _check_tensors(platform, artifact, manifest, inputs, outputs)
    os, runtime_package = manifest.profile.get("os") or {}, _PACKAGE_OF[artifact.runtime]
    return AppContext(
        platform=platform,
        package=package,
        title=manifest.name,
        class_name=class_name(manifest.name),
        slug=snake(manifest.name),
        model_file=f"model.{artifact.format}",
        model_sha256=artifact.sha256,
        model_bytes=artifact.size_bytes,
        format=artifact.format,
        precision=artifact.precision,
        runtime=artifact.runtime,
        runtime_version=manifest.versions[runtime_package],
        delegates=", ".join(sorted(artifact.contents.get("delegates") or {})) or "none",
        device=str(manifest.profile.get("title") or manifest.profile["name"]),
        min_sdk=int(os.get("min_sdk") or _DEFAULT_MIN_SDK),
        threads=_threads(manifest.profile),
        gpu=artifact.runtime == "litert" and "gpu" in _delegates(manifest.profile, "litert"),
        inputs=inputs,
        outputs=outputs,
        dims=tuple(dims.values()),
        image=_image(manifest, inputs),
        labels=_labels(manifest, outputs),
    )


def _artifact(bundle: Bundle, file: str | None) -> Artifact:
    from ...bundle import check_files

    problems = check_files(bundle)
    if problems:
        raise InputError(f"{bundle.path} is corrupt: {'; '.join(problems)}; export the bundle again.")
    by_name = {artifact.file: artifact for artifact in bundle.artifacts}
    if file is not None and file not in by_name:
        raise InputError(f"{bundle.path} has no file {file!r}: choose from {', '.join(by_name)}.")
    if file is not None:
        chosen = by_name[file]
    elif bundle.passed:
        chosen = bundle.artifacts[0]
    else:
        raise InputError(
            f"{bundle.path} failed its gates (see SUMMARY.md): export it again, or name a verified file with --file."
        )
    if chosen.status != "verified":
        raise InputError(
            f"{chosen.file} in {bundle.path} failed its checks (see SUMMARY.md): export it again."
        )
    return chosen


def _tensors(model: Any, file: Any, idents: list[str], dims: dict[str, str]) -> tuple[Tensor, ...]:
    from ...converters.ordering import named_order

    order = named_order([t.name for t in model], [t.name for t in file])
    return tuple(
        Tensor(
            entry.name,
            ident,
            file[at].name,
            file[at].dtype,
            tuple(dims.get(size, size) if isinstance(size, str) else size for size in entry.shape),
        )
        for entry, ident, at in zip(model, idents, order, strict=True)
    )


def _check_tensors(
    platform: str,
    artifact: Artifact,
    manifest: Manifest,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
) -> None:
    where = f"{artifact.file} in {manifest.name}"
    for entry, tensor in zip([*manifest.inputs, *manifest.outputs], [*inputs, *outputs], strict=True):
        if entry.dtype != tensor.dtype and (entry.dtype, tensor.dtype) not in _NARROWED:
            raise InputError(
                f"{where}: {tensor.name!r} is {tensor.dtype} in the file and {entry.dtype} in the model, which the "
                "wrapper can't bridge: export a file with float inputs and outputs."
            )
        if tensor.dtype not in DTYPES[platform, artifact.runtime]:
            raise InputError(
                f"{where}: {tensor.name!r} is {tensor.dtype}, which {artifact.runtime}'s {platform} classes don't "
                f"take (they take {', '.join(DTYPES[platform, artifact.runtime])})."
            )
    if platform == "android" and artifact.runtime == "litert" and any(t.dynamic for t in inputs):
        raise InputError(
            f"{where} has dynamic sizes, which LiteRT's Kotlin classes can't resize: give --file with a .pte, or "
            "export with fixed sizes."
        )


def _delegates(profile: dict[str, Any], runtime: str) -> list[str]:
    """The delegates that the profile lists for a runtime."""
    support = (profile.get("runtimes") or {}).get(runtime) or {}
    return [str(name) for name in support.get("delegates") or ()]


def _threads(profile: dict[str, Any]) -> int:
    """The cores that aren't in the slowest cluster, up to four: more seldom helps a small model."""
    clusters = (profile.get("cpu") or {}).get("clusters") or []
    fast = clusters[1:] or clusters
    return max(1, min(_MAX_THREADS, sum(int(cluster["count"]) for cluster in fast)))


def _image(manifest: Manifest, inputs: tuple[Tensor, ...]) -> Image | None:
    """Only where mean and std were given at export: they are never guessed."""
    deployment = manifest.deployment
    if deployment is None or deployment.mean is None or deployment.std is None:
        return None
    for index, (entry, tensor) in enumerate(zip(manifest.inputs, inputs, strict=True)):
        if (
            entry.layout not in ("NCHW", "NHWC")
            or tensor.dtype != "float32"
            or tensor.dynamic
            or tensor.shape[0] != 1
        ):
            continue
        last = entry.layout == "NHWC"
        sizes = [int(size) for size in tensor.shape[1:]]
        height, width, channels = sizes if last else (*sizes[1:], sizes[0])
        if channels in (1, 3) and len(deployment.mean) == channels:
            return Image(index, channels, height, width, tuple(deployment.mean), tuple(deployment.std), last)
    return None


def _labels(manifest: Manifest, outputs: tuple[Tensor, ...]) -> Labels | None:
    names = manifest.deployment.labels if manifest.deployment is not None else []
    for index, tensor in enumerate(outputs):
        if names and tensor.dtype == "float32" and tensor.shape and tensor.shape[-1] == len(names):
            return Labels(index, tuple(names))
    return None
