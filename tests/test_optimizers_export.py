"""Recipes all the way to verified files of both formats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import optimizer_models as models
import pytest
import torch

from edgeopt.bundle import Artifact, Bundle
from edgeopt.cli import main
from edgeopt.converters.kernels import file_kernels
from edgeopt.pipeline import export

MODEL = f"{Path(models.__file__)}"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

CHAIN = f"""
name = "chain"
[[passes]]
pass = "distill"
teacher = "{MODEL}:net"
epochs = 8
learning_rate = 1e-2
batch_size = 32
[[passes]]
pass = "prune"
macs = 0.5
round_to = 4
epochs = 4
learning_rate = 5e-3
batch_size = 32
[[passes]]
pass = "fold_batch_norm"
[[passes]]
pass = "qat"
epochs = 1
"""


def artifacts(bundle: Bundle) -> dict[str, Artifact]:
    return {artifact.file: artifact for artifact in bundle.artifacts}


def test_distil_prune_and_train_in_int8_with_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "chain.toml", tmp_path / "out"
    recipe.write_text(CHAIN)
    options = [
        "--profile",
        "pixel7",
        "--recipe",
        str(recipe),
        "--eval",
        f"{MODEL}:evaluate",
        "-o",
        str(out),
        "--json",
    ]
    code = main(["export", f"{MODEL}:fresh", "--model-args", '{"width": 12}', *options])
    found = json.loads(capsys.readouterr().out)
    assert code == 0, found
    manifest = json.loads((out / "manifest.json").read_text())
    done = manifest["optimization"]
    assert [entry["pass"] for entry in done["passes"]] == ["distill", "prune", "fold_batch_norm", "qat"]
    assert done["macs"][1] <= 0.5 * done["macs"][0]
    assert [a["file"] for a in manifest["artifacts"]] == ["model.pte", "model.tflite"]
    for artifact in manifest["artifacts"]:
        assert artifact["status"] == "verified" and artifact["precision"] == "int8-static"
        assert artifact["metric"] > 0.9
        assert artifact["parity"][0]["snr_db"] > 20
    first, second = (a["metric"] for a in manifest["artifacts"])
    # The kernels of the two runtimes round apart: an image on the edge between two digits may fall to either side.
    assert first == pytest.approx(second, abs=2.5 / 540)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The text model in every precision that quantises weights for themselves."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEOPT_CACHE_DIR", str(folder / "cache"))
        return export(
            f"{MODEL}:text", profile="pixel7", output=folder / "out",
            precision="fp32,int8-dynamic,int8-weights,int4-dynamic,int4-weights,w8a16",
            calibration=models.text_calibration(), example_inputs=models.text_example_inputs(),
        )  # fmt: skip


def test_weights_in_few_bits_shrink_the_file(weights: Bundle) -> None:
    made = artifacts(weights)
    size = {name: artifact.size_bytes for name, artifact in made.items()}
    assert all(artifact.status == "verified" for artifact in made.values())
    assert size["model.int8-dynamic.pte"] < 0.35 * size["model.pte"]
    assert size["model.int8-dynamic.tflite"] < 0.4 * size["model.tflite"]
    assert size["model.int8-weights.tflite"] < 0.4 * size["model.tflite"]
    assert size["model.int4-dynamic.pte"] < size["model.int8-dynamic.pte"]
    assert size["model.int4-dynamic.tflite"] < size["model.int8-dynamic.tflite"]
    assert size["model.int4-weights.tflite"] < size["model.int8-weights.tflite"]
    snr = {name: artifact.parity[0]["snr_db"] for name, artifact in made.items()}
    assert snr["model.int8-weights.tflite"] > snr["model.int4-weights.tflite"] > 10
    assert abs(snr["model.int4-dynamic.pte"] - snr["model.int4-dynamic.tflite"]) < 5


def test_what_a_format_can_not_take_is_refused_with_a_reason(weights: Bundle) -> None:
    sentences = {entry["file"]: entry["sentence"] for entry in weights.manifest.not_made}
    assert "choose int8-dynamic" in sentences["model.int8-weights.pte"]
    assert "computes wrong results" in sentences["model.int4-weights.pte"]
    assert "no kernels for int16 activations" in sentences["model.w8a16.pte"]


def test_mixed_recovers_what_int8_breaks_and_keeps_its_gain(tmp_path: Path) -> None:
    """Outlier channels: within 0.5 points of float, with 80% of what int8 saves in bytes and predicted time."""
    source, arguments = f"{MODEL}:outliers", {"width": 32}
    common = {
        "profile": "pixel7",
        "formats": ("pte", "tflite"),
        "evaluate": models.evaluate,
        "model_args": arguments,
    }
    made = export(
        source, precision="fp32,int8-static,mixed", output=tmp_path / "out", min_snr_db=-100.0, **common
    )
    found = artifacts(made)
    for suffix in ("pte", "tflite"):
        plain, broken, mixed = (found[f"model{part}.{suffix}"] for part in ("", ".int8-static", ".mixed"))
        assert plain.metric is not None and broken.metric is not None and mixed.metric is not None
        assert broken.metric < plain.metric - 0.02
        assert mixed.metric >= plain.metric - 0.005
        gain = plain.size_bytes - broken.size_bytes
        assert plain.size_bytes - mixed.size_bytes >= 0.8 * gain
        assert predicted_gain(made.path, plain, broken, mixed) >= 0.8


def predicted_gain(folder: Path, plain: Artifact, broken: Artifact, mixed: Artifact) -> float:
    """Share of int8's predicted saving of time on the profile that the mixed file keeps."""
    from edgeopt import load_profile
    from edgeopt.converters.kernels import RUNTIME_OF, file_kernels
    from edgeopt.cost_model import predict

    times = [
        predict(
            file_kernels(folder / a.file), load_profile("pixel7"), runtime=RUNTIME_OF[f".{a.format}"]
        ).latency_ms
        for a in (plain, broken, mixed)
    ]
    return (times[0] - times[2]) / (times[0] - times[1])


def test_auto_takes_the_next_recipe_when_the_metric_falls(tmp_path: Path) -> None:
    """Parity is waved through here, so only the measured accuracy can speak against int8."""
    made = export(
        f"{MODEL}:outliers", profile="raspberry_pi_4", formats=("tflite",), evaluate=models.evaluate,
        min_snr_db=-100.0, output=tmp_path / "out",
    )  # fmt: skip
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert "if int8-static fails there: " in manifest["choice"][2]
    assert any("int8-static failed (accuracy fell from" in note for note in manifest["warnings"])
    (artifact,) = made.artifacts
    assert artifact.precision != "int8-static" and artifact.status == "verified"


def test_no_sparse_kernel_runs_in_either_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the report of sparsify says, looked up in the kernels that ran: XNNPACK calls its sparse ones SPMM."""
    recipe, out = tmp_path / "sparse.toml", tmp_path / "out"
    recipe.write_text('[[passes]]\npass = "sparsify"\nsparsity = 0.9\nepochs = 1\n')
    arguments = [
        "export",
        f"{MODEL}:net",
        "--profile",
        "pixel7",
        "--recipe",
        str(recipe),
        "-o",
        str(out),
        "-q",
    ]
    assert main(arguments) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    report = manifest["optimization"]["passes"][0]
    assert any("no sparse kernel runs" in warning for warning in manifest["warnings"])
    assert "saves 0%" in report["change"]
    for artifact in manifest["artifacts"]:
        assert artifact["compressed_bytes"] < 0.6 * artifact["size_bytes"]
    capsys.readouterr()
    few = ["--processes", "1", "--num-runs", "5"]
    assert main(["bench", str(out), "--on", "host", "--profile-ops", "--no-store", "--json", *few]) == 0
    profiles = json.loads(capsys.readouterr().out)["profiles_of_ops"]
    assert len(profiles) == 2
    for profile in profiles:
        names = " ".join(op["name"] for op in profile["ops"]).upper()
        assert "GEMM" in names and "SPMM" not in names and "SPARSE" not in names


def test_a_fresh_process_runs_a_pte_with_an_int8_embedding(tmp_path: Path) -> None:
    """The kernel of such a table isn't in ExecuTorch's Python runtime until its library is loaded."""
    export(
        f"{MODEL}:text", profile="pixel7", formats=("pte",), precision="int8-dynamic", output=tmp_path / "b"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edgeopt", "verify", str(tmp_path / "b"), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"]


class Tagger(torch.nn.Module):
    """Words to words, by a table that is most of the weights; also the last layer's where it is ``tied``."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(400, 32)
        self.inner, self.out = torch.nn.Linear(32, 32), torch.nn.Linear(32, 400 if tied else 7)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.inner(self.table(ids)).relu())


@pytest.mark.parametrize("tied", [False, True])
def test_static_int8_keeps_tables_in_int8_too(tied: bool, tmp_path: Path) -> None:
    """They stayed in float: 90% of this model's weights, half of MiniLM's."""
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randint(0, 400, (1, 12), generator=generator) for _ in range(8)]
    made = export(
        Tagger(tied).eval(), profile="pixel7", precision="int8-static", example_inputs=samples[0],
        calibration=samples, output=tmp_path / "out",
    )  # fmt: skip
    assert len(made.artifacts) == 2
    for artifact in made.artifacts:
        assert artifact.contents["quantized_weights_ratio"] > 0.95 and artifact.parity[0]["snr_db"] > 30


class Growing(torch.nn.Module):
    """Gated states that are put behind each other and grow thirtyfold from the first to the last, as an LSTM's do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(16, 16) for _ in range(3)])
        self.head = torch.nn.Linear(16, 5)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        states = []
        for size, layer in zip((0.1, 1.0, 3.0), self.layers, strict=True):
            gates = layer(data) * size
            states.append(torch.sigmoid(gates) * torch.tanh(gates))
        logits: torch.Tensor = self.head(torch.stack(states, dim=1))
        return logits


def test_stacked_states_of_different_ranges_survive_static_int8_in_both_formats(tmp_path: Path) -> None:
    data = [torch.randn(1, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(32)]
    made = export(
        Growing().eval(), profile="pixel7", formats=("pte", "tflite"), precision="int8-static",
        example_inputs=data[0], calibration=data, output=tmp_path / "out",
    )  # fmt: skip
    snr = {artifact.format: artifact.parity[0]["snr_db"] for artifact in made.artifacts}
    assert min(snr.values()) > 30 and abs(snr["pte"] - snr["tflite"]) < 3, snr


def test_gates_in_int8_run_on_litert_without_xnnpack(tmp_path: Path) -> None:
    """LiteRT's own kernels refuse a sigmoid whose result has another scale than 1/256."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    data = [torch.randn(1, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(32)]
    made = export(
        Growing().eval(), profile="pixel7", formats=("tflite",), precision="int8-static",
        example_inputs=data[0], calibration=data, output=tmp_path / "out",
    )  # fmt: skip
    model = Interpreter(
        str(made.path / "model.tflite"),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    model.allocate_tensors()
    model.set_tensor(model.get_input_details()[0]["index"], data[0].numpy())
    model.invoke()
    found = torch.from_numpy(model.get_tensor(model.get_output_details()[0]["index"]))
    wanted = Growing().eval()(data[0]).detach()
    assert float((found - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


class Normalised(torch.nn.Module):
    """What an encoder begins with: small numbers, made large by a normalisation over many channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(384, eps=1e-12)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = self.norm(2 * data)
        return normal


@pytest.mark.parametrize("size", [0.03, 100.0])
def test_normalisations_of_a_float16_pte_are_added_up_in_float32(tmp_path: Path, size: float) -> None:
    made = export(
        Normalised().eval(), profile="pixel7", formats=("pte",), precision="fp16",
        example_inputs=size * torch.randn(1, 48, 384, generator=torch.Generator().manual_seed(0)),
        output=tmp_path / "out",
    )  # fmt: skip
    (artifact,) = made.artifacts
    assert artifact.status == "verified" and artifact.parity[0]["snr_db"] > 55


def test_dynamic_int8_runs_behind_a_padding(tmp_path: Path) -> None:
    """TensorFlow's "same" padding, written out: EfficientNets begin with it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.Conv2d(3, 8, 3, 2), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 4),
    )  # fmt: skip
    made = export(
        model.eval(), profile="pixel7", formats=("pte",), precision="int8-dynamic",
        example_inputs=torch.randn(1, 3, 16, 16), output=tmp_path / "out",
    )  # fmt: skip
    assert [artifact.status for artifact in made.artifacts] == ["verified"]


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_dynamic_int8_computes_behind_a_mirrored_border(mode: str, tmp_path: Path) -> None:
    """Networks that draw (style transfer) pad so before every convolution: none of them was quantised."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, padding_mode=mode), torch.nn.InstanceNorm2d(8, affine=True),
        torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 5, padding=2, padding_mode=mode),
    )  # fmt: skip
    made = export(
        model.eval(), profile="pixel7", formats=("pte",), precision="int8-dynamic",
        example_inputs=torch.randn(1, 3, 16, 16), output=tmp_path / "out",
    )  # fmt: skip
    (artifact,) = made.artifacts
    assert artifact.status == "verified" and artifact.parity[0]["snr_db"] > 30
    assert artifact.contents["quantized_macs_ratio"] == 1.0


@pytest.mark.parametrize("inplace", [False, True])
def test_convolutions_before_relus_compute_in_dynamic_int8_too(tmp_path: Path, inplace: bool) -> None:
    """XNNPACK's quantizer leaves a convolution alone whose only user is a ReLU: all of a plain network."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2), torch.nn.ReLU(inplace), torch.nn.Conv2d(16, 16, 3, groups=16),
        torch.nn.ReLU(inplace), torch.nn.Conv2d(16, 32, 3, bias=False), torch.nn.ReLU(inplace),
        torch.nn.Conv2d(32, 32, 3, groups=4), torch.nn.ReLU(inplace), torch.nn.Flatten(), torch.nn.Linear(32 * 25, 4),
    )  # fmt: skip
    made = export(
        model.eval(), profile="pixel7", formats=("pte",), precision="int8-dynamic",
        example_inputs=torch.randn(1, 3, 24, 24), output=tmp_path / "out",
    )  # fmt: skip
    (artifact,) = made.artifacts
    assert artifact.status == "verified"
    layers = [k for k in file_kernels(tmp_path / "out" / artifact.file) if k.macs]
    assert [(k.kind, k.precision) for k in layers] == [
        ("conv", "int8"), ("depthwise", "fp32"), ("conv", "int8"), ("grouped", "int8"), ("linear", "int8")
    ]  # fmt: skip


class Causal(torch.nn.Module):
    """Attention whose mask is added, as GPT-2's and CLIP's are."""

    def __init__(self, low: float) -> None:
        super().__init__()
        self.project, self.out = torch.nn.Linear(32, 96), torch.nn.Linear(32, 32)
        self.register_buffer("mask", torch.full((12, 12), low).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.project(x).view(1, 12, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) / 8**0.5 + self.mask
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(1, 12, 32))


@pytest.mark.parametrize("low", [torch.finfo(torch.float32).min, float("-inf"), -1e4])
def test_a_mask_that_is_added_leaves_its_scores_in_static_int8(tmp_path: Path, low: float) -> None:
    torch.manual_seed(0)
    samples = [(torch.randn(1, 12, 32),) for _ in range(4)]
    made = export(
        Causal(low).eval(), profile="pixel7", precision="int8-static", example_inputs=samples[0],
        calibration=samples, output=tmp_path / "out",
    )  # fmt: skip
    assert [artifact.format for artifact in made.artifacts] == ["pte", "tflite"]
    assert all(artifact.parity[0]["snr_db"] > 25 for artifact in made.artifacts)
