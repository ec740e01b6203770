"""Complex numbers as pairs of real tensors, because neither file format has complex arithmetic.

Each complex node becomes two real ones. Fourier transforms become products with the matrices of the
discrete Fourier transform, and a short-time transform becomes a convolution with windowed sines and cosines.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.nn import functional

from ..models.nodes import state_names
from .rewriting import add_constant, insert

_ATEN = torch.ops.aten
Pair = tuple[torch.Tensor, torch.Tensor]
# Beyond this the matrices of a transform outweigh most models (2 × 2048 × 1025 × 4 bytes = 17 MB).
MAX_TRANSFORM = 2048


class NoPairForm(Exception):
    """A complex operator without a real form here; ``node`` is the one."""

    def __init__(self, node: torch.fx.Node) -> None:
        super().__init__(str(node.target))
        self.node = node


def is_complex(node: torch.fx.Node) -> bool:
    """Whether a node's value is a complex tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype.is_complex


def split_complex(program: ExportedProgram) -> list[torch.fx.Node]:
    """Rewrite every complex node of ``program`` in place.

    Returns:
        The nodes at which complex numbers came into being, as they were.

    Raises:
        NoPairForm: a complex operator that has no form here; the program is spoilt then.
    """
    pairs: dict[torch.fx.Node, tuple[torch.fx.Node, torch.fx.Node]] = {}
    origins: list[torch.fx.Node] = []
    replaced: list[torch.fx.Node] = []
    for node in list(program.graph_module.graph.nodes):
        touches = any(source in pairs for source in node.all_input_nodes)
        if not is_complex(node) and not touches:
            continue
        if node.op == "placeholder":
            pairs[node] = _split_constant(program, node)
            replaced.append(node)
            continue
        if node.op != "call_function" or node.target is operator.getitem:
            raise NoPairForm(node)
        if not touches:
            origins.append(node)
        results = _split_node(program, node, pairs)
        if is_complex(node):
            pairs[node] = (results[0], results[1])
        else:
            node.replace_all_uses_with(results[0])
            for spec in program.graph_signature.output_specs:
                if getattr(spec.arg, "name", None) == node.name:
                    spec.arg.name = results[0].name  # type: ignore[union-attr]
        replaced.append(node)
    for node in reversed(replaced):
        if node.op != "placeholder":
            program.graph_module.graph.erase_node(node)
    _drop_placeholders(program, [node for node in replaced if node.op == "placeholder"])
    return origins


def _split_constant(program: ExportedProgram, node: torch.fx.Node) -> tuple[torch.fx.Node, torch.fx.Node]:
    names = state_names(program) | program.graph_signature.inputs_to_lifted_tensor_constants
    name = names.get(node.name)
    tensor = program.state_dict.get(name, program.constants.get(name)) if name else None
    if tensor is None:
        raise NoPairForm(node)  # The user's own input.
    tensor = tensor.detach()
    return add_constant(program, tensor.real.contiguous()), add_constant(program, tensor.imag.contiguous())


def _drop_placeholders(program: ExportedProgram, nodes: list[torch.fx.Node]) -> None:
    names = {node.name for node in nodes}
    specs = program.graph_signature.input_specs
    for spec in [s for s in specs if getattr(s.arg, "name", None) in names]:
        program._state_dict.pop(str(spec.target), None)
        program._constants.pop(str(spec.target), None)
        specs.remove(spec)
    for node in nodes:
        program.graph_module.graph.erase_node(node)


def _split_node(
    program: ExportedProgram,
    node: torch.fx.Node,
    pairs: dict[torch.fx.Node, tuple[torch.fx.Node, torch.fx.Node]],
) -> list[torch.fx.Node]:
    """Add the real operators of one complex node: two results when its value is complex, else one."""
    form = _FORMS.get(node.target)
    if form is None:
        raise NoPairForm(node)
    inputs: list[torch.fx.Node] = []
    for source in node.all_input_nodes:
        inputs += pairs.get(source, (source,))

    def real_form(*tensors: torch.Tensor) -> Any:
        values = iter(tensors)
        known = {
            source: (next(values), next(values)) if source in pairs else next(values)
            for source in node.all_input_nodes
        }
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: known[n])
        return form(node, *args, **kwargs)

    try:
        results = insert(program, node, real_form, inputs)
    except (NotImplementedError, TypeError) as error:
        raise NoPairForm(node) from error
    if len(results) != (2 if is_complex(node) else 1):
        raise NoPairForm(node)
    return results


def _pair(value: Any) -> Pair:
    """``value`` as a pair; a real tensor or number has no imaginary part."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, complex):
        return torch.full((), value.real), torch.full((), value.imag)
    tensor = value if isinstance(value, torch.Tensor) else torch.full((), float(value))
    return tensor, torch.zeros_like(tensor)


def _multiply(node: Any, a: Any, b: Any) -> Pair:
    if not isinstance(a, tuple) and not isinstance(a, complex):
        a, b = b, a
    (re, im) = _pair(a)
    if not isinstance(b, tuple | complex):
        return re * b, im * b
    other_re, other_im = _pair(b)
    return re * other_re - im * other_im, re * other_im + im * other_re


def _divide(node: Any, a: Any, b: Any) -> Pair:
    re, im = _pair(a)
    if not isinstance(b, tuple | complex):
        return re / b, im / b
    other_re, other_im = _pair(b)
    scale = other_re * other_re + other_im * other_im
    return (re * other_re + im * other_im) / scale, (im * other_re - re * other_im) / scale


def _matrix_product(node: Any, a: Any, b: Any) -> Pair:
    (re, im), (other_re, other_im) = _pair(a), _pair(b)
    return re @ other_re - im @ other_im, re @ other_im + im @ other_re


def _einsum(node: Any, equation: str, operands: Sequence[Pair], path: Any = None) -> Pair:
    if len(operands) != 2:
        raise NoPairForm(node)
    product = functools.partial(torch.einsum, equation)
    (re, im), (other_re, other_im) = operands
    return product(re, other_re) - product(im, other_im), product(re, other_im) + product(im, other_re)


def _zeros(node: Any, size: Sequence[int], **kwargs: Any) -> Pair:
    return torch.zeros(size), torch.zeros(size)


def _copy_into(node: Any, place: Pair, value: Any, non_blocking: bool = False) -> Pair:
    re, im = _pair(value)
    return place[0].copy_(re), place[1].copy_(im)


def _on_both(apply: Callable[..., torch.Tensor]) -> Callable[..., Pair]:
    """The form of an operator that treats both parts alike, such as a slice."""

    def form(node: Any, value: Any, *args: Any, **kwargs: Any) -> Pair:
        re, im = value
        return apply(re, *args, **kwargs), apply(im, *args, **kwargs)

    return form


def _on_lists(apply: Callable[..., torch.Tensor]) -> Callable[..., Pair]:
    def form(node: Any, values: Any, *args: Any, **kwargs: Any) -> Pair:
        parts = [_pair(value) for value in values]
        return apply([p[0] for p in parts], *args, **kwargs), apply([p[1] for p in parts], *args, **kwargs)

    return form


def _together(apply: Callable[..., torch.Tensor]) -> Callable[..., Pair]:
    """The form of addition and subtraction."""

    def form(node: Any, a: Any, b: Any, **kwargs: Any) -> Pair:
        (re, im), (other_re, other_im) = _pair(a), _pair(b)
        return apply(re, other_re, **kwargs), apply(im, other_im, **kwargs)

    return form


def _absolute(node: Any, value: Pair) -> torch.Tensor:
    return torch.sqrt(value[0] * value[0] + value[1] * value[1])


def _polar(node: Any, length: torch.Tensor, angle: torch.Tensor) -> Pair:
    return length * torch.cos(angle), length * torch.sin(angle)


def _wave(size: int, count: int, node: torch.fx.Node) -> Pair:
    """cos and −sin of 2π·k·t/size: [size, count], in float64 until the end."""
    if size > MAX_TRANSFORM:
        raise NoPairForm(node)
    turns = torch.arange(size)[:, None] * torch.arange(count)[None, :] % size
    angle = turns.double() * (2 * torch.pi / size)
    return torch.cos(angle).float(), (-torch.sin(angle)).float()


def _scale(size: int, norm: str | None, *, inverse: bool) -> float:
    if norm == "ortho":
        return size**-0.5
    return 1.0 / size if (norm or "backward") == ("backward" if inverse else "forward") else 1.0


def _fourier(*, real: bool, inverse: bool) -> Callable[..., Pair]:
    def form(node: Any, value: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Pair:
        re, im = _pair(value)
        re, im = (_resize(part.transpose(dim, -1), n) for part in (re, im))
        size = re.shape[-1]
        cos, sin = _wave(size, size // 2 + 1 if real else size, node)
        scale = _scale(size, norm, inverse=inverse)
        cos, sin = cos * scale, sin * (-scale if inverse else scale)
        if not isinstance(value, tuple):
            found = (re @ cos, re @ sin)
        else:
            found = (re @ cos - im @ sin, re @ sin + im @ cos)
        return found[0].transpose(dim, -1), found[1].transpose(dim, -1)

    return form


def _over_axes(
    each: Callable[..., Any],
    *,
    first: Callable[..., Any] | None = None,
    last: Callable[..., Any] | None = None,
    default: Sequence[int] | None = None,
) -> Callable[..., Any]:
    """A transform over several axes, one after the other: of real values the last axis goes first and is halved
    (``first``), and back to them it comes last (``last``)."""

    def form(
        node: Any,
        value: Any,
        s: Sequence[int] | None = None,
        dim: Sequence[int] | None = default,
        norm: str | None = None,
    ) -> Any:
        rank = _pair(value)[0].ndim
        axes = list(range(rank - len(s), rank) if s else range(rank)) if dim is None else list(dim)
        # A size of -1 is the axis's own.
        sizes = [None if size == -1 else size for size in s] if s else [None] * len(axes)
        *others, end = zip(sizes, axes, strict=True)
        if first is not None:
            value = first(node, value, *end, norm)
        for size, axis in others if first or last else [*others, end]:
            value = each(node, value, size, axis, norm)
        return value if last is None else last(node, value, *end, norm)

    return form


def _inverse_real(
    node: Any, value: Pair, n: int | None = None, dim: int = -1, norm: str | None = None
) -> torch.Tensor:
    re, im = (part.transpose(dim, -1) for part in value)
    size = n or 2 * (re.shape[-1] - 1)
    bins = size // 2 + 1
    re, im = _resize(re, bins), _resize(im, bins)
    cos, sin = _wave(size, bins, node)
    # The other half of the spectrum mirrors this one: every bin but the first and, for an even size, the last
    # counts twice.
    once = torch.ones(1, 1)
    twice = torch.full((bins - (2 if size % 2 == 0 else 1), 1), 2.0)
    weight = torch.cat([once, twice, once] if size % 2 == 0 else [once, twice])
    weight = weight * _scale(size, norm, inverse=True)
    found = re @ (cos.T * weight) + im @ (sin.T * weight)
    return found.transpose(dim, -1)


def _resize(tensor: torch.Tensor, size: int | None) -> torch.Tensor:
    if size is None or size == tensor.shape[-1]:
        return tensor
    if size < tensor.shape[-1]:
        return tensor.narrow(-1, 0, size)
    return functional.pad(tensor, (0, size - tensor.shape[-1]))


def _short_time(
    node: Any,
    signal: torch.Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: torch.Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    *unused: Any,
) -> Pair:
    """[batch, time] → [batch, bins, frames]: one filter a bin, windowed cosines and sines."""
    if isinstance(signal, tuple) or unused or onesided is False:
        raise NoPairForm(node)
    cos, sin = _wave(n_fft, n_fft // 2 + 1, node)
    scale = n_fft**-0.5 if normalized else 1.0
    filters = torch.cat([cos, sin], dim=1).T * scale
    if window is not None:
        width = win_length or n_fft
        left = (n_fft - width) // 2
        filters = filters * functional.pad(window, (left, n_fft - width - left))
    batched = signal if signal.ndim == 2 else signal[None]
    found = functional.conv1d(batched[:, None], filters[:, None], stride=hop_length or n_fft // 4)
    found = found if signal.ndim == 2 else found[0]
    re, im = found.split(n_fft // 2 + 1, dim=-2)
    return re, im


_OF_REAL = _fourier(real=True, inverse=False)
_FORWARD = _fourier(real=False, inverse=False)
_INVERSE = _fourier(real=False, inverse=True)

_FORMS: dict[Any, Callable[..., Any]] = {
    _ATEN.view_as_complex.default: lambda node, x: (x[..., 0], x[..., 1]),
    _ATEN.view_as_real.default: lambda node, z: torch.stack(z, -1),
    _ATEN.complex.default: lambda node, re, im: (re.clone(), im.clone()),
    _ATEN.polar.default: _polar,
    _ATEN.real.default: lambda node, z: z[0].clone(),
    _ATEN.imag.default: lambda node, z: z[1].clone(),
    _ATEN.abs.default: _absolute,
    _ATEN.angle.default: lambda node, z: torch.atan2(z[1], z[0]),
    _ATEN.conj.default: lambda node, z: (z[0].clone(), -z[1]),
    _ATEN._conj.default: lambda node, z: (z[0].clone(), -z[1]),
    _ATEN.conj_physical.default: lambda node, z: (z[0].clone(), -z[1]),
    _ATEN.neg.default: _on_both(torch.neg),
    _ATEN.mul.Tensor: _multiply,
    _ATEN.div.Tensor: _divide,
    _ATEN.add.Tensor: _together(torch.add),
    _ATEN.sub.Tensor: _together(torch.sub),
    _ATEN.matmul.default: _matrix_product,
    _ATEN.mm.default: _matrix_product,
    _ATEN.bmm.default: _matrix_product,
    _ATEN.einsum.default: _einsum,
    _ATEN.zeros.default: _zeros,
    _ATEN.zeros_like.default: lambda node, z, **kwargs: (torch.zeros_like(z[0]), torch.zeros_like(z[1])),
    _ATEN.copy_.default: _copy_into,
    _ATEN.fft_rfft.default: _OF_REAL,
    _ATEN.fft_fft.default: _FORWARD,
    _ATEN.fft_ifft.default: _INVERSE,
    _ATEN.fft_irfft.default: _inverse_real,
    _ATEN.fft_rfft2.default: _over_axes(_FORWARD, first=_OF_REAL, default=(-2, -1)),
    _ATEN.fft_fft2.default: _over_axes(_FORWARD, default=(-2, -1)),
    _ATEN.fft_ifft2.default: _over_axes(_INVERSE, default=(-2, -1)),
    _ATEN.fft_irfft2.default: _over_axes(_INVERSE, last=_inverse_real, default=(-2, -1)),
    _ATEN.fft_rfftn.default: _over_axes(_FORWARD, first=_OF_REAL),
    _ATEN.fft_fftn.default: _over_axes(_FORWARD),
    _ATEN.fft_ifftn.default: _over_axes(_INVERSE),
    _ATEN.fft_irfftn.default: _over_axes(_INVERSE, last=_inverse_real),
    _ATEN.stft.default: _short_time,
    _ATEN.cat.default: _on_lists(torch.cat),
    _ATEN.stack.default: _on_lists(torch.stack),
    **{
        overload: _on_both(overload)
        for overload in (
            _ATEN.slice.Tensor, _ATEN.select.int, _ATEN.view.default, _ATEN.reshape.default,
            _ATEN.unsqueeze.default, _ATEN.squeeze.dim, _ATEN.squeeze.default, _ATEN.squeeze.dims,
            _ATEN.transpose.int, _ATEN.permute.default, _ATEN.expand.default, _ATEN.flatten.using_ints,
            _ATEN.index_select.default, _ATEN.clone.default, _ATEN.contiguous.default, _ATEN.detach.default,
            _ATEN.repeat.default, _ATEN.roll.default, _ATEN.flip.default, _ATEN.sum.dim_IntList,
            _ATEN.mean.dim, _ATEN.resolve_conj.default, _ATEN.resolve_neg.default, _ATEN.narrow.default,
            _ATEN.alias.default, _ATEN.unflatten.int, _ATEN.movedim.int, _ATEN.lift_fresh_copy.default,
            _ATEN.fft_fftshift.default, _ATEN.fft_ifftshift.default,
        )
    },
}  # fmt: skip
