"""What ``--recipe auto`` takes: the precision that this profile is predicted to run fastest, if it pays.

Each candidate's time comes from the cost model (kernels of this model × this profile), its size from its weights.
A coarser precision is taken only where it is predicted to be clearly faster, or where the size budget needs it; its
accuracy is then checked on the finished files, and when it fails, what was next best is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..cost_model import Kernel, predict
from ..cost_model.energy import estimate_energy
from ..device_profiles import DeviceProfile
from ..errors import EdgeoptError
from ..models.workload import Workload
from .cost import RUNTIME_OF, kernels_in, weight_bytes
from .recipe import Recipe, named_recipe

# A prediction that is nearer than this decides nothing: the more exact precision is taken.
PAYS = 0.10
_MIB = 2**20


@dataclass(frozen=True)
class Choice:
    """A recipe, why it was chosen, and what to fall back on when its accuracy fails."""

    recipe: Recipe
    reasons: tuple[str, ...]
    fallbacks: tuple[Recipe, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One precision on one profile.

    Attributes:
        ms: predicted time of one inference on one core, the mean over the formats.
        size_mib: of the weights in the largest file.
        energy_mj: predicted energy of one inference, the mean over the formats; None without figures of power.
    """

    precision: str
    ms: float
    size_mib: float
    energy_mj: float | None = None


def choose_recipe(
    profile: DeviceProfile,
    work: Workload,
    *,
    calibrated: bool,
    kernels: Mapping[str, Sequence[Kernel]] | None = None,
    stored: Mapping[str, Sequence[Kernel]] | None = None,
) -> Choice:
    """The recipe that should pay on ``profile`` for a model of this kind.

    Args:
        calibrated: whether calibration data is at hand.
        kernels: format -> float32 kernels of the model; without them the rules about instruction sets decide.
        stored: the same with the weights that a file holds, where they differ (``stored_kernels``).
    """
    if kernels:
        try:
            return _by_prediction(profile, work, kernels, stored or kernels, calibrated)
        except EdgeoptError:
            pass  # kernels that the cost model can't take: nothing to multiply, a runtime it doesn't know
    return _by_rules(profile, work, calibrated)


def candidates(
    profile: DeviceProfile,
    kernels: Mapping[str, Sequence[Kernel]],
    precisions: Sequence[str],
    stored: Mapping[str, Sequence[Kernel]] | None = None,
) -> list[Candidate]:
    """Predicted time and size of each precision; ``stored`` as for :func:`choose_recipe`.

    Raises:
        EdgeoptError: kernels that the cost model can't take.
    """
    found = []
    for precision in precisions:
        times, sizes, energies = [], [], []
        for name, each in kernels.items():
            wanted = kernels_in(each, precision, name)
            estimate = predict(wanted, profile, runtime=RUNTIME_OF[name])
            energy = estimate_energy(estimate, profile)
            times.append(estimate.latency_ms)
            sizes.append(weight_bytes((stored or kernels)[name], precision, name) / _MIB)
            energies.append(None if energy is None else energy.dynamic_mj)
        known = [energy for energy in energies if energy is not None]
        mean = sum(known) / len(known) if known else None
        found.append(Candidate(precision, sum(times) / len(times), max(sizes), mean))
    return found


def _by_prediction(
    profile: DeviceProfile,
    work: Workload,
    kernels: Mapping[str, Sequence[Kernel]],
    stored: Mapping[str, Sequence[Kernel]],
    calibrated: bool,
) -> Choice:
    fragile = work.kind in ("transformer", "recurrent")
    # From the most exact to the least: where one isn't clearly faster than one before it, that one is taken.
    names = ["fp32", "fp16", "int8-dynamic"]
    if calibrated and not fragile:
        names.append("int8-static")
    found = candidates(profile, kernels, names, stored)
    fitting, limit = _within(profile, found)
    chosen = fitting[0]
    for candidate in fitting[1:]:
        if candidate.ms < (1 - PAYS) * chosen.ms:
            chosen = candidate
    rest = [c for c in found if c is not chosen and names.index(c.precision) < names.index(chosen.precision)]
    rest.sort(key=lambda candidate: candidate.ms)
    # Nothing is more exact than float32: what comes behind it would be tried in vain.
    end = next((place for place, c in enumerate(rest) if c.precision == "fp32"), len(rest))
    fallbacks = tuple(named_recipe(c.precision) for c in rest[: end + 1])
    reasons = (
        _times(profile, work, found),
        _why(profile, chosen, found, limit, calibrated=calibrated, fragile=fragile),
        _accuracy(chosen, fallbacks),
    )
    return Choice(named_recipe(chosen.precision), reasons, fallbacks)


def _within(profile: DeviceProfile, found: list[Candidate]) -> tuple[list[Candidate], str]:
    """The candidates that keep the profile's limits, or the smallest; and the limit that ruled some out, in words."""
    budgets = profile.budgets
    limits = [(budgets.size_mib, "the size budget"), (profile.memory.app_budget_mib, "an app's memory")]
    limits.append((budgets.peak_memory_mib, "the memory budget"))
    least, name = min(
        ((float(value), name) for value, name in limits if value is not None), key=lambda pair: pair[0]
    )
    kept = [candidate for candidate in found if candidate.size_mib <= least]
    words = f"{name} of {least:,.3g} MiB leaves" if len(kept) < len(found) else ""
    if not kept:
        smallest = min(found, key=lambda candidate: candidate.size_mib)
        return [smallest], f"nothing keeps {name} of {least:,.3g} MiB, and the smallest is"
    goal = budgets.energy_mj
    frugal = [c for c in kept if goal is None or c.energy_mj is None or c.energy_mj <= goal]
    if frugal and len(frugal) < len(kept):
        kept, words = (
            frugal,
            " and ".join(
                filter(None, (words.removesuffix(" leaves"), f"the energy goal of {goal:g} mJ leaves"))
            ),
        )
    return kept, words


def _times(profile: DeviceProfile, work: Workload, found: Sequence[Candidate]) -> str:
    each = ", ".join(f"{candidate.precision} {_ms(candidate.ms)}" for candidate in found)
    return f"predicted on {profile.name} for {_a_model(work.kind)} of {_macs(work.macs)}, one core: {each}"


def _why(
    profile: DeviceProfile,
    chosen: Candidate,
    found: Sequence[Candidate],
    limit: str,
    *,
    calibrated: bool,
    fragile: bool,
) -> str:
    before = [candidate for candidate in found if candidate is not chosen]
    parts = []
    if limit:
        parts.append(f"{limit} {chosen.precision} ({chosen.size_mib:,.3g} MiB of weights)")
    base = found[0]
    if chosen.precision == "fp32":
        best = min(before, key=lambda candidate: candidate.ms)
        # What reads alike in the line of times isn't called faster.
        quicker = best.ms < base.ms and _ms(best.ms) != _ms(base.ms)
        enough = f"{PAYS:.0%} faster (best: {best.precision})" if quicker else "faster"
        parts.append(f"nothing smaller is predicted to be {enough}, so float32 stays as it is")
    elif chosen.ms < base.ms:
        parts.append(
            f"{chosen.precision} is predicted to take {1 - chosen.ms / base.ms:.0%} less time than float32"
        )
    coarser = [c for c in found if c.ms < chosen.ms and c is not chosen]
    if coarser and not limit and chosen.precision != "fp32":
        parts.append(f"{coarser[0].precision} would gain less than {PAYS:.0%} on it")
    if not calibrated and not fragile:
        parts.append("static int8 was left out: it needs calibration data (--calibration)")
    elif fragile:
        parts.append("static int8 was left out: such models often don't survive calibrated ranges")
    if profile.budgets.energy_mj is not None:
        parts.append(_energy(profile, chosen))
    return "; ".join(parts)


def _energy(profile: DeviceProfile, chosen: Candidate) -> str:
    goal = profile.budgets.energy_mj
    if chosen.energy_mj is None:
        return f"the energy goal of {goal:g} mJ can't be judged: the profile has no power of a core"
    verdict = "within" if goal is not None and chosen.energy_mj <= goal else "over"
    return f"predicted {chosen.energy_mj:.3g} mJ an inference, {verdict} the goal of {goal:g} mJ"


def _accuracy(chosen: Candidate, fallbacks: Sequence[Recipe]) -> str:
    if not fallbacks:
        return "float32 is what the model was trained in: there is no accuracy to lose"
    chain = ", then ".join(recipe.name for recipe in fallbacks)
    return (
        f"its outputs are compared with the model's on the files; if {chosen.precision} fails there: {chain}"
    )


def _by_rules(profile: DeviceProfile, work: Workload, calibrated: bool) -> Choice:
    """What XNNPACK's kernels are known to do on each instruction set: not a prediction for this model."""
    core = profile.big_cluster.core
    has_fp16 = profile.has_isa("fp16")
    int8_isa = next((isa for isa in ("i8mm", "dotprod", "vnni") if profile.has_isa(isa)), None)
    half = named_recipe("fp16" if has_fp16 else "fp32")
    float32 = named_recipe("fp32")
    half_reason = (
        f"{core} computes in float16 natively: half the bytes and up to twice the lanes of float32"
        if has_fp16
        else f"{core} has no float16 arithmetic, so float16 would save bytes and no time"
    )
    kind_reason = (
        f"the model is a {work.kind} one ({_macs(work.macs)})"
        if work.macs
        else "the model multiplies no weights, so int8 would gain nothing"
    )
    if work.kind in ("transformer", "linear", "recurrent") and int8_isa:
        return Choice(
            named_recipe("int8-dynamic"),
            (
                kind_reason,
                f"{core} has {int8_isa}, which dynamic int8 uses for linear layers",
                "it needs no calibrated ranges, which transformers and recurrent nets often don't survive",
            ),
            (half, float32),
        )
    if work.kind == "convolutional" and int8_isa and calibrated:
        return Choice(
            named_recipe("int8-static"),
            (
                kind_reason,
                f"{core} has {int8_isa}, which static int8 convolutions use",
                "calibration data is given",
            ),
            (half, float32),
        )
    if work.kind == "convolutional" and int8_isa:
        return Choice(
            half,
            (kind_reason, "no calibration data is given, which static int8 needs", half_reason),
            (float32,),
        )
    without = (
        f"{core} has no int8 dot product, so int8 may well be slower than float there; ask for it by name "
        "and measure it"
    )
    return Choice(half, (kind_reason, half_reason if int8_isa else without), (float32,))


def _macs(count: int) -> str:
    number = f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"
    return f"{number} multiply-accumulates"


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def _a_model(kind: str) -> str:
    if kind == "other":
        return "a model"
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} model"
