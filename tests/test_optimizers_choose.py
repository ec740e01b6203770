"""--recipe auto: what is chosen follows from predictions for this model on this profile, and says so."""

from __future__ import annotations

import re

import optimizer_models as models
import pytest
import torch
from torch import nn

from edgeopt import load_profile
from edgeopt.converters.rewrites import rewrite_capture
from edgeopt.cost_model import Kernel, predict
from edgeopt.device_profiles.schema import Budgets, DeviceProfile
from edgeopt.models.program import capture
from edgeopt.models.source import load_source_model
from edgeopt.models.workload import Workload, workload
from edgeopt.optimizers.choose import PAYS, Choice, candidates, choose_recipe
from edgeopt.optimizers.cleanup import fold_batch_norm
from edgeopt.optimizers.cost import kernels_in, kernels_of, predicted_node_ms, stored_kernels, weight_bytes
from edgeopt.optimizers.mixed import float_costs
from edgeopt.optimizers.sensitivity import LayerDamage

Kernels = dict[str, list[Kernel]]


def kernels_and_work(model: nn.Module, example: torch.Tensor) -> tuple[Kernels, Workload]:
    captured = capture(load_source_model(model, example_inputs=example, name="net"))
    program = fold_batch_norm(captured.program)[0]
    return {name: kernels_of(program, name) for name in ("pte", "tflite")}, workload(captured.program)


@pytest.fixture(scope="module")
def digits() -> tuple[Kernels, Workload]:
    return kernels_and_work(models.fresh(32).eval(), models.example_inputs())


@pytest.fixture(scope="module")
def text() -> tuple[Kernels, Workload]:
    return kernels_and_work(models.text(), models.text_example_inputs())


def choice(
    found: tuple[Kernels, Workload], profile: str | DeviceProfile, *, calibrated: bool = True
) -> Choice:
    target = load_profile(profile) if isinstance(profile, str) else profile
    kernels, work = found
    return choose_recipe(target, work, calibrated=calibrated, kernels=kernels)


@pytest.mark.parametrize("name", ["pixel7", "raspberry_pi_4", "raspberry_pi_zero_2w", "galaxy_s24", "host"])
def test_what_is_chosen_is_predicted_to_pay(digits: tuple[Kernels, Workload], name: str) -> None:
    profile = load_profile(name)
    made = choice(digits, name)
    times = {
        c.precision: c.ms
        for c in candidates(profile, digits[0], ["fp32", "fp16", "int8-dynamic", "int8-static"])
    }
    chosen = made.recipe.precision
    exact = ["fp32", "fp16", "int8-dynamic", "int8-static"]
    for other, ms in times.items():
        if exact.index(other) < exact.index(chosen):
            assert times[chosen] < (1 - PAYS) * ms
        else:
            assert ms >= (1 - PAYS) * times[chosen]
    assert len(made.reasons) == 3
    said = dict(re.findall(r"(fp32|fp16|int8-dynamic|int8-static) ([\d.e-]+) ms", made.reasons[0]))
    assert {key: pytest.approx(float(value), rel=0.01) for key, value in said.items()} == times
    assert [recipe.precision for recipe in made.fallbacks][-1:] == ([] if chosen == "fp32" else ["fp32"])


def test_without_calibration_data_static_int8_is_no_candidate(digits: tuple[Kernels, Workload]) -> None:
    made = choice(digits, "raspberry_pi_4", calibrated=False)
    assert made.recipe.precision != "int8-static"
    assert "needs calibration data" in made.reasons[1]


def test_a_model_that_gains_nothing_stays_in_float32() -> None:
    """Normalisations and softmax have no int8 kernels on these roads."""
    kernels = [
        Kernel(
            "n",
            "norm",
            "fp32",
            bytes_in=4e6,
            bytes_out=4e6,
            in_channels=1000,
            out_channels=1000,
            spatial=1000,
        )
    ]
    found = {"tflite": kernels * 3}
    made = choose_recipe(load_profile("pixel7"), Workload(), calibrated=True, kernels=found)
    assert made.recipe.precision == "fp32" and not made.fallbacks
    assert "so float32 stays as it is" in made.reasons[1]


def test_float16_is_no_gain_where_the_cores_lack_it(digits: tuple[Kernels, Workload]) -> None:
    profile = load_profile("raspberry_pi_4")
    half = candidates(profile, digits[0], ["fp32", "fp16"])
    assert half[1].ms > 0.9 * half[0].ms


def test_a_size_budget_rules_out_what_is_too_large(digits: tuple[Kernels, Workload]) -> None:
    profile = load_profile("pixel7")
    sizes = {c.precision: c.size_mib for c in candidates(profile, digits[0], ["fp32", "fp16", "int8-static"])}
    assert sizes["fp16"] == pytest.approx(sizes["fp32"] / 2)
    assert sizes["int8-static"] < 0.35 * sizes["fp32"]
    tight = profile.model_copy(update={"budgets": Budgets(size_mib=sizes["int8-static"] * 1.2)})
    made = choice(digits, tight)
    assert made.recipe.precision in ("int8-static", "int8-dynamic")
    assert "the size budget of" in made.reasons[1]
    impossible = profile.model_copy(update={"budgets": Budgets(size_mib=1e-6)})
    smallest = choice(digits, impossible)
    assert smallest.recipe.precision.startswith("int8")
    assert smallest.reasons[1].startswith(
        f"nothing keeps the size budget of 1e-06 MiB, and the smallest is {smallest.recipe.precision}"
    )


class Reads(nn.Module):
    """A large table of which one row is read, and a recurrent layer whose weights are read at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(1000, 16)
        self.rnn = nn.LSTM(16, 32, batch_first=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.rnn(self.table(ids))[0]


def test_the_size_is_what_a_file_holds_not_what_a_run_reads() -> None:
    model = Reads().eval()
    captured = rewrite_capture(
        capture(load_source_model(model, example_inputs=torch.zeros(1, 12, dtype=torch.int64), name="net"))
    )
    weights = 4 * sum(each.numel() for each in model.parameters())
    for name in ("pte", "tflite"):
        kernels = kernels_of(captured.program, name)
        stored = stored_kernels(captured.program, kernels)
        assert weight_bytes(stored, "fp32", name) == pytest.approx(weights, rel=0.02)
        assert weight_bytes(stored, "int8-weights", name) == pytest.approx(weights / 4, rel=0.02)
        assert weight_bytes(stored, "int8-static", name) == pytest.approx(weights / 4, rel=0.1)
        (found,) = candidates(load_profile("pixel7"), {name: kernels}, ["fp32"], {name: stored})
        assert found.size_mib == pytest.approx(weights / 2**20, rel=0.02)


@pytest.mark.parametrize(("macs", "said"), [(96, "96 mult"), (47_120, "47,120 mult"), (2.1e6, "2.1 M mult")])
def test_little_work_is_not_said_to_be_none(digits: tuple[Kernels, Workload], macs: float, said: str) -> None:
    made = choice((digits[0], Workload(linear_macs=int(macs))), "pixel7")
    assert f"a linear model of {said}" in made.reasons[0]


def test_an_energy_goal_is_judged_by_predicted_time_and_power(digits: tuple[Kernels, Workload]) -> None:
    profile = load_profile("pixel7")
    goal = profile.model_copy(update={"budgets": Budgets(energy_mj=1e6)})
    words = choice(digits, goal).reasons[1]
    assert "within the goal of 1e+06 mJ" in words or "has no power of a core" in words


def test_transformers_are_not_given_calibrated_ranges(text: tuple[Kernels, Workload]) -> None:
    kernels, work = text
    attention = Workload(linear_macs=work.linear_macs, attention_macs=1000)
    made = choose_recipe(load_profile("pixel7"), attention, calibrated=True, kernels=kernels)
    assert made.recipe.precision != "int8-static"
    assert "int8-static" not in made.reasons[0]


def test_keras_models_are_still_chosen_for_by_rules() -> None:
    made = choose_recipe(load_profile("pixel7"), Workload(conv_macs=10), calibrated=True)
    assert made.recipe.precision == "int8-static" and "calibration data is given" in made.reasons


def test_precisions_change_the_kernels_they_reach(text: tuple[Kernels, Workload]) -> None:
    kernels = text[0]["tflite"]
    kinds = {k.kind for k in kernels_in(kernels, "int8-dynamic", "tflite") if k.precision == "int8"}
    assert kinds == {"linear"}
    assert all(k.precision == "fp32" for k in kernels_in(kernels, "int8-weights", "tflite"))
    size = {
        p: weight_bytes(kernels, p, "tflite")
        for p in ("fp32", "int8-weights", "int8-dynamic", "int4-dynamic")
    }
    assert size["int8-weights"] == size["fp32"] / 4
    assert size["int4-dynamic"] < size["int8-dynamic"] < 0.3 * size["fp32"]


def test_mixed_weighs_layers_by_what_the_profile_loses_to_them(digits: tuple[Kernels, Workload]) -> None:
    captured = capture(
        load_source_model(models.fresh(32).eval(), example_inputs=models.example_inputs(), name="net")
    )
    program = fold_batch_norm(captured.program)[0]
    profile = load_profile("pixel7")
    names = ["conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "linear"]
    layers = [LayerDamage(n, n, "conv2d", 20.0, 20.0, 90.0, 90.0, 100, 10) for n in names]
    from dataclasses import replace

    costs = float_costs(replace(captured, program=program), layers, profile)
    in_float, in_int8 = (predicted_node_ms(program, profile, p) for p in ("fp32", "int8-static"))
    saved = {n: max(0.0, in_float[n] - in_int8[n]) for n in names}
    assert sum(costs.values()) == pytest.approx(1.0)
    assert costs["conv2d_3"] == pytest.approx(saved["conv2d_3"] / sum(saved.values()))
    assert float_costs(captured, layers, None) == dict.fromkeys(names, 0.2)
    total = sum(each.latency_ms for each in predict(digits[0]["pte"], profile).kernels)
    assert sum(in_float.values()) == pytest.approx(total)


def test_the_page_describes_every_pass_option_and_name() -> None:
    import dataclasses
    from pathlib import Path

    from edgeopt.optimizers.precision import PRECISIONS
    from edgeopt.optimizers.registry import known_passes

    page = (Path(__file__).parent.parent / "docs" / "optimizers.md").read_text()
    for name, kind in known_passes().items():
        for word in (name, *(field.name for field in dataclasses.fields(kind.config))):
            assert f"`{word}`" in page or f"### {word}" in page, f"{word} of {name}"
    for name, precision in PRECISIONS.items():
        assert f"`{name}`" in page
        assert set(precision.aliases) & set(page.replace("|", ",").replace(" ", "").split(",")), name
