"""Rewrites a captured program into an equal one that the exporters take.

Front door: :func:`rewrite_capture` (what helps both formats, once, before anything is optimised) and
:func:`rewrite_program` (what helps one format, in its converter).
"""

from __future__ import annotations

from dataclasses import replace as replace_fields

import torch
from torch.export import ExportedProgram

from ..models.findings import Finding
from ..models.program import Capture, module_path, source_line
from .branches import select_branches
from .complex_pairs import MAX_TRANSFORM, NoPairForm, is_complex, split_complex
from .equal_forms import equal_form
from .linear_forms import linear_from_products
from .rewriting import copy_program, finish, fold_constants, replace, separate_outputs

_MAX_MATRIX = 4 * MAX_TRANSFORM * (MAX_TRANSFORM // 2 + 1)
_BRANCHES = "torch.cond is written as both branches and a selection, so each inference computes both"
_COMPLEX = "complex numbers are written as pairs of real tensors"


def rewrite_capture(capture: Capture) -> Capture:
    """``capture`` with everything rewritten that neither format takes as it stands.

    What was rewritten is added to the findings as notes. A program that can't be rewritten stays as it is
    for pre-flight to judge.
    """
    program, selected = select_branches(capture.program)
    notes = [_note(node, _BRANCHES, None) for node in selected[:1]]
    program, more = rewrite_program(program, None)
    notes += more
    folded = copy_program(program)
    if fold_constants(folded) + separate_outputs(folded):
        finish(folded)
        program = folded
    if any(is_complex(node) for node in program.graph_module.graph.nodes):
        changed = copy_program(program)
        try:
            origins = split_complex(changed)
            # The matrices of a Fourier transform are worth their bytes: made anew, they cost more than using them.
            fold_constants(changed, max_bytes=_MAX_MATRIX)
            finish(changed)
            program = changed
            notes += [_note(node, _COMPLEX, None) for node in origins[:1]]
        except NoPairForm as error:
            notes.append(_unpaired(error.node, capture))
    program = linear_from_products(program, parameters_only=True)
    return replace_fields(capture, program=program, findings=(*capture.findings, *notes))


def rewrite_program(
    program: ExportedProgram, output_format: str | None
) -> tuple[ExportedProgram, list[Finding]]:
    """``program`` with each operator that a format can't take replaced by an equal form.

    Args:
        output_format: ``pte``, ``tflite``, or ``pte int8`` for a quantised graph; None takes the forms that
            both formats need.

    Returns:
        The program itself when there is nothing to do, else a changed copy, and a note for each kind of change.
    """
    forms = [equal_form(node, output_format) for node in program.graph_module.graph.nodes]
    wanted = [form for form in forms if form is not None]
    if not wanted:
        return program, []
    notes: dict[str, Finding] = {}
    changed = copy_program(program)
    for node in list(changed.graph_module.graph.nodes):
        form = equal_form(node, output_format)
        if form is not None:
            if form.title:
                notes.setdefault(str(node.target), _note(node, form.title, output_format))
            replace(changed, node, form.function, form.inputs)
    if any(form.cuts_weights for form in wanted):
        # The pieces are weights of their own, or XNNPACK takes none of the convolutions.
        fold_constants(changed, views=True)
    finish(changed)
    return changed, list(notes.values())


def _unpaired(node: torch.fx.Node, capture: Capture) -> Finding:
    if node.op == "placeholder":
        name = capture.source.inputs[capture.program.graph_signature.user_inputs.index(node.name)].name
        return Finding("error", f"input {name!r} is complex, and neither format has complex numbers",
                       suggestion="take its real and imaginary parts as two inputs")  # fmt: skip
    return replace_fields(
        _note(
            node, f"neither format has complex numbers, and {node.target} has no form in real ones here", None
        ),
        severity="error",
        suggestion="keep the real and imaginary parts in separate tensors",
    )


def _note(node: torch.fx.Node, message: str, output_format: str | None) -> Finding:
    return Finding(
        "note",
        message,
        format=output_format,
        op=str(node.target),
        module=module_path(node),
        source=source_line(node),
    )
