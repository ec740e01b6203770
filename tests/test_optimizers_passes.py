"""Each pass on a small trained net: what it changed is what it says, and what comes out still works."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optimizer_models as models
import pytest
import torch
from optimizer_passes import a_pass, apply, module_of
from torch import nn

from edgeopt.errors import InputError
from edgeopt.optimization import optimize
from edgeopt.optimizers.recipe import Recipe

pytestmark = pytest.mark.usefixtures("own_cache")


# structured pruning


@pytest.mark.parametrize("importance", ["l1", "l2", "taylor", "bn_scale", "random"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_pruning_removes_what_it_says(importance: str, scope: str) -> None:
    made = apply(a_pass("prune", macs=0.5, importance=importance, scope=scope, round_to=4, epochs=0))
    before, after = models.net(), module_of(made)
    report = made.reports[0]
    assert report.before is not None and report.after is not None
    assert report.after.macs <= 0.5 * report.before.macs
    assert report.after.parameters == sum(p.numel() for p in after.parameters())
    assert report.before.parameters == sum(p.numel() for p in before.parameters())
    assert after(models.example_inputs()).shape == (1, 10)
    for layer in after.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.out_channels % 4 == 0
    for path, (old, new) in report.details["widths"].items():
        width = "out_features" if path == "head" else "out_channels"
        assert getattr(before.get_submodule(path), width) == old > new
        assert getattr(after.get_submodule(path), width) == new
    assert made.to_dict()["macs"] == [report.before.macs, report.after.macs]
    assert sum(p.numel() for p in models.net().parameters()) == report.before.parameters


def test_pruning_removes_the_least_important_channels() -> None:
    model = models.net()
    weak = [1, 4, 6, 11]
    with torch.no_grad():
        for layer, norm in (model.stem[:2], model.depthwise[:2]):
            layer.weight[weak] = 0
            norm.bias[weak] = 0
            norm.weight[weak] = 0
        model.body[0].weight[:, weak] = 0
    kept = [channel for channel in range(16) if channel not in weak]
    made = apply(
        a_pass("prune", macs=0.09, importance="l2", round_to=4, epochs=0), model=copy.deepcopy(model)
    )
    pruned = module_of(made)
    assert torch.equal(pruned.stem[0].weight, model.stem[0].weight[kept])
    image = models.training()[0][:20]
    with torch.no_grad():
        assert torch.allclose(pruned(image), model(image), atol=1e-4)


def test_pruning_in_steps_reaches_the_same_goal_and_trains_the_loss_away() -> None:
    alone = apply(a_pass("prune", macs=0.6, round_to=4, epochs=0, importance="random"))
    steps = apply(
        a_pass(
            "prune",
            macs=0.6,
            round_to=4,
            epochs=3,
            steps=2,
            importance="taylor",
            learning_rate=3e-3,
            batch_size=32,
        )
    )
    assert steps.reports[0].after is not None and steps.reports[0].before is not None
    assert steps.reports[0].after.macs <= 0.4 * steps.reports[0].before.macs
    assert models.accuracy(module_of(steps)) > models.accuracy(module_of(alone)) + 0.05
    assert models.accuracy(module_of(steps)) > 0.9


def test_pruning_that_can_not_reach_its_goal_says_so() -> None:
    made = apply(a_pass("prune", macs=0.95, round_to=8, epochs=0))
    assert any("not 95%" in warning for warning in made.reports[0].warnings)


class WrittenWidth(nn.Module):
    """Code that has a width written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16 * 16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.a(image)).reshape(-1, 16 * 16))


def test_a_width_written_into_the_code_is_never_pruned() -> None:
    made = apply(a_pass("prune", macs=0.3, round_to=4, epochs=0), model=WrittenWidth().eval())
    pruned = module_of(made)
    assert pruned(models.example_inputs()).shape == (1, 10)
    assert pruned.a.out_channels < 16 == pruned.b.out_channels


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(8, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.up, self.down, self.head = nn.Linear(32, 128), nn.Linear(128, 32), nn.Linear(32, 10)
        self.norm = nn.LayerNorm(32)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.into(image[:, 0])
        found = found + self.attention(found, found, found)[0]
        return self.head(self.norm(found + self.down(torch.relu(self.up(found)))).mean(1))


def test_transformers_lose_feed_forward_channels_and_nothing_else() -> None:
    torch.manual_seed(0)
    made = apply(a_pass("prune", macs=0.3, epochs=0), model=Attention().eval())
    pruned = module_of(made)
    assert list(made.reports[0].details["widths"]) == ["up"]
    assert pruned.up.out_features == pruned.down.in_features < 128
    assert pruned(models.example_inputs()).shape == (1, 10)


# sparsity and clustering


def test_sparsity_is_exact_and_its_report_is_honest() -> None:
    made = apply(a_pass("sparsify", sparsity=0.75, epochs=8, learning_rate=5e-3, batch_size=32))
    zeros = total = 0
    for layer in module_of(made).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            zeros, total = zeros + int((layer.weight == 0).sum()), total + layer.weight.numel()
    assert zeros / total == pytest.approx(0.75, abs=0.01)
    report = made.reports[0]
    assert report.details["zeros_ratio"] == pytest.approx(zeros / total)
    assert report.after is not None and report.before is not None
    assert report.after.weight_bytes == report.before.weight_bytes
    assert report.after.compressed_bytes < 0.5 * report.before.compressed_bytes
    assert "saves no time: no sparse kernel" in report.warnings[0]
    assert models.accuracy(module_of(made)) > 0.9


def test_two_of_four_weights_are_left_and_stay_so_in_training() -> None:
    made = apply(a_pass("sparsify", pattern="2:4", epochs=1), a_pass("finetune", epochs=1))
    for layer in module_of(made).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rows = layer.weight.flatten(1)
            whole = rows[:, : rows.shape[1] // 4 * 4].reshape(-1, 4)
            assert bool(((whole != 0).sum(1) <= 2).all())
    assert "2:4" in made.reports[0].words


def test_gradient_sparsity_keeps_other_weights_than_magnitude() -> None:
    masks = [
        apply(a_pass("sparsify", sparsity=0.6, importance=importance, epochs=1, scope="global")).model.masks
        for importance in ("magnitude", "gradient")
    ]
    assert any(not torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    kept = sum(int(mask.sum()) for mask in masks[1].values()) / sum(m.numel() for m in masks[1].values())
    assert kept == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("epochs", [0, 1])
def test_clusters_are_as_many_as_asked_and_compress(epochs: int) -> None:
    made = apply(a_pass("cluster", clusters=8, epochs=epochs))
    for layer in module_of(made).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert len(layer.weight.unique()) <= 8
    report = made.reports[0]
    assert report.after is not None and report.before is not None
    assert report.after.compressed_bytes < 0.35 * report.before.compressed_bytes
    assert report.details["codebook_bytes"] < report.after.compressed_bytes
    assert "save no time" in report.warnings[0]
    assert models.accuracy(module_of(made)) > 0.9


def test_clusters_move_in_training() -> None:
    still, moved = (
        module_of(apply(a_pass("cluster", clusters=4, epochs=epochs, learning_rate=0.01)))
        for epochs in (0, 1)
    )
    values = [model.body[0].weight.unique() for model in (still, moved)]
    assert not torch.equal(values[0], values[1])
    assert models.accuracy(moved) > models.accuracy(still) - 0.01


def test_sparse_weights_keep_their_zeros_when_clustered() -> None:
    made = apply(a_pass("sparsify", sparsity=0.5, epochs=1), a_pass("cluster", clusters=8, epochs=1))
    for name, mask in made.model.masks.items():
        weight = module_of(made).get_parameter(name.removeprefix("model."))
        assert bool((weight[mask == 0] == 0).all())
        assert len(weight.unique()) <= 8


# distillation and fine-tuning


def test_a_student_learns_more_from_a_teacher_than_alone() -> None:
    teacher = f"{models.__file__}:net"
    options = {"epochs": 8, "learning_rate": 1e-2, "batch_size": 32}
    alone = apply(a_pass("finetune", **options), model=models.student())
    taught = apply(a_pass("distill", teacher=teacher, soft_weight=0.9, **options), model=models.student())
    assert models.accuracy(module_of(taught)) > models.accuracy(module_of(alone))
    assert "distilled from" in taught.reports[0].words


def test_distillation_needs_no_labels() -> None:
    teacher = f"{models.__file__}:net"
    made = apply(
        a_pass("distill", teacher=teacher, epochs=8, learning_rate=1e-2, batch_size=32),
        model=models.student(),
        training=models.unlabelled,
    )
    assert "without labels" in made.reports[0].words
    assert models.accuracy(module_of(made)) > 0.8


def test_features_of_other_widths_are_matched_through_a_map() -> None:
    teacher = f"{models.__file__}:net"
    made = apply(
        a_pass("distill", teacher=teacher, features=("body=body", "last = last"), epochs=1),
        model=models.student(),
    )
    assert made.reports[0].details["epochs"] == 1
    with pytest.raises(InputError, match="the teacher has no layer 'tail'"):
        apply(a_pass("distill", teacher=teacher, features=("body=tail",)), model=models.student())


def test_a_pruned_model_learns_from_what_it_was() -> None:
    pruned = apply(a_pass("prune", macs=0.6, round_to=4, epochs=0))
    made = apply(
        a_pass("prune", macs=0.6, round_to=4, epochs=0),
        a_pass("distill", epochs=2, learning_rate=2e-3),
        training=models.unlabelled,
    )
    assert models.accuracy(module_of(made)) > models.accuracy(module_of(pruned)) + 0.02
    with pytest.raises(InputError, match="its own teacher"):
        apply(a_pass("distill"))


def test_training_keeps_the_best_epoch_and_never_less_than_it_began_with() -> None:
    made = apply(a_pass("finetune", epochs=2, learning_rate=20.0, optimizer="sgd"))
    details = made.reports[0].details
    assert details["kept_epoch"] == 0
    assert details["held_out_accuracy"][0] == details["held_out_accuracy"][1]
    assert models.accuracy(module_of(made)) == models.accuracy(models.net())


def test_patience_stops_early() -> None:
    made = apply(a_pass("finetune", epochs=6, learning_rate=1.0, optimizer="sgd", patience=2))
    assert made.reports[0].details["epochs"] < 6


# what recipes refuse


ORDERS: dict[str, tuple[Callable[[], tuple[Any, ...]], str]] = {
    "prune after a graph pass": (
        lambda: (a_pass("fold_batch_norm"), a_pass("prune")),
        "before it is captured",
    ),
    "two precisions": (lambda: (a_pass("qat"), a_pass("cast_to_half")), "sets the precision 2 times"),
    "training after clusters": (lambda: (a_pass("cluster"), a_pass("finetune")), "put it before cluster"),
    "int8 training after clusters": (lambda: (a_pass("cluster"), a_pass("qat")), "put it before cluster"),
    "prune after sparsify": (
        lambda: (a_pass("sparsify", epochs=1), a_pass("prune")),
        "must stand before sparsify",
    ),
    "biases before int8": (
        lambda: (a_pass("correct_bias"), a_pass("finetune", epochs=1)),
        "before it is captured",
    ),
}


@pytest.mark.parametrize(("passes", "words"), ORDERS.values(), ids=list(ORDERS))
def test_passes_that_can_not_follow_each_other(passes: Callable[[], tuple[Any, ...]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        apply(*passes())


@pytest.mark.parametrize("name", ["prune", "distill", "sparsify", "finetune", "cluster", "qat"])
def test_missing_training_data_is_one_sentence(name: str) -> None:
    options = {"teacher": f"{models.__file__}:net"} if name == "distill" else {}
    with pytest.raises(InputError, match="needs training data: give --train"):
        apply(a_pass(name, **options), training=None)


def test_optimize_writes_a_program_that_runs(tmp_path: Path) -> None:
    recipe = Recipe("mine", (a_pass("prune", round_to=4, epochs=1),))
    out = tmp_path / "out"
    report = optimize(
        models.net(), recipe=recipe, output=out, training=models.training, evaluate=models.evaluate,
        example_inputs=models.example_inputs(),
    )  # fmt: skip
    program = torch.export.load(out / "model.pt2").module()
    assert program(models.example_inputs())["output"].shape == (1, 10)
    assert json.loads((out / "report.json").read_text())["macs"] == report["macs"]
    assert report["metric"][0] > 0.95 and report["metric"][1] > 0.9
    with pytest.raises(InputError, match="exists already"):
        optimize(models.net(), recipe=recipe, output=out, example_inputs=models.example_inputs())


def test_a_kept_pass_says_what_is_expected_of_it_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sentence was kept with it, and stood beside a summary that another cost model had predicted."""
    from edgeopt.device_profiles import load_profile
    from edgeopt.models.source import load_source_model
    from edgeopt.optimizers import cost
    from edgeopt.optimizers.eager import run_eager_passes
    from edgeopt.optimizers.recipe import load_recipe
    from edgeopt.optimizers.workfolder import WorkFolder

    recipe = tmp_path / "halved.toml"
    recipe.write_text('name = "halved"\n[[passes]]\npass = "prune"\nround_to = 4\nepochs = 0\n')
    source = load_source_model(models.fresh(32).eval(), example_inputs=models.example_inputs(), name="net")
    said = []

    def words() -> str:
        work = WorkFolder(tmp_path / "kept", "start")
        _, piece, _ = run_eager_passes(
            load_recipe(str(recipe)), source, None, said.append, work, load_profile("pixel7")
        )
        (report,) = piece.reports
        assert report.before is not None and report.before.predicted_ms is not None
        expected = report.words.partition("in float32: .pte ")[2].split()[0]
        assert float(expected) == pytest.approx(report.before.predicted_ms["pte"], rel=0.01)
        return report.words

    first = words()
    now = cost.predicted_ms
    monkeypatch.setattr(cost, "predicted_ms", lambda *arguments: 2 * now(*arguments))
    again = words()
    assert any("taken from an earlier run" in line for line in said)
    assert again != first and again.partition("predicted on")[0] == first.partition("predicted on")[0]
