"""The options of ``edgeopt export``, by what they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MODEL, _OPTIMISE, _GATES, _OUTPUT = "The model", "What to make of it", "Gates (exit 3)", "Where it goes"


def _option(*names: str, panel: str, text: str) -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(*names, help=text, rich_help_panel=panel)
    return info


Profile = Annotated[
    str,
    typer.Option(
        "--profile", "--device", "-p", help="Target: a name that edgeopt profiles lists, or a TOML file."
    ),
]
Formats = Annotated[
    str | None,
    _option(
        "--format",
        "-f",
        panel=_OPTIMISE,
        text="pte, tflite or both (pte,tflite); default: what the framework can become, both for PyTorch.",
    ),
]
Precision = Annotated[
    str | None,
    _option(
        "--precision",
        panel=_OPTIMISE,
        text="fp32, fp16, int8-dynamic, int8-static, mixed, int8-weights, int4-dynamic, int4-weights, w8a16; comma-separated.",
    ),
]
Recipe = Annotated[str, _option("--recipe", panel=_OPTIMISE, text="auto, a named recipe, or a TOML file.")]
Calibration = Annotated[
    str | None,
    _option("--calibration", panel=_OPTIMISE, text="Samples for static int8: FILE.npz or module:function."),
]
Train = Annotated[
    str | None,
    _option("--train", panel=_OPTIMISE, text="Data for recipes that train: module:function or FILE.npz."),
]
Eval = Annotated[
    str | None,
    _option("--eval", panel=_GATES, text="Task metric: module:function, or FILE.npz with inputs and labels."),
]
# The same where no gate hangs on it.
Metric = Annotated[
    str | None,
    _option(
        "--eval", panel=_OPTIMISE, text="Task metric: module:function, or FILE.npz with inputs and labels."
    ),
]
MaxAccuracyDrop = Annotated[
    str | None, _option("--max-accuracy-drop", panel=_GATES, text="How far the metric may fall, e.g. 1%.")
]
MinSnrDb = Annotated[
    float | None,
    _option("--min-snr-db", panel=_GATES, text="Least SNR of every output, instead of the default."),
]
RequireFullDelegation = Annotated[
    bool, _option("--require-full-delegation", panel=_GATES, text="No operator may be left to slow kernels.")
]
Strict = Annotated[bool, _option("--strict", panel=_GATES, text="Every format asked for must be made.")]
ExampleInputs = Annotated[
    str | None,
    _option(
        "--example-inputs", panel=_MODEL, text="FILE.npz, or module:name of a function or of the tensors."
    ),
]
InputShape = Annotated[
    list[str] | None,
    _option(
        "--input-shape",
        panel=_MODEL,
        text="name:float32[1,3,224,224], once an input; a word is a dynamic size.",
    ),
]
DynamicBatch = Annotated[
    bool, _option("--dynamic-batch", panel=_MODEL, text="Let the first axis of every input vary (1 to 16).")
]
ModelArgs = Annotated[
    str | None, _option("--model-args", panel=_MODEL, text="JSON keyword arguments of the class or factory.")
]
Weights = Annotated[
    Path | None,
    _option("--weights", panel=_MODEL, text="A state_dict (.pt, .safetensors) to load into the model."),
]
TrustPickle = Annotated[
    bool,
    _option("--trust-pickle", panel=_MODEL, text="Allow files that hold pickles, which run code when read."),
]
Labels = Annotated[
    Path | None,
    _option("--labels", panel=_OUTPUT, text="For edgeopt app: a file with the classes' names, one a line."),
]
Mean = Annotated[
    str | None,
    _option(
        "--mean", panel=_OUTPUT, text="For edgeopt app: of the image input after / 255, e.g. 0.5,0.5,0.5."
    ),
]
Std = Annotated[str | None, _option("--std", panel=_OUTPUT, text="For edgeopt app: goes with --mean.")]
Name = Annotated[str | None, _option("--name", panel=_OUTPUT, text="The model's name in the bundle.")]
Output = Annotated[
    Path | None,
    _option("--output", "-o", panel=_OUTPUT, text="The bundle's folder; default: MODEL_PROFILE here."),
]
Force = Annotated[bool, _option("--force", panel=_OUTPUT, text="Replace the bundle that stands there.")]
NoCache = Annotated[
    bool, _option("--no-cache", panel=_OUTPUT, text="Convert anew what was converted before.")
]
DryRun = Annotated[
    bool, _option("--dry-run", panel=_OUTPUT, text="Say what would be made, and make nothing.")
]
