"""Draws kernels under the roofs of a device, as an SVG that needs no package."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from ..cost_model.roofline import Point, Roofline
from ..disk import written_whole
from ..errors import InputError

_WIDTH, _HEIGHT = 900, 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 170, 46, 52
_COLOURS = {"compute": "#3b6ea8", "memory": "#b03a2e", "dispatch": "#8a8a8a"}
# The words of the cost model's instruction paths, for a reader who hasn't seen its source.
_PATH_WORDS = {
    "fp32": "float32",
    "fp16": "float16",
    "dot": "int8 dot products",
    "i8mm": "int8 matrix products",
}
_LABEL_LINE, _TITLE_SIZE, _TITLE_LETTER = 14.0, 15.0, 8.0
_WORDS = {"compute": "bound by arithmetic", "memory": "bound by memory", "dispatch": "starting kernels"}


def draw_roofline(path: Path, roof: Roofline) -> None:
    """Write an SVG: operations a byte to the right, attained speed upwards, both logarithmic; a circle a kernel,
    as large as its share of the time.

    Raises:
        InputError: a file name with another ending, a place that can't be written, or no kernel to draw.
    """
    if path.suffix.lower() != ".svg":
        raise InputError(f"--roofline {path}: the file's name must end in .svg.")
    if not roof.points:
        raise InputError("--roofline: the model has no kernel with multiply-accumulates to draw.")
    with written_whole(path, "--roofline") as partial:
        partial.write_text(_svg(roof), encoding="utf-8")


class _Axes:
    """Logarithmic axes that hold all points and the roofs' knees."""

    def __init__(self, roof: Roofline) -> None:
        xs = [point.macs_per_byte for point in roof.points]
        ys = [point.gmacs_per_s for point in roof.points]
        knees = [peak / roof.bandwidth_gb_s for peak in roof.peaks.values()]
        self.x0, self.x1 = math.floor(math.log10(min(xs))), math.ceil(math.log10(max([*xs, *knees]) * 1.5))
        self.y0 = math.floor(math.log10(min(ys)))
        self.y1 = math.ceil(math.log10(max([*ys, *roof.peaks.values()]) * 1.2))

    def x(self, value: float) -> float:
        share = (math.log10(value) - self.x0) / (self.x1 - self.x0)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (math.log10(value) - self.y0) / (self.y1 - self.y0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _svg(roof: Roofline) -> str:
    axes = _Axes(roof)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _title(roof.title),
        *_grid(axes),
        *_roofs(axes, roof),
        # Large circles first, so that small ones lie on top of them.
        *(_circle(axes, point) for point in sorted(roof.points, key=lambda point: -point.share)),
        *_legend(roof),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _title(title: str) -> str:
    """The title, in smaller letters where it would run out of the picture."""
    room = (_WIDTH - 2 * _LEFT) / (_TITLE_LETTER / _TITLE_SIZE * max(len(title), 1))
    return f'<text x="{_LEFT}" y="24" font-size="{min(_TITLE_SIZE, room):.3g}">{escape(title)}</text>'


def _grid(axes: _Axes) -> list[str]:
    left, right = axes.x(10.0**axes.x0), axes.x(10.0**axes.x1)
    low, high = axes.y(10.0**axes.y0), axes.y(10.0**axes.y1)
    parts = []
    for power in range(axes.x0, axes.x1 + 1):
        x = axes.x(10.0**power)
        parts.append(f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{low + 18:.1f}" text-anchor="middle">{10.0**power:g}</text>')
    for power in range(axes.y0, axes.y1 + 1):
        y = axes.y(10.0**power)
        parts.append(f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    middle = (low + high) / 2
    parts.append(
        f'<text x="{(left + right) / 2:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">'
        "multiply-accumulates a byte moved</text>"
    )
    parts.append(
        f'<text x="18" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 18 {middle:.1f})">'
        "10⁹ multiply-accumulates a second (GMAC/s)</text>"
    )
    return parts


def _roofs(axes: _Axes, roof: Roofline) -> list[str]:
    parts = []
    right = axes.x(10.0**axes.x1)
    highest = max(roof.peaks.values())
    start = max(10.0**axes.x0, 10.0**axes.y0 / roof.bandwidth_gb_s)
    knee = highest / roof.bandwidth_gb_s
    parts.append(
        f'<line x1="{axes.x(start):.1f}" y1="{axes.y(start * roof.bandwidth_gb_s):.1f}" x2="{axes.x(knee):.1f}" '
        f'y2="{axes.y(highest):.1f}" stroke="black" stroke-width="1.5" class="roof"/>'
    )
    # The memory's words run along its line: beside a slope that isn't known beforehand the line would cross them.
    x, y = axes.x(start), axes.y(start * roof.bandwidth_gb_s)
    angle = math.degrees(math.atan2(axes.y(highest) - y, axes.x(knee) - x))
    parts.append(
        f'<text x="{x:.1f}" y="{y:.1f}" dx="10" dy="-6" transform="rotate({angle:.1f} {x:.1f} {y:.1f})">'
        f"memory, {roof.bandwidth_gb_s:.3g} GB/s</text>"
    )
    for peak in roof.peaks.values():
        x, y = axes.x(peak / roof.bandwidth_gb_s), axes.y(peak)
        parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke="black" stroke-width="1.5" '
            'class="roof"/>'
        )
    return parts + _ceiling_labels(axes, roof, right + 6)


def _ceiling_labels(axes: _Axes, roof: Roofline, x: float) -> list[str]:
    """What each ceiling is and its height, beside its end; pushed down where two ceilings are nearly as high."""
    parts = []
    free = 0.0
    for path, peak in sorted(roof.peaks.items(), key=lambda item: -item[1]):
        y = max(axes.y(peak) - 2, free)
        for line, words in enumerate((_PATH_WORDS.get(path, path), f"{peak:.3g} GMAC/s")):
            parts.append(f'<text x="{x:.1f}" y="{y + line * _LABEL_LINE:.1f}" class="ceiling">{words}</text>')
        free = y + 2 * _LABEL_LINE + 4
    return parts


def _circle(axes: _Axes, point: Point) -> str:
    radius = 3.0 + 30.0 * math.sqrt(point.share)
    words = f"{point.name} ({point.kind}): {point.share:.1%}, {point.gmacs_per_s:.3g} GMAC/s, {_WORDS[point.bound]}"
    return (
        f'<circle cx="{axes.x(point.macs_per_byte):.1f}" cy="{axes.y(point.gmacs_per_s):.1f}" r="{radius:.1f}" '
        f'fill="{_COLOURS[point.bound]}" fill-opacity="0.45" stroke="{_COLOURS[point.bound]}">'
        f"<title>{escape(words)}</title></circle>"
    )


def _legend(roof: Roofline) -> list[str]:
    parts = []
    used = [bound for bound in _COLOURS if any(point.bound == bound for point in roof.points)]
    for index, bound in enumerate(used):
        y = _HEIGHT - _BOTTOM - 20 * (len(used) - index)
        x = _WIDTH - _RIGHT + 20
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="6" fill="{_COLOURS[bound]}" fill-opacity="0.45" stroke="{_COLOURS[bound]}"/>'
        )
        parts.append(f'<text x="{x + 12}" y="{y + 4}">{_WORDS[bound]}</text>')
    y = _HEIGHT - _BOTTOM - 20 * (len(used) + 1)
    parts.append(f'<text x="{_WIDTH - _RIGHT + 14}" y="{y + 4}">a kernel; larger: more time</text>')
    return parts
