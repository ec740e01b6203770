"""A problem found in a model: what, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        severity: ``error`` stops the format it concerns, ``warning`` and ``note`` do not.
        message: one sentence.
        format: ``pte`` or ``tflite``; None concerns both.
        op: the operator, e.g. ``aten.grid_sampler_2d``.
        module: the path of the module in the user's model, e.g. ``backbone.3.conv``.
        source: ``file:line`` of the user's code.
        suggestion: what to change.
    """

    severity: Severity
    message: str
    format: str | None = None
    op: str | None = None
    module: str | None = None
    source: str | None = None
    suggestion: str | None = None

    def sentence(self, *, with_format: bool = True) -> str:
        """The finding on one line: format, message, place, suggestion."""
        where = ", ".join(
            part
            for part in (
                f"module {self.module}" if self.module else "",
                f"op {self.op}" if self.op and self.op not in self.message else "",
                self.source or "",
            )
            if part
        )
        text = f"{self.format}: {self.message}" if self.format and with_format else self.message
        text = text.rstrip(".")
        if where:
            text += f" ({where})"
        return text + (f"; {self.suggestion}" if self.suggestion else "")

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain data for JSON; empty fields are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def said_once(findings: Iterable[Finding]) -> str:
    """The findings' sentences in one; what several formats share is said once."""
    formats: dict[str, list[str]] = {}
    for finding in findings:
        named = formats.setdefault(finding.sentence(with_format=False), [])
        if finding.format and finding.format not in named:
            named.append(finding.format)
    return "; ".join(f"{' and '.join(named)}: {text}" if named else text for text, named in formats.items())


def not_made_because(not_made: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The files that were not made, as a manifest lists them, each reason once with all its files in words."""
    files: dict[str, list[str]] = {}
    for item in not_made:
        files.setdefault(item["sentence"], []).append(item["file"])
    return [
        (" and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names), reason)
        for reason, names in files.items()
    ]
