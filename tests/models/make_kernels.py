"""Makes the files whose kernels are compared with those of their programs: python make_kernels.py FOLDER.

picture: convolutions of every kind, squeeze and excite, hard-swish, a residual, pools and a concatenation;
encoder: a transformer's block; each as .pt2, .pte and .tflite, picture also with weights of 8 bits and in int8.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


def block(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish())
        self.deep = block(16, 16, 3, 1, 16)
        self.gate = nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Hardsigmoid())
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=2)
        self.narrow = block(32, 16, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.head = nn.Linear(24, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        y = self.deep(x)
        y = x + y * self.gate(y.mean((2, 3), keepdim=True))
        y = self.narrow(torch.relu(self.grouped(y)))
        up = self.up(functional.max_pool2d(y, 2))
        joined = torch.cat([y, up], 1)
        return torch.softmax(self.head(functional.adaptive_avg_pool2d(joined, 1).flatten(1)), -1)


class Encoder(nn.Module):
    def __init__(self, width: int = 64, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens, width = x.shape[1], x.shape[2]
        q, k, v = (part(x).view(1, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = self.norm(x + self.out(y.transpose(1, 2).reshape(1, tokens, width)))
        return x + self.down(functional.gelu(self.up(x)))


def main(folder: Path) -> None:
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from edgeopt.converters.rewrites import rewrite_program

    torch.manual_seed(0)
    models = {
        "picture": (Picture().eval(), (torch.randn(1, 3, 64, 64),)),
        "encoder": (Encoder().eval(), (torch.randn(1, 24, 64),)),
    }
    for name, (model, inputs) in models.items():
        exported = torch.export.export(model, inputs)
        torch.export.save(exported, folder / f"{name}.pt2")
        # As the converter does: both sides are compared in the forms that it gives the exporters.
        written, _ = rewrite_program(exported, "pte")
        lowered = to_edge_transform_and_lower(written, partitioner=[XnnpackPartitioner()])
        (folder / f"{name}.pte").write_bytes(lowered.to_executorch().buffer)
        plain = folder / f"{name}.tflite"
        litert_torch.convert(model, inputs).export(str(plain))
        for kind, make in (("dynamic", recipe.dynamic_wi8_afp32), ("weights", recipe.weight_only_wi8_afp32)):
            made = quantizer.Quantizer(str(plain), make()).quantize()
            (folder / f"{name}.{kind}.tflite").write_bytes(made.quantized_model)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
