"""The kernels that the cost model is asked about: the same from a file as from the program it was made of."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import nn

import edgeopt
from edgeopt.converters.file_report import inspect_file
from edgeopt.converters.kernels import file_kernels
from edgeopt.cost_model import Kernel, predict
from edgeopt.cost_model.kernels import total_macs
from edgeopt.device_profiles import load_profile
from edgeopt.errors import InputError
from edgeopt.models.kernels import program_kernels
from edgeopt.models.workload import workload


@pytest.fixture(scope="session")
def kernel_files(request: pytest.FixtureRequest) -> Path:
    """The folder that tests/models/make_kernels.py fills."""
    script = Path(__file__).parent / "models" / "make_kernels.py"
    versions = [metadata.version(package) for package in ("torch", "executorch", "litert-torch")]
    key = hashlib.sha256(script.read_bytes() + "".join(versions).encode()).hexdigest()[:12]
    folder = Path(request.config.cache.mkdir("edgeopt-kernels")) / key
    if not (folder / "encoder.weights.tflite").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def _kinds(kernels: list[Kernel]) -> Counter[str]:
    return Counter(kernel.kind for kernel in kernels)


def _kernels_of(model: nn.Module, *shapes: tuple[int, ...], format: str = "pte") -> list[Kernel]:
    program = torch.export.export(model.eval(), tuple(torch.randn(shape) for shape in shapes))
    return program_kernels(program, format)  # type: ignore[arg-type]


def test_a_convolution_carries_its_normalisation_and_its_clamp() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
    first, kernel, last = _kernels_of(model, (1, 3, 32, 32))
    assert (first.kind, last.kind) == ("layout", "layout")
    assert kernel.kind == "conv"
    assert kernel.macs == 16 * 16 * 8 * 27
    assert kernel.bytes_in == 4 * 3 * 32 * 32
    assert kernel.bytes_out == 4 * 8 * 16 * 16
    assert kernel.bytes_weights == 4 * (8 * 27 + 8)
    assert (kernel.in_channels, kernel.out_channels, kernel.spatial) == (3, 8, 256)
    assert (kernel.kernel_size, kernel.stride) == (3, 2)


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()), {"depthwise": 1, "elementwise": 1}),
        (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), {"pointwise": 1}),
        (nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Sigmoid()), {"grouped": 1, "elementwise": 1}),
        (nn.MaxPool2d(2), {"pool": 1}),
        (nn.AdaptiveAvgPool2d(1), {"pool": 1}),
        (nn.Dropout(), {}),
        (nn.BatchNorm2d(8), {"elementwise": 2}),
    ],
)  # fmt: skip
def test_what_is_a_kernel_of_its_own(model: nn.Module, kinds: dict[str, int]) -> None:
    found = _kinds(_kernels_of(model, (1, 8, 12, 12)))
    del found["layout"]
    assert found == kinds


def test_a_clamp_behind_a_shared_convolution_is_its_own_kernel() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y + torch.relu(y)

    assert _kinds(_kernels_of(Shared(), (1, 4, 8, 8)))["elementwise"] == 2


@pytest.mark.parametrize("format", ["pte", "tflite"])
def test_macs_are_those_of_the_workload(format: str) -> None:
    attention = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    program = torch.export.export(attention.eval(), (torch.randn(1, 10, 32),))
    assert total_macs(program_kernels(program, format)) == workload(program).macs  # type: ignore[arg-type]


def test_a_recurrent_layer_is_products_and_gates() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(16, 24, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[0]

    kernels = _kernels_of(Cell(), (1, 5, 16))
    assert total_macs(kernels) == 5 * (16 * 96 + 24 * 96)
    assert {kernel.kind for kernel in kernels} >= {"linear", "elementwise"}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["picture", "encoder"])
@pytest.mark.parametrize("format", ["pte", "tflite"])
def test_a_file_and_its_program_agree(kernel_files: Path, model: str, format: str) -> None:
    program = torch.export.load(kernel_files / f"{model}.pt2")
    from_program, from_file = (
        program_kernels(program, format),
        file_kernels(kernel_files / f"{model}.{format}"),
    )  # type: ignore[arg-type]
    assert total_macs(from_file) == total_macs(from_program) == workload(program).macs
    working = ("conv", "depthwise", "pointwise", "grouped", "linear", "matmul", "pool", "softmax")
    for kind in working:
        slack = 1 if kind == "pool" else 0
        assert abs(_kinds(from_file)[kind] - _kinds(from_program)[kind]) <= slack, kind
    profile = load_profile("pixel7")
    times = [predict(each, profile, runtime="litert").latency_ms for each in (from_program, from_file)]
    assert times[0] == pytest.approx(times[1], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["picture", "encoder"])
def test_both_formats_hold_the_same_work(kernel_files: Path, model: str) -> None:
    pte, tflite = (file_kernels(kernel_files / f"{model}.{format}") for format in ("pte", "tflite"))
    assert total_macs(pte) == total_macs(tflite)
    profile = load_profile("pixel7")
    times = []
    for kernels in (pte, tflite):
        # What stands between the layers differs: ExecuTorch writes attention out in more steps.
        found = predict(kernels, profile, runtime="litert").kernels
        times.append(sum(each.latency_ms for each in found if each.kernel.macs))
    assert times[0] == pytest.approx(times[1], rel=0.02)


@pytest.mark.slow
def test_every_kernel_of_a_pte_has_a_name_of_its_own(kernel_files: Path) -> None:
    """A file of several delegates, and of several calls of one operator, named kernels alike."""
    for path in sorted(kernel_files.glob("*.pte")):
        names = [kernel.name for kernel in file_kernels(path)]
        assert len(set(names)) == len(names), path.name


def test_precision_follows_what_is_computed_not_what_is_stored(kernel_files: Path) -> None:
    def precisions(file: str) -> Counter[str]:
        return Counter(kernel.precision for kernel in file_kernels(kernel_files / file) if kernel.macs)

    # Weights of 8 bits that are widened on loading are computed with in float32.
    assert set(precisions("picture.weights.tflite")) == {"fp32"}
    assert set(precisions("picture.dynamic.tflite")) == {"int8"}
    assert precisions("encoder.dynamic.tflite") == {"int8": 6, "fp32": 2}
    for file in ("picture.weights.tflite", "picture.dynamic.tflite", "encoder.dynamic.tflite"):
        kernels = file_kernels(kernel_files / file)
        narrow = sum(kernel.macs for kernel in kernels if kernel.precision == "int8")
        found = inspect_file(kernel_files / file)
        assert found.quantized_macs_ratio == pytest.approx(narrow / total_macs(kernels), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", ["picture.tflite", "picture.weights.tflite", "picture.dynamic.tflite", "encoder.tflite", "encoder.dynamic.tflite"]
)  # fmt: skip
def test_delegation_read_from_the_tables_is_what_litert_does(kernel_files: Path, file: str) -> None:

    prepared = {op.name: op.delegate for op in inspect_file(kernel_files / file).ops}
    kernels = [kernel for kernel in file_kernels(kernel_files / file) if kernel.name in prepared]
    assert len(kernels) > 10
    assert {k.name: k.delegate for k in kernels} == {k.name: prepared[k.name] for k in kernels}


@pytest.mark.slow
def test_attention_in_int8_is_multiplied_by_the_delegate(tmp_path: Path) -> None:
    """XNNPACK takes int8 products only where the second operand has zero point 0: keys far from zero had none."""
    import edgeopt

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))
            self.k.bias = nn.Parameter(torch.full((32,), 2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (part(x).view(1, 24, 2, 16).transpose(1, 2) for part in (self.q, self.k, self.v))
            return torch.softmax(q @ k.transpose(-2, -1) * 0.25, -1) @ v

    torch.manual_seed(0)
    x = torch.randn(1, 24, 32)
    bundle = edgeopt.export(
        Attention().eval(), profile="pixel7", formats=("tflite",), precision="int8-static", example_inputs=x,
        calibration=[(x,)], output=tmp_path / "bundle",
    )  # fmt: skip
    (entry,) = bundle.artifacts
    path = tmp_path / "bundle" / entry.file
    products = [op for op in inspect_file(path).ops if op.op == "BATCH_MATMUL"]
    assert len(products) == 2
    assert {op.delegate for op in products} == {"XNNPACK"}
    assert all(k.delegate for k in file_kernels(path) if k.op == "batch_matmul")
    # Queries times keys are work in integers though no weight is stored; softmax gives the other product floats.
    assert entry.contents["quantized_macs_ratio"] == pytest.approx(5 / 6)


def test_files_are_read_without_a_framework(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom edgeopt.converters.kernels import file_kernels\n"
        "from edgeopt.errors import InputError\n"
        "try: file_kernels(sys.argv[1])\nexcept InputError: pass\n"
        "import edgeopt.converters.kernels_pte, edgeopt.converters.kernels_tflite\n"
        "heavy = {'torch', 'executorch', 'litert_torch', 'tensorflow', 'ai_edge_litert.interpreter'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    bad = tmp_path / "m.tflite"
    bad.write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 64)
    done = subprocess.run([sys.executable, "-c", code, str(bad)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["m.onnx", "m.pte", "m.tflite"])
def test_what_is_no_model_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not a model at all" * 10)
    with pytest.raises(InputError):
        file_kernels(path)
    with pytest.raises(InputError, match="does not exist"):
        file_kernels(tmp_path / "missing.pte")


@pytest.mark.slow
def test_attention_without_a_mask_is_two_products_and_a_softmax(tmp_path: Path) -> None:
    """ExecuTorch's own form compares every score to find rows that are masked as a whole, and copies both sides."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(32, 96)

        def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            q, k, v = (part.reshape(1, 10, 4, 8).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
            causal = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)
            return nn.functional.scaled_dot_product_attention(q, causal, v) @ other

    torch.manual_seed(0)
    module, example = Attention().eval(), (torch.randn(1, 10, 32), torch.randn(1, 4, 8, 3))
    bundle = edgeopt.export(
        module, profile="pixel7", precision="fp32", formats=("pte",), example_inputs=example,
        output=tmp_path / "b",
    )  # fmt: skip
    assert bundle.artifacts[0].parity[0]["snr_db"] > 100
    from_file = file_kernels(tmp_path / "b" / "model.pte")
    assert all(kernel.delegate for kernel in from_file)
    from_program = program_kernels(torch.export.export(module, example), "pte")
    for kinds in (_kinds(from_file), _kinds(from_program)):
        assert (kinds["matmul"], kinds["softmax"], kinds["pool"]) == (5, 2, 0)
    profile = load_profile("pixel7")
    times = [predict(each, profile, runtime="executorch").latency_ms for each in (from_program, from_file)]
    assert times[0] == pytest.approx(times[1], rel=0.1)
