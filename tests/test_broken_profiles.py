"""Every broken profile ends as one clear InputError: file, key, found value and what is allowed."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_files import PIXEL7, changed, error_of, write

from edgeopt.device_profiles import DeviceProfile, load_profile
from edgeopt.device_profiles.catalog import BUILTIN_FOLDER
from edgeopt.device_profiles.checks import covering_source, numeric_leaves
from edgeopt.device_profiles.problems import input_error
from edgeopt.errors import InputError

pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_mhz = 2850", "max_mhz = -2850", ["max_mhz is -2850", "at least 1 and at most 10000"]),
        ("max_mhz = 2850", "max_mhz = 3", ["cpu.clusters.2.max_mhz is 3", "100 to 10000"]),
        ("max_mhz = 2850", 'max_mhz = "2850"', ["cpu.clusters.2.max_mhz is '2850'", "a whole number"]),
        ("max_mhz = 2850", "max_mhz = 2850.0", ["cpu.clusters.2.max_mhz is 2850.0", "a whole number"]),
        ("max_mhz = 2850", "max_mhz = true", ["cpu.clusters.2.max_mhz is True", "a whole number"]),
        ("max_mhz = 2850", "max_mhz = 2.85", ["cpu.clusters.2.max_mhz is 2.85", "a whole number of MHz"]),
        ("ram_mib = 8192", 'ram_mib = "8 GB"', ["memory.ram_mib is '8 GB'", "a whole number of MiB"]),
        ("1578, ", "1.578, ", ["power.active_mw_per_core.1 is 1.578", "10 or more (mW, so 3.3 W is 3300)"]),
        ("skin_limit_c = 39", "skin_limit_c = nan", ["thermal.skin_limit_c is nan", "finite"]),
        ("skin_limit_c = 39", "skin_limit_c = inf", ["thermal.skin_limit_c is inf", "at most 150"]),
        ("skin_limit_c = 39", "skin_limit_c = 20", ["thermal.cool_down_c is 33", "less than"]),
        ("[os]", "[os", ["not valid TOML", "line"]),
        ("vendor =", "vender =", ["vender is not a known key", "did you mean vendor?", "vendor is missing"]),
        ('kind = "phone"', 'kind = "fridge"', ["kind is 'fridge'", "'phone', 'board', 'host', 'generic'"]),
        ("ram_mib = 8192", "ram_mib = 1024", ["memory.app_budget_mib is 2048", "1 to 1024"]),
        ("ram_mib = 8192\n", "", ["memory.ram_mib is missing"]),
        ("1578, ", "", ["power.active_mw_per_core has 2 figures for 3 clusters", "one a cluster"]),
        ('qemu_cpu = "cortex-a76"', 'qemu_cpu = "max"', ["reach.emulator.qemu_cpu is 'max'", "sme=off"]),
        ("api_level = 33\n", "", ["os.api_level is missing"]),
        ("min_sdk = 26", "min_sdk = 34", ["os.min_sdk is 34", "at most os.api_level (33)"]),
        ('name = "android"', 'name = "linux"', ["os.api_level is 33", "only android"]),
        ('status = "unverified"', 'status = "ok"', ["accelerators.0.status is 'ok'", "'known_bad'"]),
        ('method = "fuel_gauge"', 'method = "guess"', ["power.rails.5.method is 'guess'", "'ina3221'"]),
        ('["xnnpack", "vulkan"]', '["xnpack"]', ["runtimes.executorch.delegates.0 is 'xnpack'", "'xnnpack'"]),
        ("schema_version = 1", "schema_version = 7", ["schema_version is 7", "allowed: 1"]),
        ('name = "pixel7"', 'name = "Pixel 7!"', ["name is 'Pixel 7!'", "lower case"]),
        ('"year" =', '"yeer" =', ["sources.yeer covers no figure", "year is 2022 and has no source"]),
        ("l2_kib = 1024", "l2_kib = 8", ["cpu.clusters.2.l2_kib is 8", "at least l1d_kib (64)"]),
        ('arch = "arm64"', 'arch = "x86_64"', ["has dotprod and fp16 and neon, but arch is x86_64"]),
    ],
)  # fmt: skip
def test_broken_profile(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    message = error_of(write(tmp_path, "broken", changed((old, new))))
    assert "broken.toml" in message
    for part in expected:
        assert part in message


def test_a_table_where_several_may_stand_is_told_of_the_brackets(tmp_path: Path) -> None:
    text = (BUILTIN_FOLDER / "raspberry_pi_5.toml").read_text().replace("[[cpu.clusters]]", "[cpu.clusters]")
    message = error_of(write(tmp_path, "mine", text))
    assert "allowed: a list of tables, so [[cpu.clusters]] in two brackets" in message


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Windows' editors put one at the beginning of what they save as UTF-8."""
    path = write(tmp_path, "pixel7", PIXEL7)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_profile(path).name == "pixel7"


def test_unknown_isa_names_the_closed_set(tmp_path: Path) -> None:
    text = PIXEL7.replace('isa = ["neon", "fp16", "dotprod"]', 'isa = ["neon", "fp16", "dotprd"]', 1)
    message = error_of(write(tmp_path, "broken", text))
    assert "cpu.clusters.0.isa.2 is 'dotprd'; allowed: 'neon', 'fp16', 'dotprod', 'i8mm'" in message
    assert message.count("\n") == 0


@pytest.mark.parametrize(
    ("core", "isa", "expected"),
    [
        ("cortex-x1", '["neon", "fp16", "dotprod", "i8mm"]', "has i8mm, which a cortex-x1 doesn't have"),
        ("cortex-a53", '["neon", "dotprod"]', "has dotprod, which a cortex-a53 doesn't have"),
        ("cortex-x3", '["neon", "fp16", "i8mm"]', "has i8mm without dotprod"),
        ("cortex-x3", '["neon", "fp16", "dotprod", "sve2"]', "has sve2 without sve"),
        ("cortex-x3", '["neon", "neon"]', "names a feature twice"),
    ],
)
def test_instructions_a_core_cannot_have(tmp_path: Path, core: str, isa: str, expected: str) -> None:
    text = changed(('core = "cortex-x1"', f'core = "{core}"'))
    before, _, after = text.rpartition('isa = ["neon", "fp16", "dotprod"]')
    assert expected in error_of(write(tmp_path, "broken", f"{before}isa = {isa}{after}"))


@pytest.mark.parametrize(
    ("citation", "expected"),
    [
        ("", "is ''"),
        ("estimate", "allowed: a citation"),
        ("Estimate: ", "allowed: a citation"),
        ("see https://example.org/x", "holds an address"),
    ],
)
def test_a_source_must_say_something(tmp_path: Path, citation: str, expected: str) -> None:
    lines = [f'"year" = "{citation}"' if line.startswith('"year"') else line for line in PIXEL7.splitlines()]
    message = error_of(write(tmp_path, "broken", "\n".join(lines)))
    assert "sources.year" in message and expected in message


@pytest.mark.parametrize("key", ["memory.ram_mib", "power.active_mw_per_core", "cpu.clusters"])
def test_a_figure_without_a_source_is_refused(tmp_path: Path, key: str) -> None:
    lines = [line for line in PIXEL7.splitlines() if not line.startswith(f'"{key}"')]
    message = error_of(write(tmp_path, "broken", "\n".join(lines)))
    assert f"{key}" in message and "has no source" in message


def test_several_problems_come_together(tmp_path: Path) -> None:
    text = changed(("max_mhz = 2850", "max_mhz = -1"), ('kind = "phone"', 'kind = "fridge"'))
    message = error_of(write(tmp_path, "broken", text))
    first, *rest = message.splitlines()
    assert first.endswith("broken.toml: 2 problems:")
    assert len(rest) == 2


def test_not_text_a_folder_and_far_too_big(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.toml").mkdir()
    write(tmp_path, "big", "#" * (2 << 20))
    assert "not UTF-8" in error_of(tmp_path / "bytes.toml")
    assert "can't be read" in error_of(tmp_path / "folder.toml")
    assert "too big" in error_of(tmp_path / "big.toml")


def test_dotted_source_keys_need_no_quotes(tmp_path: Path) -> None:
    plain = PIXEL7.replace('"memory.ram_mib" =', "memory.ram_mib =")
    assert load_profile(write(tmp_path, "plain", plain)) == load_profile("pixel7")


# Random damage


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(each for key, item in below for each in _paths(item, (*path, key)))]


VALID = tomllib.loads(PIXEL7)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.dates(),
)
DAMAGE = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    hits=st.lists(
        st.tuples(st.sampled_from(_paths(VALID)), st.sampled_from(["drop", "set", "add"]), DAMAGE),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_damage_gives_a_profile_or_an_input_error(hits: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    """Validation never fails in any other way, and its message can always be made."""
    from pydantic import ValidationError

    raw = json.loads(json.dumps(VALID))
    for path, action, value in hits:
        _damage(raw, path, action, value)
    try:
        profile = DeviceProfile.model_validate(raw)
    except ValidationError as error:
        message = str(input_error("damaged.toml", error))
        assert message.startswith("damaged.toml: ")
        return
    assert all(math.isfinite(value) for value in profile.figures().values())
    assert len(profile.fingerprint()) == 64


def _damage(raw: Any, path: tuple[Any, ...], action: str, value: Any) -> None:
    for part in path[:-1]:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return
    if not isinstance(raw, dict | list):
        return
    key = path[-1]
    there = key in raw if isinstance(raw, dict) else isinstance(key, int) and key < len(raw)
    if action == "drop" and there:
        del raw[key]
    elif isinstance(raw, dict):
        raw[f"{key}x" if action == "add" else key] = value
    elif action == "add":
        raw.append(value)
    elif there:
        raw[key] = value


@given(cut=st.integers(0, len(PIXEL7)), insert=st.text(max_size=6), skip=st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_damaged_text_gives_a_profile_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, insert: str, skip: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    text = PIXEL7[:cut] + insert + PIXEL7[cut + skip :]
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        profile = load_profile(path)
    except InputError as error:
        assert "damaged.toml" in str(error)
    else:
        assert profile.total_cores >= 1


@given(value=DAMAGE)
@settings(max_examples=100, deadline=None)
def test_every_number_is_a_figure(value: Any) -> None:
    leaves = dict(numeric_leaves({"value": value}))
    assert all(not isinstance(number, bool) for number in leaves.values())
    assert all(covering_source(key, {"value": "x"}) == "value" for key in leaves)
