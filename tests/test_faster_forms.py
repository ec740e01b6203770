"""Forms that are only faster: the same numbers, and kernels that the delegate has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import edgeopt
from edgeopt.converters.kernels import file_kernels
from edgeopt.converters.rewrites import rewrite_program
from edgeopt.models.kernels import program_kernels


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(3, 13), st.integers(1, 13)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    size=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    bias=st.booleans(),
)
def test_a_large_depthwise_convolution_is_the_sum_of_its_parts(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    bias: bool,
) -> None:
    assume(kernel[0] * kernel[1] > 25)
    assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, kernel, stride, padding, groups=3, bias=bias).eval()
    example = torch.randn(2, 3, *size)
    program = torch.export.export(layer, (example,))
    written, notes = rewrite_program(program, "tflite")
    convolutions = [n for n in written.graph.nodes if n.target is torch.ops.aten.conv2d.default]
    assert all(n.args[1].meta["val"].shape[2:].numel() <= 25 for n in convolutions) and not notes
    # A part may be padded by more than it needs, never so that a row of zeros is all it sees.
    assert len(convolutions) == -(-kernel[0] // (25 // kernel[1]))
    torch.testing.assert_close(written.module()(example), layer(example), rtol=1e-4, atol=1e-5)


class _Block(nn.Module):
    """What MobileNetV3 and ConvNeXt have between their convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Hardswish())
        self.wide = nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.leave = nn.Sequential(nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.deep(self.enter(x))
        return self.leave(x + self.wide(x))


@pytest.mark.slow
def test_an_int8_file_is_delegated_as_a_whole(tmp_path: Path) -> None:
    """LiteRT has its own, slow int8 kernels of hard-swish and GELU; XNNPACK has none for 7×7 depthwise filters."""
    torch.manual_seed(0)
    module, example = _Block().eval(), torch.randn(1, 3, 48, 48)
    bundle = edgeopt.export(
        module, profile="pixel7", precision="int8-static,fp32", example_inputs=(example,),
        calibration=[(example,)], output=tmp_path / "b",
    )  # fmt: skip
    assert len(bundle.artifacts) == 4
    signals = {}
    for artifact in bundle.artifacts:
        kernels = file_kernels(tmp_path / "b" / artifact.file)
        assert all(kernel.delegate for kernel in kernels), artifact.file
        assert max(k.macs for k in kernels if k.kind == "depthwise") <= 16 * 24 * 24 * 25, artifact.file
        signals[artifact.file] = artifact.parity[0]["snr_db"]
    assert signals["model.pte"] == pytest.approx(signals["model.tflite"], abs=0.5)
    assert min(signals.values()) > 25
    parts = [k for k in program_kernels(torch.export.export(module, (example,))) if k.kind == "depthwise"]
    assert len(parts) == 4


class _Borders(nn.Module):
    """Convolutions behind borders of each kind and several widths, as networks that draw have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 9, padding=4, padding_mode="reflect")
        self.second = nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate")
        self.third = nn.Conv2d(8, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).relu())
        x = nn.functional.pad(x, (2, 0, 0, 1), mode="reflect")
        return self.third(nn.functional.pad(x, (0, 3, 2, 1), mode="replicate"))


def test_borders_are_computed_in_the_delegate(tmp_path: Path) -> None:
    """ExecuTorch picks each pixel by computed positions, on its own kernels, between two turns of the image."""
    torch.manual_seed(0)
    samples = [torch.randn(1, 3, 20, 24) for _ in range(4)]
    bundle = edgeopt.export(
        _Borders().eval(), profile="pixel7", precision="fp32,int8-static,int8-dynamic", formats="pte",
        example_inputs=samples[0], calibration=samples, output=tmp_path / "b",
    )  # fmt: skip
    assert [artifact.status for artifact in bundle.artifacts] == ["verified"] * 3
    for artifact in bundle.artifacts:
        kernels = file_kernels(tmp_path / "b" / artifact.file)
        assert all(kernel.delegate for kernel in kernels), artifact.file
        assert artifact.parity[0]["snr_db"] > (100 if artifact.precision == "fp32" else 25)


class _Neighbours(nn.Module):
    """What a point's neighbours say most strongly, as networks on clouds of points and graphs take it; where an image's
    channels are strongest, as attention over space does."""

    def __init__(self) -> None:
        super().__init__()
        self.edge, self.place, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(1, 1, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.edge(x)
        y = y * self.place(y.max(dim=1, keepdim=True)[0]).sigmoid()
        both = y.max(dim=-1)[0] + y.max(dim=3, keepdim=True)[0].squeeze(3)
        return self.out(both.transpose(1, 2))


def test_the_largest_along_an_axis_leaves_a_model_in_the_delegate(tmp_path: Path) -> None:
    """ExecuTorch broke off over it: float32 ran on portable kernels as a whole, other precisions were not made."""
    torch.manual_seed(0)
    samples = [torch.randn(1, 3, 16, 6) for _ in range(4)]
    bundle = edgeopt.export(
        _Neighbours().eval(), profile="pixel7", precision="fp32,fp16,int8-static,int8-dynamic", formats="pte",
        example_inputs=samples[0], calibration=samples, output=tmp_path / "b",
    )  # fmt: skip
    assert [artifact.status for artifact in bundle.artifacts] == ["verified"] * 4
    for artifact in bundle.artifacts:
        assert artifact.contents["delegated_macs_ratio"] == 1.0
        assert artifact.parity[0]["snr_db"] > (100 if artifact.precision == "fp32" else 25)


class _SingleHead(nn.Module):
    """Attention with one head: neither product has a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.both = nn.Linear(16, 16), nn.Linear(16, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key, value = self.both(x[:, ::4]).unsqueeze(1).chunk(2, -1)
        return nn.functional.scaled_dot_product_attention(self.query(x).unsqueeze(1), key, value)


@pytest.mark.slow
def test_products_of_a_single_head_are_delegated(tmp_path: Path) -> None:
    """LiteRT's converter makes fully connected layers with computed weights of them, which XNNPACK refuses."""
    torch.manual_seed(0)
    example = torch.randn(1, 96, 16)
    bundle = edgeopt.export(
        _SingleHead().eval(), profile="pixel7", precision="fp32,int8-dynamic", formats="tflite",
        example_inputs=(example,), output=tmp_path / "b",
    )  # fmt: skip
    assert len(bundle.artifacts) == 2
    for artifact in bundle.artifacts:
        kernels = file_kernels(tmp_path / "b" / artifact.file)
        assert sum(kernel.kind == "matmul" for kernel in kernels) == 2, artifact.file
        assert all(kernel.delegate for kernel in kernels), artifact.file
        assert artifact.parity[0]["snr_db"] > (100 if artifact.precision == "fp32" else 30)


class _Attention(nn.Module):
    """Attention whose queries, keys and values are parts of what one layer gives."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part, self.all, self.leave = part, nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, _ = x.shape
        both = self.all(x) + 0.5
        if self.part in ("chunk", "split"):
            parts = both.chunk(3, -1) if self.part == "chunk" else both.split([32, 32, 32], -1)
            q, k, v = (each.view(batch, steps, 4, 8).transpose(1, 2) for each in parts)
        else:
            heads = both.view(batch, steps, 3, 4, 8).permute(2, 0, 3, 1, 4)
            q, k, v = heads.unbind(0) if self.part == "unbind" else (heads[0], heads[1], heads[2])
        weights = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1)
        return self.leave((weights @ v).transpose(1, 2).reshape(batch, steps, 32))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["chunk", "split", "unbind", "index"])
def test_keys_that_are_a_part_of_a_layers_result_are_multiplied_by_xnnpack(part: str, tmp_path: Path) -> None:
    """XNNPACK multiplies int8 matrices only where the second one has zero point 0."""
    torch.manual_seed(0)
    samples = [torch.randn(1, 24, 32) for _ in range(4)]
    bundle = edgeopt.export(
        _Attention(part).eval(), profile="pixel7", precision="int8-static", formats="tflite",
        example_inputs=(samples[0],), calibration=[(each,) for each in samples], output=tmp_path / "b",
    )  # fmt: skip
    (artifact,) = bundle.artifacts
    kernels = file_kernels(tmp_path / "b" / artifact.file)
    assert sum(kernel.kind == "matmul" for kernel in kernels) == 2
    assert not [kernel.name for kernel in kernels if not kernel.delegate]
    assert artifact.parity[0]["snr_db"] > 25


class _Halves(nn.Module):
    """Half of the channels is convolved, as in ShuffleNet and in YOLO's C2f blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.middle = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.leave = nn.Conv2d(16, 24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.relu(self.enter(x)).chunk(2, 1)
        a, b, c = self.leave(torch.cat([left, torch.relu(self.middle(right))], 1)).split([4, 12, 8], dim=1)
        return a.mean((1, 2, 3)) + b.amax((1, 2, 3)) * c.mean((1, 2, 3))


@pytest.mark.slow
def test_splits_are_delegated(tmp_path: Path) -> None:
    """ExecuTorch computed them outside of the delegate, between two transposes, and in float32 in int8 files."""
    torch.manual_seed(0)
    example = torch.randn(1, 3, 32, 32)
    bundle = edgeopt.export(
        _Halves().eval(), profile="pixel7", precision="fp32,int8-static,int8-dynamic", example_inputs=(example,),
        calibration=[(example,)], output=tmp_path / "b",
    )  # fmt: skip
    assert len(bundle.artifacts) == 6
    for artifact in bundle.artifacts:
        kernels = file_kernels(tmp_path / "b" / artifact.file)
        assert not [kernel.op for kernel in kernels if "split" in kernel.op], artifact.file
        slices = [kernel for kernel in kernels if "slice" in kernel.op.lower()]
        assert len(slices) == 5 and all(kernel.delegate for kernel in slices), artifact.file
        if artifact.precision == "int8-static":
            assert {kernel.precision for kernel in slices} == {"int8"}, artifact.file
