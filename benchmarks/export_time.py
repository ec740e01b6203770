"""Export time and peak memory against calling the two exporters by hand on the same model.

    python benchmarks/export_time.py [mobilenet_v2 resnet50 bert_base]

Each side runs in a fresh process: by hand one exporter after the other, as their tutorials show; edgeopt as a
user calls it, float32, both formats, with its pre-flight, inspection, verification and bundle. CPU seconds
and wall seconds include importing torch and the exporters on both sides; peak memory is the largest process's
and, for edgeopt, also the sum of what its processes held at once.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MODELS = ("mobilenet_v2", "resnet50", "bert_base")


def build(name: str):
    """A real architecture with random weights (transformers' configurations), and its example inputs."""
    import torch
    import transformers as tf

    torch.manual_seed(0)

    class Logits(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            output = self.model(*inputs)
            return output.logits if hasattr(output, "logits") else output.last_hidden_state

    if name == "mobilenet_v2":
        model = tf.MobileNetV2ForImageClassification(tf.MobileNetV2Config(num_labels=1000))
    elif name == "resnet50":
        model = tf.ResNetForImageClassification(tf.ResNetConfig(num_labels=1000))
    else:
        model = tf.BertModel(tf.BertConfig(attn_implementation="eager"), add_pooling_layer=False)
        mask = torch.zeros(1, 1, 128, 128)
        return Logits(model).eval(), (torch.randint(0, 30000, (1, 128)), mask)
    return Logits(model).eval(), (torch.randn(1, 3, 224, 224),)


def by_hand(name: str, folder: Path) -> None:
    """What the exporters' own tutorials say."""
    import torch

    model, inputs = build(name)
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(model, inputs)
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    (folder / "model.pte").write_bytes(edge.to_executorch().buffer)
    import litert_torch

    litert_torch.convert(model, inputs).export(str(folder / "model.tflite"))


def with_edgeopt(name: str, folder: Path) -> None:
    """The same two files, verified and bundled."""
    import edgeopt

    model, inputs = build(name)
    edgeopt.export(
        model,
        profile="pixel7",
        precision="fp32",
        example_inputs=inputs,
        output=folder / "bundle",
        name=name,
        use_cache=False,
    )


def measure(side: str, name: str) -> dict[str, float]:
    """Run one side in a fresh process and watch the memory of it and its children."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(
            [sys.executable, __file__, "--side", side, name, folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
        peak = {"sum": 0.0, "largest": 0.0}
        watcher = threading.Thread(target=_watch, args=(process, peak))
        watcher.start()
        _, err = process.communicate()
        watcher.join()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            raise SystemExit(f"{side} {name} failed: {err.decode()[-2000:]}")
        return {
            "wall_s": time.monotonic() - started,
            "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "largest_process_mib": peak["largest"],
            "all_processes_mib": peak["sum"],
        }


def _watch(process: subprocess.Popen[bytes], peak: dict[str, float]) -> None:
    while process.poll() is None:
        sizes = [_pss_mib(pid) for pid in _family(process.pid)]
        peak["sum"] = max(peak["sum"], sum(sizes))
        peak["largest"] = max([peak["largest"], *sizes])
        time.sleep(0.25)


def _family(root: int) -> list[int]:
    family, pending = [], [root]
    while pending:
        pid = pending.pop()
        family.append(pid)
        try:
            pending += [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            continue
    return family


def _pss_mib(pid: int) -> float:
    # Proportional set size: pages that forked processes share count once.
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def main() -> None:
    """Measure and print a Markdown table and, last, one JSON line."""
    if sys.argv[1:2] == ["--side"]:
        side, name, folder = sys.argv[2:5]
        {"by_hand": by_hand, "edgeopt": with_edgeopt}[side](name, Path(folder))
        return
    results = []
    print("| Model | | wall s | CPU s | largest process MiB | all processes MiB |\n|---|---|---|---|---|---|")
    for name in sys.argv[1:] or MODELS:
        for side in ("by_hand", "edgeopt"):
            figures = measure(side, name)
            results.append({"model": name, "side": side, **figures})
            cells = " | ".join(
                f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in figures.values()
            )
            print(f"| {name} | {side.replace('_', ' ')} | {cells} |", flush=True)
    print(json.dumps({"load_average": os.getloadavg()[0], "results": results}))


if __name__ == "__main__":
    main()
