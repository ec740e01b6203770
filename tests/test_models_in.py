"""Models, inputs, recipes and precisions as users write them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeopt.errors import InputError
from edgeopt.models import load_calibration, load_source_model
from edgeopt.models.inputs import inputs_from_shapes
from edgeopt.models.program import capture
from edgeopt.models.tensors import named_tensors
from edgeopt.models.workload import workload
from edgeopt.optimizers import load_recipe, named_recipe, parse_precision, parse_precisions
from edgeopt.optimizers.cleanup import fold_batch_norm


def capture_of(module: nn.Module, *inputs: torch.Tensor):
    from edgeopt.models import program

    return program.capture(load_source_model(module, example_inputs=inputs))


@pytest.mark.parametrize(
    "written", ["torch.ones(1, 4)", "(torch.ones(1, 4),)", "dict(input=torch.ones(1, 4))"]
)
def test_example_inputs_need_no_function(written: str, tmp_path: Path) -> None:
    (tmp_path / "net_and_inputs.py").write_text(
        f"import torch\nnet = torch.nn.Linear(4, 2)\nsome = example_inputs = {written}\n"
    )
    spec = f"{tmp_path / 'net_and_inputs.py'}"
    for source in (
        load_source_model(f"{spec}:net"),
        load_source_model(f"{spec}:net", example_inputs=f"{spec}:some"),
    ):
        assert [tuple(tensor.shape) for tensor in source.inputs] == [(1, 4)]


class Casting(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.out = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x.to(torch.bfloat16)).float()


def test_a_cast_that_the_model_itself_does_not_take_is_named() -> None:
    with pytest.raises(InputError, match="casts to bfloat16 in its forward"):
        load_source_model(Casting(nn.Linear(4, 2)), example_inputs=torch.ones(1, 4))


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.out(x)


class Scaled(nn.Module):
    """bfloat16 in a tensor that is neither parameter nor buffer, in one that forward makes, and by name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.type("torch.BFloat16Tensor") * self.scale + torch.ones(4, dtype=torch.bfloat16)
        return torch.cat([y, y.bfloat16()], -1).to(self.scale.dtype)


@pytest.mark.parametrize("make", [lambda: Casting(nn.Linear(4, 2).bfloat16()), Autocast, Scaled])
def test_a_forward_that_casts_computes_in_float32_everywhere(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module, x = make().eval(), torch.randn(3, 4)
    own = module(x).float()
    source = load_source_model(module, example_inputs=x)
    (said,) = [finding for finding in source.findings if "forward computes in bfloat16" in finding.message]
    assert said.source is not None and said.source.startswith("test_models_in.py:")
    (reference,) = source.run([x])
    program = capture(source).program
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "call_function"]
    assert {v.dtype for v in values if isinstance(v, torch.Tensor)} == {torch.float32}
    (found,) = program.module()(x).values()
    assert reference.dtype == found.dtype == torch.float32
    torch.testing.assert_close(found, reference)
    torch.testing.assert_close(reference, own, rtol=2e-2, atol=2e-2)
    assert not torch.equal(reference, own), "nothing was computed in bfloat16 to begin with"


def test_an_exported_program_that_casts_computes_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Casting(nn.Linear(4, 2).bfloat16()).eval(), torch.randn(3, 4)
    path = tmp_path / "casting.pt2"
    torch.export.save(torch.export.export(module, (x,)), path)
    source = load_source_model(str(path))
    assert any("forward computes in bfloat16" in finding.message for finding in source.findings)
    (reference,) = source.run(source.example)
    (own,) = (module.bfloat16()(source.example[0]),)
    torch.testing.assert_close(reference, own, rtol=2e-2, atol=2e-2)


def test_a_model_whose_results_are_those_of_rounding_is_not_exported_in_float32() -> None:
    class Rounding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to(torch.bfloat16).float() - x

    with pytest.raises(InputError, match=r"computes in bfloat16 \(test_models_in.py:\d+\).* other ones"):
        load_source_model(Rounding(), example_inputs=torch.randn(1, 4))


@given(st.text(max_size=30))
def test_any_shape_description_is_read_or_refused(text: str) -> None:
    try:
        made = inputs_from_shapes([text], [])
    except InputError:
        return
    assert len(made.args) + len(made.kwargs) == 1


def test_shape_descriptions() -> None:
    made = inputs_from_shapes(["ids:int64[batch=1..4, 8]=3..5", "mask:int64[1,8]"], ["ids", "mask"])
    ids = made.kwargs["ids"]
    assert ids.dtype == torch.int64 and ids.shape == (2, 8) and 3 <= int(ids.min()) <= int(ids.max()) <= 5
    assert made.dynamic[0, 0].high == 4
    assert bool((made.kwargs["mask"] == 1).all())


def test_nested_inputs_and_outputs_are_flattened_and_named() -> None:
    Pair = namedtuple("Pair", ["left", "right"])

    @dataclass
    class Out:
        pair: Pair
        rest: list[torch.Tensor]
        note: str = "x"

    class Nested(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor], scale: float, *, shift: torch.Tensor):
            total = batch["a"] + batch["b"] * scale + shift
            return Out(Pair(total, total * 2), [total * 3])

    value = {"a": torch.ones(2), "b": torch.ones(2)}
    source = load_source_model(Nested(), example_inputs=((value, 2.0), {"shift": torch.zeros(2)}))
    assert [info.name for info in source.inputs] == ["batch_a", "batch_b", "shift"]
    assert [info.name for info in source.outputs] == ["pair_left", "pair_right", "rest_0"]
    assert [t.tolist() for t in source.run(source.example)] == [[3, 3], [6, 6], [9, 9]]


def test_outputs_that_are_no_tensors_are_left_out_and_said() -> None:
    class Cached(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"logits": x, "cache": object(), "loss": None, "steps": 3}

    source = load_source_model(Cached(), example_inputs=torch.ones(1, 2))
    assert [info.name for info in source.outputs] == ["logits"]
    assert [f.message for f in source.findings] == ["output 'cache' (object) is not a tensor and is left out"]
    with pytest.raises(InputError, match=r"no tensor \(but a set\)"):
        named_tensors({1, 2})
    with pytest.raises(InputError, match="no tensor"):
        named_tensors({"a": None})


def test_names_stay_unique() -> None:
    x = torch.ones(1)
    assert list(named_tensors({"a b": x, "a_b": x})) == ["a_b", "a_b_2"]


def test_training_mode_is_said_and_undone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    source = load_source_model(model, example_inputs=torch.ones(1, 2))
    assert not source.module.training and "training mode" in source.findings[0].message
    assert load_source_model(nn.Linear(2, 2).train(), example_inputs=torch.ones(1, 2)).findings == ()


def test_calibration_in_many_forms(tmp_path: Path) -> None:
    import numpy as np

    source = load_source_model(nn.Linear(3, 1), example_inputs=torch.ones(1, 3))
    np.savez(tmp_path / "rows.npz", anything=np.ones((5, 3), np.float32))
    np.savez(tmp_path / "stack.npz", input=np.ones((4, 1, 3), np.float32))
    assert len(load_calibration(source, tmp_path / "rows.npz")) == 5
    assert len(load_calibration(source, tmp_path / "stack.npz")) == 4
    assert len(load_calibration(source, ({"input": torch.ones(1, 3)} for _ in range(3)))) == 3
    assert len(load_calibration(source, [np.ones((1, 3), np.float32)] * 500)) == 128
    with pytest.raises(InputError, match="sample 1: input 'input' must have shape"):
        load_calibration(source, [torch.ones(1, 3), torch.ones(1, 4)])


class Decoder(nn.Module):
    """A step of a decoder: a token, and the keys and values of each layer before it."""

    def forward(self, token: torch.Tensor, cache: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        return token + sum(key.sum() - value.sum() for key, value in cache)


def test_calibration_nested_as_the_example_inputs_are() -> None:
    """Only flat names (``cache_0_0``) were understood in a dict."""

    def inputs() -> dict[str, object]:
        cache = [(torch.randn(1, 4), torch.randn(1, 4)) for _ in range(2)]
        return {"cache": cache, "token": torch.randn(1, 1)}

    source = load_source_model(Decoder(), example_inputs=inputs())
    nested = inputs()
    flat = {"token": nested["token"]}
    for layer, pair in enumerate(nested["cache"]):  # type: ignore[arg-type]
        flat |= {f"cache_{layer}_{index}": tensor for index, tensor in enumerate(pair)}
    first, second = load_calibration(source, [nested, flat])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(source.run(first)[0], Decoder()(**nested))
    with pytest.raises(InputError, match="input 'cache_1_0' is missing"):
        load_calibration(source, [{**nested, "cache": nested["cache"][:1]}])  # type: ignore[index]


@pytest.mark.parametrize(
    ("alias", "name"),
    [("float32", "fp32"), ("half", "fp16"), ("dynamic_wi8_afp32", "int8-dynamic"), ("static_wi8_ai8", "int8-static"),
     ("w8a8", "int8-static"), ("INT8", "int8-static")],
)  # fmt: skip
def test_every_ecosystems_name_for_a_precision(alias: str, name: str) -> None:
    assert parse_precision(alias).name == name
    assert named_recipe(alias).precision == name


def test_precisions_once_each_in_order() -> None:
    assert [p.name for p in parse_precisions("int8, fp16,w8a8")] == ["int8-static", "fp16"]
    with pytest.raises(InputError, match="did you mean float16"):
        parse_precision("float61")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("passes = 3", "needs .*passes"),
        ("[[passes]]\npass = 'magic'", "unknown pass 'magic'"),
        ("[[passes]]\npass = 'quantize_static'\nbits = 4", "unknown option 'bits'"),
        ("[[passes]]\npass = 'quantize_static'\nsamples = 'many'", "samples must be int"),
        ("[[passes]]\npass = 'quantize_static'\nsamples = 0", "at least 1"),
        (
            "[[passes]]\npass='cast_to_half'\n[[passes]]\npass='quantize_dynamic'",
            "sets the precision 2 times",
        ),
        ("name = [", "not valid TOML"),
    ],
)
def test_recipes_that_can_not_be(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_recipe(str(file))


def test_multiply_accumulates_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10))
    work = workload(capture_of(net, torch.ones(1, 3, 4, 4)).program)
    assert work.conv_macs == 4 * 4 * 8 * 3 * 9
    assert work.linear_macs == 1280
    assert work.kind == "convolutional"


def test_multiply_accumulates_of_attention_and_recurrence() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    assert workload(capture_of(layer, torch.ones(1, 4, 16)).program).kind == "transformer"
    gru = workload(capture_of(nn.GRU(8, 4, batch_first=True), torch.ones(1, 5, 8)).program)
    assert gru.kind == "recurrent" and gru.recurrent_steps == 5
    assert gru.recurrent_macs == 5 * 3 * 4 * (8 + 4)


def test_folding_batch_norm_changes_nothing_but_the_graph() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4),
        nn.BatchNorm2d(4),
    )  # fmt: skip
    for part in net:
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    captured = capture_of(net.eval(), torch.randn(1, 3, 8, 8))
    before = {k: v.clone() for k, v in captured.program.state_dict.items()}
    folded, count = fold_batch_norm(captured.program)
    # The last one follows a convolution once the one before it is folded.
    assert count == 3
    x = torch.randn(1, 3, 8, 8)
    wanted, got = captured.program.module()(x)["output"], folded.module()(x)["output"]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[k], v) for k, v in captured.program.state_dict.items()), (
        "the capture was changed"
    )


class _Levels(nn.Module):
    """A head that is applied to two sizes, as detectors' are."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.conv = way, nn.Conv2d(2, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(2) for _ in range(2))
        for norm in self.norms:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.normal_(norm.weight)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second = self.norms
        one, two = self.conv(x), self.conv(x[..., ::2] * 2)
        if self.way == "own norms":
            return first(one).relu(), second(two).relu()
        if self.way == "one norm":
            return first(one).relu(), first(two).relu()
        if self.way == "outputs":
            return first(one), second(two)
        return first(one).relu(), two


@pytest.mark.parametrize(
    ("way", "count"), [("own norms", 2), ("one norm", 2), ("outputs", 2), ("one plain", 1)]
)
def test_weights_of_several_calls_are_folded_for_each(way: str, count: int) -> None:
    """Left for the exporters to fold, they got all normalisations one after the other: 4 dB in a float .pte."""
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 4)
    captured = capture_of(_Levels(way).eval(), x)
    folded, found = fold_batch_norm(captured.program)
    assert found == count
    graph = folded.graph_module.graph
    assert not graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    other = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(folded.module()(other), captured.program.module()(other), rtol=1e-4, atol=1e-5)
    # Calls that share their normalisation too share the weights that come out.
    assert len(folded.state_dict) == (2 if way == "one norm" else 4)


def test_the_reason_for_a_recipe_reads_as_a_sentence() -> None:
    from edgeopt.device_profiles import load_profile
    from edgeopt.models.workload import Workload
    from edgeopt.optimizers.choose import choose_recipe

    kinds = (Workload(), Workload(conv_macs=5), Workload(linear_macs=5), Workload(recurrent_macs=5))
    first = [choose_recipe(load_profile("pixel7"), work, calibrated=False).reasons[0] for work in kinds]
    assert first[0] == "the model multiplies no weights, so int8 would gain nothing"
    assert [sentence.split()[3:5] for sentence in first[1:]] == [
        ["a", "convolutional"], ["a", "linear"], ["a", "recurrent"],
    ]  # fmt: skip
