"""Makes the small files that the emulator tests run: python make_emulated.py FOLDER.

cnn: strided, depthwise and pointwise convolutions and a linear layer, in every precision; encoder: one
transformer layer; keyword: one-dimensional convolutions. exact: one pointwise convolution whose shape fits
every kernel tile, so that executed multiply-accumulates equal the formula. unet_fp16: float16 inside, float32
outside, as edgeopt export makes it. golden.npz holds each model's
input and outputs.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU(),
            nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean((2, 3), keepdim=True).flatten(1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        self.ffn = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 32**0.5, dim=-1)
        x = x + self.out(weights @ v)
        return x + self.ffn(self.norm(x))


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(8, 16, 5, 2, 2), nn.ReLU(), nn.Conv1d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * 10, 4),
        )  # fmt: skip

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.layers(sound)


class HalfUnet(nn.Module):
    """One level down and up again, computed in float16 between a float32 input and a float32 output."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.leave = nn.Conv2d(32, 4, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.enter(image.to(self.enter.weight.dtype)))
        coarse = torch.relu(self.down(fine))
        return self.leave(torch.cat([fine, self.up(coarse)], 1)).softmax(1).float()


def main(folder: Path) -> None:
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    golden: dict[str, np.ndarray] = {}

    def pte(model: nn.Module, args: tuple, name: str) -> None:
        program = to_edge_transform_and_lower(
            torch.export.export(model, args), partitioner=[XnnpackPartitioner()]
        )
        (folder / f"{name}.pte").write_bytes(program.to_executorch().buffer)

    def static_int8(model: nn.Module, args: tuple, name: str) -> None:
        config = get_symmetric_quantization_config(is_per_channel=True)
        prepared = prepare_pt2e(
            torch.export.export(model, args).module(), XNNPACKQuantizer().set_global(config)
        )
        for _ in range(4):
            prepared(*(torch.randn_like(arg) for arg in args))
        prepared(*args)
        converted = convert_pt2e(prepared)
        golden[f"{name}_int8/output"] = converted(*args).detach().numpy()
        pte(converted, args, f"{name}_int8")

    def tflite(model: nn.Module, args: tuple, name: str) -> None:
        litert_torch.convert(model, args).export(str(folder / f"{name}.tflite"))
        if name == "cnn":
            dynamic = quantizer.Quantizer(str(folder / f"{name}.tflite"))
            dynamic.load_quantization_recipe(recipe.dynamic_wi8_afp32())
            dynamic.quantize().export_model(str(folder / f"{name}_dynamic.tflite"), overwrite=True)

    torch.manual_seed(0)
    models = {
        "cnn": (Cnn(), torch.randn(1, 3, 32, 32)),
        "encoder": (Encoder(), torch.randn(1, 12, 32)),
        "keyword": (Keyword(), torch.randn(1, 8, 40)),
        "exact": (nn.Conv2d(16, 32, 1), torch.randn(1, 16, 24, 24)),
    }
    for name, (model, arg) in models.items():
        model.eval()
        golden[f"{name}/input"] = arg.numpy()
        golden[f"{name}/output"] = model(arg).detach().numpy()
        pte(model, (arg,), name)
        if name in ("cnn", "keyword"):
            static_int8(model, (arg,), name)
        if name in ("cnn", "encoder"):
            tflite(model, (arg,), name)
    half = models["cnn"][0].half()
    pte(half, (models["cnn"][1].half(),), "cnn_fp16")
    unet, image = HalfUnet().eval(), torch.randn(1, 3, 32, 32)
    golden["unet_fp16/input"] = image.numpy()
    golden["unet_fp16/output"] = unet(image).detach().numpy()
    pte(unet.half(), (image,), "unet_fp16")
    np.savez(folder / "golden.npz", **golden)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
