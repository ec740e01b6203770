"""Models of the transformers package as modules of one tensor in, one out."""

from __future__ import annotations

import torch
from torch import nn


class Logits(nn.Module):
    """A transformers classifier as a module of one tensor in, one out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, 3, H, W) → (1, classes)."""
        logits: torch.Tensor = self.model(pixel_values=pixels).logits
        return logits


class Text(nn.Module):
    """BERT's embeddings and encoder; every token is attended to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.embeddings, self.encoder = model.embeddings, model.encoder

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(1, tokens) → (1, tokens, width)."""
        found: torch.Tensor = self.encoder(self.embeddings(tokens)).last_hidden_state
        return found
