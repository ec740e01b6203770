"""pytest plug-in: gate a model in an app's own tests, on an emulated device.

    def test_model(edgeopt_emulator, assert_parity, assert_budget):
        run = edgeopt_emulator("model.tflite", [image])
        assert_parity(run, expected)
        assert_budget(run, instructions=2_000_000, latency_ms=5)

``pytest --edgeopt-profile pixel7`` chooses the device. Registered by the entry point ``pytest11``; imports
nothing of edgeopt until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np

    from .execution import EmulatedRun
    from .parity import Parity

_OPTION = "--edgeopt-profile"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--edgeopt-profile`` and the ini value ``edgeopt_profile``."""
    group = parser.getgroup("edgeopt", "emulated devices")
    group.addoption(_OPTION, default=None, metavar="NAME", help="the device whose CPU is emulated")
    parser.addini("edgeopt_profile", "the device whose CPU is emulated, when the option isn't given")


@pytest.fixture(scope="session")
def edgeopt_profile(request: pytest.FixtureRequest) -> Any:
    """The device profile chosen for this session."""
    from ...device_profiles import load_profile

    name = request.config.getoption(_OPTION) or request.config.getini("edgeopt_profile")
    if not name:
        pytest.fail(
            f"no device chosen: pytest {_OPTION} pixel7, or edgeopt_profile in the ini file", pytrace=False
        )
    return load_profile(name)


@pytest.fixture(scope="session")
def edgeopt_emulator(edgeopt_profile: Any) -> Callable[..., EmulatedRun]:
    """``edgeopt_emulator(file, inputs)``: one counted inference on the emulated device.

    Sets the toolchain up when it is missing. Takes the arguments of ``edgeopt.android_harness.emulator.run``
    but the profile.
    """
    from .execution import run
    from .toolchain import setup

    setup()

    def emulate(
        artifact: Path | str, inputs: Mapping[str, np.ndarray] | Sequence[np.ndarray], **options: Any
    ) -> EmulatedRun:
        return run(artifact, inputs, edgeopt_profile, **options)

    return emulate


@pytest.fixture(scope="session")
def assert_parity() -> Callable[..., Parity]:
    """``assert_parity(run, expected, tolerance=1e-4)``: outputs within ``tolerance`` of the largest value.

    ``expected`` is one array or a list of them, in the order of the file's outputs. ``min_cosine`` is checked
    as well when given: the right measure for quantised files.
    """
    from .parity import check_parity
    from .rounding import FLOAT_TOLERANCE

    def check(
        run: EmulatedRun,
        expected: np.ndarray | Sequence[np.ndarray],
        *,
        tolerance: float | None = FLOAT_TOLERANCE,
        min_cosine: float | None = None,
    ) -> Parity:
        arrays: list[np.ndarray] = list(expected) if isinstance(expected, list | tuple) else [expected]  # type: ignore[list-item]
        parity = check_parity(run.outputs, reference=arrays)
        found = parity.with_reference
        assert found is not None
        if run.feature_problems:
            pytest.fail(
                f"the emulated {run.cpu.core} is not the profile's: {run.feature_problems[0]}", pytrace=False
            )
        if min_cosine is not None and found.cosine < min_cosine:
            pytest.fail(
                f"{run.artifact.name}: cosine {found.cosine:.6f} is below {min_cosine} on {run.cpu.core}",
                pytrace=False,
            )
        if min_cosine is None and tolerance is not None and found.relative > tolerance:
            pytest.fail(
                f"{run.artifact.name}: outputs differ by {found.relative:.2e} of the largest value on "
                f"{run.cpu.core}, more than {tolerance:g}",
                pytrace=False,
            )
        return parity

    return check


@pytest.fixture(scope="session")
def assert_budget(edgeopt_profile: Any) -> Callable[..., None]:
    """``assert_budget(run, instructions=..., latency_ms=..., macs=..., bytes_moved=...)``.

    Counts are exact. ``latency_ms`` is compared with the upper end of the estimate's band, so that a budget
    that holds here has a margin; it is an estimate all the same.
    """
    from .measuring import measurements_of

    metrics = {"instructions": "instructions", "macs": "macs_executed", "bytes_moved": "bytes_moved"}

    def check(run: EmulatedRun, **budget: float) -> None:
        unknown = set(budget) - {*metrics, "latency_ms"}
        if unknown:
            raise TypeError(
                f"no budget for {sorted(unknown)[0]!r}; choose from {', '.join([*metrics, 'latency_ms'])}"
            )
        found = {m["metric"]: m for m in measurements_of(run, edgeopt_profile)}
        for name, limit in budget.items():
            if name == "latency_ms":
                if "latency_ms" not in found:
                    pytest.fail(
                        f"no latency estimate for {run.cpu.core}: budget its instructions", pytrace=False
                    )
                value = found["latency_ms"]["ci95"][1]
                what = "upper end of the estimated latency, ms"
            else:
                value, what = found[metrics[name]]["value"], metrics[name]
            if value > limit:
                pytest.fail(
                    f"{run.artifact.name} on {run.cpu.core}: {what} {value:,.4g} is over the budget of {limit:,.4g}",
                    pytrace=False,
                )

    return check
