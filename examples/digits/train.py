"""Trains the demo model again: ``python -m examples.digits.train`` (about a minute on two cores)."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import nn

from . import TRAIN_COUNT, WEIGHTS, DigitsMobileNet, images

EPOCHS = 40
BATCH = 64


def shifted(batch: torch.Tensor) -> torch.Tensor:
    """The images moved by up to two pixels of the original each way, the same for a whole batch."""
    down, right = (int(v) for v in torch.randint(-6, 7, (2,)))
    return torch.roll(batch, (down, right), dims=(2, 3))


def main() -> None:
    """Train, report accuracy on the held-out images, save the weights."""
    torch.manual_seed(0)
    pixels, digits = images()
    model = DigitsMobileNet()
    steps = EPOCHS * -(-TRAIN_COUNT // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for epoch in range(EPOCHS):
        model.train()
        for rows in torch.randperm(TRAIN_COUNT).split(BATCH):
            loss = nn.functional.cross_entropy(
                model(shifted(pixels[rows])), digits[rows], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            model.eval()
            with torch.no_grad():
                right = model(pixels[TRAIN_COUNT:]).argmax(1) == digits[TRAIN_COUNT:]
            print(f"epoch {epoch + 1}: held-out accuracy {right.float().mean():.4f}")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    main()
