"""Makes the small files that the runtime and measurement tests run: python make_runnable.py FOLDER.

cnn: a float CNN of about 1 ms; slower: the same with about a tenth more work; two: two inputs (one of them
integers) and two outputs. Each as .pte and .tflite; cnn also as an exported program (.pt2).
"""

import sys
from pathlib import Path

import torch
from torch import nn


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = []
        for wide, narrow, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
            layers += [nn.Conv2d(wide, narrow, 3, stride, 1), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean((2, 3)))


class Slower(nn.Module):
    def __init__(self, inner: Cnn) -> None:
        super().__init__()
        self.inner = inner
        self.extra = nn.Conv2d(64, 128, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.inner.features(image)
        extra = self.extra(features)[:, :1, 0, 0]
        return self.inner.head(features.mean((2, 3))) + 1e-6 * extra


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.linear = nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(self.table(ids)) * scale, ids.float().sum(1)


def main(folder: Path) -> None:
    import litert_torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.manual_seed(0)
    cnn, image = Cnn().eval(), (torch.randn(1, 3, 112, 112),)
    models = {
        "cnn": (cnn, image),
        "slower": (Slower(cnn).eval(), image),
        "two": (Two().eval(), (torch.randint(0, 50, (1, 6)), torch.ones(1, 6, 4))),
    }
    for name, (model, inputs) in models.items():
        exported = torch.export.export(model, inputs)
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        (folder / f"{name}.pte").write_bytes(lowered.to_executorch().buffer)
        litert_torch.convert(model, inputs).export(str(folder / f"{name}.tflite"))
    torch.export.save(torch.export.export(cnn, image), folder / "cnn.pt2")
    image_out = cnn(image[0])
    ids, scale = models["two"][1]
    first, second = models["two"][0](ids, scale)
    import numpy as np

    arrays = {
        "image": image[0],
        "image_out": image_out,
        "ids": ids,
        "scale": scale,
        "first": first,
        "second": second,
    }
    np.savez(folder / "expected.npz", **{key: value.detach().numpy() for key, value in arrays.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
