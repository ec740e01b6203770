"""Parity and counts of the demo and three small networks on emulated cores, as the tables of docs/emulator.md.

    python benchmarks/emulator_parity.py FOLDER [MODEL...]    # exports into FOLDER what isn't there yet

For every precision and both formats: the arm64 outputs against this machine's and the source model's on each kind
of core of the devices, five counted runs of each, and the instructions that did the multiplying.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgeopt.android_harness.emulator import cpu_of, run, verify_on_emulator
from edgeopt.android_harness.emulator.verification import BundleCheck
from edgeopt.bundle import Bundle, load_bundle
from edgeopt.device_profiles import load_profile

_OWN = Path(__file__).with_name("parity_models.py")
# name -> what `edgeopt export` is told of it
MODELS = {
    "demo": ["examples.digits:net"],
    **{
        name: [f"{_OWN}:{name}", "--example-inputs", f"{_OWN}:{one}", "--calibration", f"{_OWN}:{many}"]
        for name, one, many in (
            ("unet", "image", "images"), ("mobile", "image", "images"), ("encoder", "tokens", "sequences")
        )
    },
}  # fmt: skip
PRECISIONS = "fp32,fp16,int8-dynamic,int8-static"
DEVICES = ("raspberry_pi_3b_plus", "raspberry_pi_5", "pixel7")
# Counted too, for its i8mm.
NEWER = "pixel8"
RUNS = 5
MULTIPLIERS = ("fp32_fma", "fp16_fma", "int8_widening", "dotprod", "i8mm")


def main(folder: Path, *names: str) -> int:
    bundles = {name: _bundle(folder, name) for name in names or MODELS}
    failures = 0
    print("| Model, file | " + " | ".join(_cores(DEVICES)) + " |")
    print("|---" * (1 + len(_cores(DEVICES))) + "|")
    for name, bundle in bundles.items():
        checks = [check for device in DEVICES for check in verify_on_emulator(bundle, load_profile(device))]
        failures += sum(not check.ok for check in checks)
        for artifact in bundle.artifacts:
            cells = [_cell(check) for check in checks if check.artifact == artifact.file]
            print(f"| {name} {artifact.file} | " + " | ".join(cells) + " |", flush=True)
    print(
        f"\n| Model, file | Core | Instructions, the same in {RUNS} runs | Of these, multiply-accumulates |"
    )
    print("|---|---|---|---|")
    for name, bundle in bundles.items():
        failures += _count(name, bundle)
    return failures


def _bundle(folder: Path, name: str) -> Bundle:
    path = folder / name
    if not path.is_dir():
        command = [
            sys.executable, "-m", "edgeopt", "export", *MODELS[name], "--profile", "raspberry_pi_5",
            "--precision", PRECISIONS, "-o", str(path),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=sys.stderr)
    return load_bundle(path)


def _cores(devices: tuple[str, ...]) -> list[str]:
    return [c.core for device in devices for c in load_profile(device).cpu.clusters]


def _cell(check: BundleCheck) -> str:
    host = check.parity.with_host
    assert host is not None
    found = "bit-equal" if host.bit_equal else f"{host.relative:.0e} of {check.parity.tolerance:.0e}"
    return found if check.ok else f"**{found}**"


def _count(name: str, bundle: Bundle) -> int:
    """One line for each file and core; how many of them had counts that differed."""
    inputs = bundle.golden()[0][0]
    different = 0
    for artifact in bundle.artifacts:
        for device in (*DEVICES, NEWER):
            cpu = cpu_of(load_profile(device))
            counts = [run(bundle.artifact_path(artifact), inputs, cpu).counts for _ in range(RUNS)]
            assert counts[0] is not None
            same = all(one == counts[0] for one in counts)
            different += not same
            mix = counts[0].mix()
            kinds = ", ".join(f"{mix[kind]:,} {kind}" for kind in MULTIPLIERS if mix[kind])
            instructions = f"{counts[0].instructions:,}" + ("" if same else " (NOT the same)")
            print(f"| {name} {artifact.file} | {cpu.core} | {instructions} | {kinds} |", flush=True)
    return different


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
