"""Makes recorded.pte and recorded.etrecord beside it: python make_etrecord.py FOLDER."""

import sys
from pathlib import Path

import torch
from torch import nn


class Recorded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.second(torch.relu(self.first(image))).mean((2, 3))
        sums = features.cumsum(1)  # no XNNPACK op
        return self.head(sums)


def main(folder: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(Recorded().eval(), (torch.randn(1, 3, 16, 16),))
    lowered = to_edge_transform_and_lower(
        exported, partitioner=[XnnpackPartitioner()], generate_etrecord=True
    )
    program = lowered.to_executorch()
    (folder / "recorded.pte").write_bytes(program.buffer)
    program.get_etrecord().save(str(folder / "recorded.etrecord"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
