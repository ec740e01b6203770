"""Products with constants as linear layers: the same numbers, and weights that int8 and delegates reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import edgeopt
from edgeopt.converters.kernels import file_kernels
from edgeopt.converters.linear_forms import linear_from_products

_ATEN = torch.ops.aten


class _Multiplies(nn.Module):
    """A product of its input with a parameter, a buffer or neither."""

    def __init__(self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6))
        self.heads = nn.Parameter(torch.randn(8, 2, 3))
        self.left = nn.Parameter(torch.randn(5, 4))
        self.bias = nn.Parameter(torch.randn(6))
        self.register_buffer("waves", torch.randn(8, 6))
        self._function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._function(self, x)


def _rewritten(
    model: nn.Module, parameters_only: bool, **dynamic: object
) -> tuple[torch.export.ExportedProgram, torch.Tensor, set[str]]:
    torch.manual_seed(0)
    example = torch.randn(2, 4, 8)
    program = torch.export.export(model.eval(), (example,), **dynamic)  # type: ignore[arg-type]
    written = linear_from_products(program, parameters_only=parameters_only)
    return written, example, {str(node.target) for node in written.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x @ m.weight,
        lambda m, x: torch.mm(x[0], m.weight),
        lambda m, x: x @ m.weight.t().reshape(6, 8).transpose(0, 1),
        lambda m, x: torch.addmm(m.bias, x.reshape(-1, 8), m.weight),
        lambda m, x: torch.addmm(x[0, 0, :6], x.reshape(-1, 8), m.weight),
        lambda m, x: m.left @ x,
        lambda m, x: torch.einsum("bnd,dhk->bhnk", x, m.heads),
        lambda m, x: torch.einsum("nm, bmd -> bdn", m.left, x),
        lambda m, x: torch.einsum("bnk,dhk->bnhd", x[..., :3], m.heads),
    ],
)
def test_a_product_with_a_parameter_is_a_linear_layer(
    function: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    model = _Multiplies(function)
    written, example, ops = _rewritten(model, True)
    assert "aten.linear.default" in ops
    assert not ops & {"aten.matmul.default", "aten.mm.default", "aten.addmm.default", "aten.einsum.default"}
    torch.testing.assert_close(written.module()(example), model(example))
    # Still a parameter, and the one that it was made of is not kept beside it.
    parameters = dict(written.named_parameters())
    kept = {"weight", "heads", "left", "bias", "weight_0", "heads_0"}
    assert set(parameters) <= kept and len({name.removesuffix("_0") for name in parameters}) == len(
        parameters
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x @ x.transpose(1, 2),
        lambda m, x: x @ m.weight[:, 0],
        lambda m, x: torch.einsum("bnd,bmd->bnm", x, x),
        lambda m, x: torch.einsum("bnd,dhk->bnd", x, m.heads),
        lambda m, x: torch.einsum("bnd,dh->bndh", x, m.weight),
        lambda m, x: torch.addmm(m.bias, x.reshape(-1, 8), m.weight, alpha=2),
    ],
)
def test_other_products_stay(function: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
    _, _, ops = _rewritten(_Multiplies(function), False)
    assert "aten.linear.default" not in ops


def test_constants_that_are_no_parameters_wait_until_after_quantising() -> None:
    model = _Multiplies(lambda m, x: x @ m.waves)
    assert "aten.matmul.default" in _rewritten(model, True)[2]
    written, example, ops = _rewritten(model, False)
    assert "aten.linear.default" in ops
    torch.testing.assert_close(written.module()(example), model(example))


def test_a_table_that_is_used_twice_is_stored_once_and_a_batch_stays_free() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(ids) @ self.table.weight.t()

    model, ids = Tied().eval(), torch.randint(0, 20, (2, 4))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (ids,), dynamic_shapes=({0: batch},))
    written = linear_from_products(program, parameters_only=True)
    assert _ATEN.linear.default in {node.target for node in written.graph.nodes}
    assert list(dict(written.named_parameters())) == ["table.weight"]
    more = torch.randint(0, 20, (7, 4))
    torch.testing.assert_close(written.module()(more), model(more))


class _Gpt2Layer(nn.Module):
    """What GPT-2 has instead of linear layers, and a spectrum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(64, 96) / 8), nn.Parameter(torch.randn(96))
        self.leave = nn.Parameter(torch.randn(96, 64) / 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.addmm(self.bias, x.view(-1, 64), self.weight)
        y = (nn.functional.gelu(hidden) @ self.leave).view_as(x)
        return torch.fft.irfft(torch.fft.rfft(y), n=64)


@pytest.mark.slow
def test_such_layers_are_delegated_and_quantised(tmp_path: Path) -> None:
    """ExecuTorch left the products of a Fourier transform outside XNNPACK, and int8 left the layers in float."""
    torch.manual_seed(0)
    example = torch.randn(1, 8, 64)
    bundle = edgeopt.export(
        _Gpt2Layer().eval(), profile="pixel7", precision="fp32,int8-static,int8-dynamic", formats="pte",
        example_inputs=(example,), calibration=[(example,)], output=tmp_path / "b",
    )  # fmt: skip
    assert len(bundle.artifacts) == 3
    for artifact in bundle.artifacts:
        kernels = file_kernels(tmp_path / "b" / artifact.file)
        products = [kernel for kernel in kernels if kernel.macs]
        assert len(products) == 6 and all(kernel.delegate for kernel in kernels), artifact.file
        in_int8 = [kernel.precision for kernel in products].count("int8")
        assert in_int8 == (0 if artifact.precision == "fp32" else 2), artifact.file
        assert artifact.parity[0]["snr_db"] > (100 if artifact.precision == "fp32" else 30)
