"""The counter's decoder and its cache model, apart from QEMU: the C headers compiled for this machine."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.android_harness.emulator.build import COUNTER_SOURCES
from edgeopt.android_harness.emulator.counts import GROUPS, read_phases
from edgeopt.errors import EdgeoptError

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")

HARNESS = """
#include <stdlib.h>
#include "cache.h"
#include "decode.h"
const char *name_of(uint32_t w) { return class_names[decode(w).cls]; }
unsigned macs_of(uint32_t w) { return decode(w).macs; }
int kind_of(uint32_t w) { return decode(w).mac; }
int class_count(void) { return CLASS_COUNT; }
const char *class_name(int i) { return class_names[i]; }
static struct cache levels[LEVELS];
void reset(uint32_t sets, uint32_t ways) {
    free(levels[0].tags);
    levels[0] = (struct cache){calloc(sets * ways, 8), sets, ways, (sets & (sets - 1)) ? 0 : sets - 1,
                               0, 0, {0}, 0};
    for (int i = 0; i < STREAMS; i++) levels[0].streams[i] = (uint64_t)-16;
}
void touch(uint64_t line) { caches_access(levels, line); }
uint64_t misses(void) { return levels[0].misses; }
uint64_t stream_misses(void) { return levels[0].stream_misses; }
"""

# Words as the GNU assembler writes them; test_the_words_are_what_the_assembler_writes checks every one.
ENCODINGS = [
    ("add x0, x1, x2", 0x8B020020, "int_alu", 0),
    ("madd x0, x1, x2, x3", 0x9B020C20, "int_mul", 0),
    ("sdiv x0, x1, x2", 0x9AC20C20, "int_div", 0),
    ("b.ne .", 0x54000001, "branch", 0),
    ("ret", 0xD65F03C0, "branch", 0),
    ("svc #0", 0xD4000001, "system", 0),
    ("ldr x0, [x1, #8]", 0xF9400420, "load", 0),
    ("ldrsw x0, [x1]", 0xB9800020, "load", 0),
    ("str w0, [x1]", 0xB9000020, "store", 0),
    ("ldp x0, x1, [sp], #16", 0xA8C107E0, "load_pair", 0),
    ("stp x0, x1, [sp, #-16]!", 0xA9BF07E0, "store_pair", 0),
    ("ldaxr w0, [x1]", 0x885FFC20, "atomic", 0),
    ("ldadd w0, w1, [x2]", 0xB8200041, "atomic", 0),
    ("prfm pldl1keep, [x0, #64]", 0xF9802000, "prefetch", 0),
    ("ldr q0, [x1]", 0x3DC00020, "load_simd_q", 0),
    ("ldr d0, [x1], #8", 0xFC408420, "load_simd", 0),
    ("ldp q0, q1, [x2], #32", 0xACC10440, "load_simd_pair", 0),
    ("ld1 {v0.16b, v1.16b}, [x0], #32", 0x4CDFA000, "load_simd_multi", 0),
    ("ld1r {v0.4s}, [x0]", 0x4D40C800, "load_simd_lane", 0),
    ("str q0, [x1]", 0x3D800020, "store_simd_q", 0),
    ("st1 {v0.4s}, [x0]", 0x4C007800, "store_simd_multi", 0),
    ("fmadd s0, s1, s2, s3", 0x1F020C20, "fp_scalar_fma", 1),
    ("fadd s0, s1, s2", 0x1E222820, "fp_scalar", 0),
    ("fdiv s0, s1, s2", 0x1E221820, "fp_div_sqrt", 0),
    ("fmov x0, d1", 0x9E660020, "fp_int_move", 0),
    ("scvtf s0, w1", 0x1E220020, "simd_convert", 0),
    ("fmla v0.4s, v1.4s, v2.s[0]", 0x4F821020, "fp32_fma", 4),
    ("fmla v0.4s, v1.4s, v2.4s", 0x4E22CC20, "fp32_fma", 4),
    ("fmla v0.2s, v1.2s, v2.2s", 0x0E22CC20, "fp32_fma_d", 2),
    ("fmla v0.2d, v1.2d, v2.2d", 0x4E62CC20, "fp64_fma", 0),
    ("fmla v0.8h, v1.8h, v2.8h", 0x4E420C20, "fp16_fma", 8),
    ("fmla v0.8h, v1.8h, v2.h[0]", 0x4F021020, "fp16_fma", 8),
    ("fmul v0.4s, v1.4s, v2.4s", 0x6E22DC20, "fp32_arith", 0),
    ("fmax v0.4s, v1.4s, v2.4s", 0x4E22F420, "fp32_arith", 0),
    ("fdiv v0.4s, v1.4s, v2.4s", 0x6E22FC20, "fp_div_sqrt", 0),
    ("smlal v0.8h, v1.8b, v2.8b", 0x0E228020, "int8_widening_mac", 8),
    ("smull v0.8h, v1.8b, v2.8b", 0x0E22C020, "int8_widening_mac", 8),
    ("smlal v0.4s, v1.4h, v2.4h", 0x0E628020, "int16_widening_mac", 4),
    ("smlal2 v0.4s, v1.8h, v2.h[0]", 0x4F422020, "int16_widening_mac", 4),
    ("mla v0.4s, v1.4s, v2.4s", 0x4EA29420, "simd_mul", 0),
    ("sqdmulh v0.4s, v1.4s, v2.4s", 0x4EA2B420, "simd_mul", 0),
    ("sdot v0.4s, v1.16b, v2.16b", 0x4E829420, "dotprod", 16),
    ("sdot v0.4s, v1.16b, v2.4b[0]", 0x4F82E020, "dotprod", 16),
    ("udot v0.2s, v1.8b, v2.8b", 0x2E829420, "dotprod_d", 8),
    ("usdot v0.4s, v1.16b, v2.16b", 0x4E829C20, "dotprod", 16),
    ("smmla v0.4s, v1.16b, v2.16b", 0x4E82A420, "i8mm", 32),
    ("bfmmla v0.4s, v1.8h, v2.8h", 0x6E42EC20, "bf16_mac", 0),
    ("add v0.4s, v1.4s, v2.4s", 0x4EA28420, "simd_int", 0),
    ("movi v0.4s, #0", 0x4F000400, "simd_int", 0),
    ("sshr v0.4s, v1.4s, #2", 0x4F3E0420, "simd_shift", 0),
    ("sqxtn v0.4h, v1.4s", 0x0E614820, "simd_shift", 0),
    ("zip1 v0.4s, v1.4s, v2.4s", 0x4E823820, "simd_permute", 0),
    ("ext v0.16b, v1.16b, v2.16b, #8", 0x6E024020, "simd_permute", 0),
    ("tbl v0.16b, {v1.16b}, v2.16b", 0x4E020020, "simd_permute", 0),
    ("dup v0.4s, v1.s[0]", 0x4E040420, "simd_permute", 0),
    ("ins v0.d[1], x1", 0x4E181C20, "fp_int_move", 0),
    ("umov w0, v1.b[0]", 0x0E013C20, "fp_int_move", 0),
    ("scvtf v0.4s, v1.4s", 0x4E21D820, "simd_convert", 0),
    ("fcvtns v0.4s, v1.4s", 0x4E21A820, "simd_convert", 0),
    ("addv s0, v1.4s", 0x4EB1B820, "simd_reduce", 0),
    ("aese v0.16b, v1.16b", 0x4E284820, "crypto", 0),
    ("ld1w {z0.s}, p0/z, [x0]", 0xA540A000, "sve_load", 0),
    ("st1w {z0.s}, p0, [x0]", 0xE540E000, "sve_store", 0),
    ("fmla z0.s, p0/m, z1.s, z2.s", 0x65A20020, "sve_fp_mac", 4),
    ("sdot z0.s, z1.b, z2.b", 0x44820020, "sve_int_mac", 16),
    ("add z0.s, z1.s, z2.s", 0x04A20020, "sve_other", 0),
]


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("counter")
    (folder / "harness.c").write_text(HARNESS)
    subprocess.run(
        ["gcc", "-O1", "-shared", "-fPIC", f"-I{COUNTER_SOURCES}", str(folder / "harness.c"),
         "-o", str(folder / "harness.so")],
        check=True,
    )  # fmt: skip
    library = ctypes.CDLL(str(folder / "harness.so"))
    library.name_of.restype = library.class_name.restype = ctypes.c_char_p
    library.misses.restype = library.stream_misses.restype = ctypes.c_uint64
    library.touch.argtypes = [ctypes.c_uint64]
    return library


@pytest.mark.parametrize(("text", "word", "cls", "macs"), ENCODINGS, ids=[e[0] for e in ENCODINGS])
def test_classes(counter: ctypes.CDLL, text: str, word: int, cls: str, macs: int) -> None:
    assert (counter.name_of(word).decode(), counter.macs_of(word)) == (cls, macs)


@pytest.mark.emulator
@pytest.mark.slow
def test_the_words_are_what_the_assembler_writes(tmp_path: Path) -> None:
    from edgeopt.android_harness.emulator import setup

    toolchain = setup()
    tools = toolchain.folder / "host" / "usr" / "bin"
    environment = {"LD_LIBRARY_PATH": toolchain.host_libraries}
    source = tmp_path / "all.s"
    source.write_text("\n".join(text for text, *_ in ENCODINGS) + "\n")
    subprocess.run(
        [
            tools / "aarch64-linux-gnu-as",
            "-march=armv8.6-a+sve+crypto+fp16",
            source,
            "-o",
            tmp_path / "all.o",
        ],
        check=True,
        env=environment,
    )
    subprocess.run(
        [
            tools / "aarch64-linux-gnu-objcopy",
            "-O",
            "binary",
            "-j",
            ".text",
            tmp_path / "all.o",
            tmp_path / "all.bin",
        ],
        check=True,
        env=environment,
    )
    code = (tmp_path / "all.bin").read_bytes()
    words = [int.from_bytes(code[i : i + 4], "little") for i in range(0, len(code), 4)]
    wrong = [
        (text, hex(word), hex(got))
        for (text, word, *_), got in zip(ENCODINGS, words, strict=True)
        if word != got
    ]
    assert wrong == []


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=2000, deadline=None)
def test_every_word_has_a_class_and_only_macs_count(word: int) -> None:
    library = _shared_library()
    name, macs, kind = library.name_of(word).decode(), library.macs_of(word), library.kind_of(word)
    assert macs == 0 or kind != 0
    assert macs in (0, 1, 2, 4, 8, 16, 32), name


def test_every_class_stands_in_one_group_of_the_mix(counter: ctypes.CDLL) -> None:
    names = [counter.class_name(i).decode() for i in range(counter.class_count())]
    grouped = [name for members in GROUPS.values() for name in members]
    assert sorted(grouped) == sorted(names)


_LIBRARY: list[ctypes.CDLL] = []


@pytest.fixture(autouse=True, scope="module")
def _share(counter: ctypes.CDLL) -> None:
    _LIBRARY[:] = [counter]


def _shared_library() -> ctypes.CDLL:
    return _LIBRARY[0]


def _replay(counter: ctypes.CDLL, sets: int, ways: int, lines: list[int]) -> tuple[int, int]:
    counter.reset(sets, ways)
    for line in lines:
        counter.touch(line)
    return counter.misses(), counter.stream_misses()


def test_a_working_set_that_fits_misses_once(counter: ctypes.CDLL) -> None:
    assert _replay(counter, 64, 4, list(range(256)) * 5)[0] == 256


def test_a_cyclic_sweep_one_line_too_long_always_misses(counter: ctypes.CDLL) -> None:
    # Least recently used, fully associative: a loop over ways + 1 lines never hits.
    assert _replay(counter, 1, 4, list(range(5)) * 10)[0] == 50


def test_sets_that_are_no_power_of_two_work(counter: ctypes.CDLL) -> None:
    assert _replay(counter, 48, 4, list(range(192)) * 3)[0] == 192


def test_streams_are_told_from_random_misses(counter: ctypes.CDLL) -> None:
    misses, streamed = _replay(counter, 64, 4, list(range(10_000, 20_000)))
    assert misses == 10_000 and streamed == 9_999
    misses, streamed = _replay(counter, 64, 4, [1_000_000 + 97 * (i * i % 7919) for i in range(3000)])
    assert streamed < 0.01 * misses


@given(st.lists(st.integers(0, 300), max_size=400))
@settings(max_examples=100, deadline=None)
def test_misses_equal_a_plain_lru_model(lines: list[int]) -> None:
    sets, ways = 8, 2
    content: list[list[int]] = [[] for _ in range(sets)]
    expected = 0
    for line in lines:
        row = content[line % sets]
        if line in row:
            row.remove(line)
        else:
            expected += 1
            del row[: max(0, len(row) - ways + 1)]
        row.append(line)
    assert _replay(_shared_library(), sets, ways, lines)[0] == expected


def test_an_empty_count_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "counts.jsonl").write_text("")
    with pytest.raises(EdgeoptError, match="before one inference"):
        read_phases(tmp_path / "counts.jsonl")
