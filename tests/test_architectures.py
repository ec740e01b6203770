"""Four kinds of architecture, both formats, all four precisions: 32 files, each verified against PyTorch.

The table that docs/architectures.md shows is printed at the end (``pytest -s``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edgeopt

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8-static")
# Below the gates of the export (60 / 35 / 15 / 15 dB) lies a failure; below these, something got worse.
MIN_SNR_DB = {"fp32": 100.0, "fp16": 50.0, "int8-dynamic": 25.0, "int8-static": 18.0}


class Residual(nn.Module):
    """Two convolutions and a shortcut, with a projection where the shape changes (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + self.shortcut(x))


def residual_cnn() -> nn.Module:
    """A ResNet of 8 convolutions whose batch normalisations have statistics of their own."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
    return model


class Bert(nn.Module):
    """A small BERT encoder with a mask that is added to the attention scores, and a pooled classifier."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
            max_position_embeddings=32, attn_implementation="eager",
        )  # fmt: skip
        self.encoder = BertModel(config)
        self.head = nn.Linear(64, 4)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        return self.head(hidden.mean(1))


class KeywordSpotter(nn.Module):
    """Frames of 40 log-mel bands, a convolution over time, a GRU of 6 steps, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(40, 48, 3, stride=2, padding=1)
        self.gru = nn.GRU(48, 48, batch_first=True)
        self.head = nn.Linear(48, 12)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.conv(frames.transpose(1, 2))).transpose(1, 2)
        sequence, _ = self.gru(features)
        return self.head(sequence[:, -1])


def _bert_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(1, 1, 1, 16)
    mask[..., 12:] = -100.0
    return torch.randint(0, 200, (1, 16)), mask


@dataclass(frozen=True)
class Architecture:
    """A kind of model; ``model`` makes it, ``inputs`` one random sample (None: its module knows)."""

    kind: str
    model: Callable[[], Any]
    inputs: Callable[[], Any] | None


ARCHITECTURES = {
    "MobileNetV2-like CNN": Architecture(
        "trained on handwritten digits", lambda: str(EXAMPLES / "digits" / "__init__.py") + ":net", None
    ),
    "residual CNN": Architecture("seeded weights", residual_cnn, lambda: torch.randn(1, 3, 32, 32)),
    "BERT encoder": Architecture("seeded weights", Bert, _bert_inputs),
    "conv + GRU audio net": Architecture("seeded weights", KeywordSpotter, lambda: torch.randn(1, 12, 40)),
}


@pytest.fixture(scope="module")
def table() -> Iterator[dict[tuple[str, str, str], dict[str, Any]]]:
    """(architecture, precision, format) → the manifest's entry; printed when all tests are through."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    yield rows
    print("\n| Architecture | Precision | .pte SNR | .pte size | .tflite SNR | .tflite size |")
    print("|---|---|---|---|---|---|")
    for name in ARCHITECTURES:
        for precision in PRECISIONS:
            cells = []
            for output_format in ("pte", "tflite"):
                entry = rows.get((name, precision, output_format))
                cells += (
                    [f"{_snr(entry):.1f} dB", f"{entry['size_bytes'] / 1000:.0f} kB"] if entry else ["", ""]
                )
            print(f"| {name} | {precision} | {' | '.join(cells)} |")


def _snr(entry: dict[str, Any]) -> float:
    return min(output["snr_db"] for output in entry["parity"])


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_an_architecture_in_every_format_and_precision(
    name: str, tmp_path: Path, table: dict[tuple[str, str, str], dict[str, Any]]
) -> None:
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = architecture.model()
    options: dict[str, Any] = {}
    if architecture.inputs is not None:
        options = {
            "example_inputs": architecture.inputs(),
            "calibration": [architecture.inputs() for _ in range(16)],
        }
        model.eval()
    bundle = edgeopt.export(
        model,
        profile="pixel7",
        precision=",".join(PRECISIONS),
        output=tmp_path / "bundle",
        use_cache=False,
        **options,
    )
    manifest = bundle.manifest.model_dump()
    assert manifest["status"] == "verified"
    assert not manifest["not_made"]
    made = {(a["precision"], a["format"]): a for a in manifest["artifacts"]}
    table.update({(name, *key): entry for key, entry in made.items()})
    assert set(made) == {(p, f) for p in PRECISIONS for f in ("pte", "tflite")}
    for (precision, output_format), entry in made.items():
        assert _snr(entry) >= MIN_SNR_DB[precision], (precision, output_format)
        if precision.startswith("int8"):
            assert entry["contents"]["quantized_weights_ratio"] > 0.5, (precision, output_format)
    assert made["fp16", "tflite"]["size_bytes"] < made["fp32", "tflite"]["size_bytes"]
    for output_format in ("pte", "tflite"):
        assert made["int8-dynamic", output_format]["size_bytes"] < made["fp32", output_format]["size_bytes"]
