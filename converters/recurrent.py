"""Recurrent layers as the linear layers they are made of.

Both exporters take an LSTM or GRU apart into one copy of its cell a step, but only after quantisation has looked
for layers to quantise, so that an "int8" recurrent net would keep its weights in float. Written out before, its
matrices are linear layers like any other. The equations are those of torch.nn.LSTM and torch.nn.GRU; the part
that meets the input is worked out for all steps at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from .split_forms import pieces

_ATEN = torch.ops.aten
_Cell = Callable[..., tuple[torch.Tensor, tuple[torch.Tensor, ...]]]
# Longer sequences make graphs that no exporter gets through in reasonable time.
MAX_STEPS = 1024


def recurrent_form(node: torch.fx.Node) -> Callable[..., Any] | None:
    """The linear layers and gates of a recurrent layer, or None for one that isn't plain.

    Plain: no dropout, no projections, one sequence length for the whole batch.
    """
    lstm = node.target is _ATEN.lstm.input
    data, state, weights, has_biases, layers, dropout, train, bidirectional, batch_first = node.args
    value = data.meta["val"]  # type: ignore[union-attr]
    per_direction = 4 if has_biases else 2
    directions = 2 if bidirectional else 1
    plain = (
        value.ndim == 3 and not (train and dropout) and len(weights) == per_direction * layers * directions
    )  # type: ignore[arg-type, operator]
    if not plain or value.shape[1 if batch_first else 0] > MAX_STEPS:
        return None
    order = node.all_input_nodes
    states = list(state) if lstm else [state]  # type: ignore[call-overload]
    from_zero = all(s.target is _ATEN.zeros.default for s in states)

    def form(*tensors: torch.Tensor) -> list[torch.Tensor]:
        known = dict(zip(order, tensors, strict=True))
        sequence = known[data]  # type: ignore[index]
        if not batch_first:
            sequence = sequence.transpose(0, 1)
        initial = [known[s] for s in states]
        finals: list[tuple[torch.Tensor, ...]] = []
        for layer in range(int(layers)):  # type: ignore[call-overload]
            found = []
            for direction in range(directions):
                index = layer * directions + direction
                own = [known[w] for w in weights[index * per_direction : (index + 1) * per_direction]]  # type: ignore[index]
                begin = None if from_zero else tuple(s[index] for s in initial)
                result, final = _run(_lstm_cell if lstm else _gru_cell, sequence, begin, own, direction == 1)
                found.append(result)
                finals.append(final)
            sequence = torch.cat(found, dim=-1) if directions == 2 else found[0]
        if not batch_first:
            sequence = sequence.transpose(0, 1)
        return [sequence, *(torch.stack(list(parts)) for parts in zip(*finals, strict=True))]

    return form


def cell_form(node: torch.fx.Node) -> Callable[..., Any] | None:
    """The linear layers and gates of one step of torch.nn.LSTMCell or GRUCell."""
    lstm = "lstm" in str(node.target)
    data, state, input_weight, hidden_weight, *biases = node.args
    order = node.all_input_nodes
    states = list(state) if isinstance(state, list | tuple) else [state]

    def form(*tensors: torch.Tensor) -> Any:
        known: dict[Any, torch.Tensor] = dict(zip(order, tensors, strict=True))
        input_bias, hidden_bias = (known.get(bias) for bias in (*biases, None, None)[:2])
        gates = functional.linear(known[data], known[input_weight], input_bias)
        cell = _lstm_cell if lstm else _gru_cell
        hidden, after = cell(gates, tuple(known[s] for s in states), known[hidden_weight], hidden_bias)
        return list(after) if lstm else hidden

    return form


def _run(
    cell: _Cell,
    sequence: torch.Tensor,
    state: tuple[torch.Tensor, ...] | None,
    weights: list[torch.Tensor],
    reverse: bool,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """One layer in one direction: [batch, steps, in] → [batch, steps, hidden] and the last state.

    A state of None is all zeros. It takes no part in the first step: XNNPACK can't quantise a constant at run time.
    """
    input_weight, hidden_weight = weights[:2]
    input_bias, hidden_bias = weights[2:] if len(weights) == 4 else (None, None)
    gates = functional.linear(sequence, input_weight, input_bias)
    steps = list(gates.unbind(1))
    outputs = []
    for step in reversed(steps) if reverse else steps:
        output, state = cell(step, state, hidden_weight, hidden_bias)
        outputs.append(output)
    assert state is not None
    return torch.stack(outputs[::-1] if reverse else outputs, dim=1), state


def _lstm_cell(
    gates: torch.Tensor,
    state: tuple[torch.Tensor, ...] | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    own = _state_gates(state, weight, bias)
    enter, forget, candidate, leave = pieces(gates if own is None else gates + own, 4)
    memory = torch.sigmoid(enter) * torch.tanh(candidate)
    if state is not None:
        memory = torch.sigmoid(forget) * state[1] + memory
    hidden = torch.sigmoid(leave) * torch.tanh(memory)
    return hidden, (hidden, memory)


def _gru_cell(
    gates: torch.Tensor,
    state: tuple[torch.Tensor, ...] | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    own = _state_gates(state, weight, bias)
    width = gates.shape[-1] // 3
    both, candidate = gates[..., : 2 * width], gates[..., 2 * width :]
    if own is None:
        keep = torch.sigmoid(both[..., width:])
    else:
        reset, keep = pieces(torch.sigmoid(both + own[..., : 2 * width]), 2)
        candidate = candidate + reset * own[..., 2 * width :]
    new = torch.tanh(candidate)
    hidden = new - keep * new if state is None else new + keep * (state[0] - new)
    return hidden, (hidden,)


def _state_gates(
    state: tuple[torch.Tensor, ...] | None, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor | None:
    """What the hidden state adds to the gates; the bias alone when the state is zero."""
    return bias if state is None else functional.linear(state[0], weight, bias)
