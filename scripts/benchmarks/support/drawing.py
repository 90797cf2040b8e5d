"""Line charts as SVG, by hand: a few lines, axes and names are less than what a library for them would weigh."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

Series = Mapping[str, Sequence[tuple[float, float]]]
"""The points of each line by its name."""

_WIDTH: Final = 960
_HEIGHT: Final = 520
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 50, 320, 50
_COLOURS: Final = (
    "#1b6ca8", "#c8553d", "#2d936c", "#8e5ea2", "#e09f3e", "#3b3b3b", "#6aa9d8", "#a33b5c", "#7a9e3f", "#b08968",
)  # fmt: skip
_DASHES: Final = ("", "6 3", "2 3")


def line_chart(title: str, across: str, up: str, series: Series) -> str:
    """A chart with both axes logarithmic. ``across`` and ``up`` name them; every value must be above 0."""
    points = [point for line in series.values() for point in line]
    x_of, x_ticks = _axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT)
    y_of, y_ticks = _axis([y for _, y in points], _HEIGHT - _BOTTOM, _TOP)
    marks = [_text(_LEFT, 25, title, size=16), _text(_LEFT, _HEIGHT - 8, across), _text(8, _TOP - 12, up)]
    for place, label in x_ticks:
        marks.append(f'<line x1="{place}" y1="{_TOP}" x2="{place}" y2="{_HEIGHT - _BOTTOM}" stroke="#ddd"/>')
        marks.append(_text(place, _HEIGHT - _BOTTOM + 18, label, anchor="middle"))
    for place, label in y_ticks:
        marks.append(f'<line x1="{_LEFT}" y1="{place}" x2="{_WIDTH - _RIGHT}" y2="{place}" stroke="#ddd"/>')
        marks.append(_text(_LEFT - 6, place + 4, label, anchor="end"))
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        places = [(x_of(x), y_of(y)) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        marks.append(f'<polyline points="{path}" fill="none" {stroke}/>')
        marks += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        height, right = _TOP + 18 * number, _WIDTH - _RIGHT + 16
        marks.append(f'<line x1="{right}" y1="{height - 4}" x2="{right + 24}" y2="{height - 4}" {stroke}/>')
        marks.append(_text(right + 30, height, name))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *marks, "</svg>"]) + "\n"


class _Scale:
    """From a value to its place, logarithmic, between two places."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._span = math.log10(low), math.log10(high) - math.log10(low)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        return self._start + (math.log10(value) - self._low) / self._span * (self._end - self._start)


def _axis(values: Sequence[float], start: float, end: float) -> tuple[_Scale, list[tuple[float, str]]]:
    """The scale of an axis over whole powers of ten, and where its marks stand."""
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    scale = _Scale(10.0**low, 10.0**high, start, end)
    return scale, [(round(scale(10.0**power), 1), f"{10.0**power:,.10g}") for power in range(low, high + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
