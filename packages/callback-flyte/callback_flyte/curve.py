"""Draws the losses of a training as an SVG without scripts or external resources."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

Point = tuple[float, float]

WIDTH: Final = 760
HEIGHT: Final = 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 744, 34, 282

COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette for color-blind readers. There is at most one curve for each color."""

MOST_POINTS: Final = 800
"""The most points of a drawn curve. Longer curves keep the extremes of each section."""


def curve_of(history: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG of all losses over the steps; an empty string if there are none."""
    curves = dict(list(_loss_curves(history).items())[: len(COLORS)])
    finite = [point for points in curves.values() for point in points if math.isfinite(point[1])]
    if not finite:
        return ""
    first, last = _with_margin(x for x, _ in finite)
    values = _ticks(*_with_margin(y for _, y in finite))

    def place(point: Point) -> str:
        x = _LEFT + (_RIGHT - _LEFT) * (point[0] - first) / (last - first)
        y = _BOTTOM - (_BOTTOM - _TOP) * (point[1] - values[0]) / (values[-1] - values[0])
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="inherit" font-size="12" aria-label="{escape(", ".join(curves))}">'
    ]
    for value in values:
        _, y = place((first, value)).split(",")
        parts.append(f'<path d="M{_LEFT} {y}H{_RIGHT}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, float(y) + 4, f"{value:g}", "end"))
    for step in (step for step in _ticks(first, last) if first <= step <= last):
        x, _ = place((step, values[0])).split(",")
        parts.append(_text(float(x), _BOTTOM + 18, f"{step:g}", "middle"))
    parts.append(_text((_LEFT + _RIGHT) / 2, HEIGHT - 4, "step", "middle"))
    legend = float(_LEFT)
    for color, (name, points) in zip(COLORS, curves.items(), strict=False):
        parts += _draw(_downsample(points), color, place)
        parts.append(f'<path d="M{legend:.0f} 14h18" stroke="{color}" stroke-width="3"/>')
        label = name if len(name) <= 24 else f"{name[:23]}…"
        parts.append(_text(legend + 24, 18, label, "start"))
        legend += 44 + 7.5 * len(label)
    return "\n".join([*parts, "</svg>"])


def _loss_curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """Return the points of each loss by its name, without the training's mean `train_loss`."""
    losses: dict[str, list[Point]] = {}
    for entry in history:
        for name, value in entry.items():
            if name.endswith("loss") and name != "train_loss" and _is_drawable(value):
                losses.setdefault(name, []).append((float(entry.get("step", 0)), float(value)))
    return losses


def _is_drawable(value: Any) -> bool:
    """Return whether a value is a number in the range of a float."""
    if isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return isinstance(value, float)


def _draw(points: Sequence[Point], color: str, place: Any) -> Iterable[str]:
    """Yield a line, with gaps at values that are not finite, and dots if there are few points."""
    parts: list[list[str]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            parts[-1].append(place(point))
        elif parts[-1]:
            parts.append([])
    for part in parts:
        yield (
            f'<polyline points="{" ".join(part)}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        )
        for position in part if len(points) <= 60 or len(part) == 1 else ():
            x, y = position.split(",")
            yield f'<circle cx="{x}" cy="{y}" r="2.5" fill="{color}"/>'


def _downsample(points: Sequence[Point]) -> Sequence[Point]:
    """Return at most `MOST_POINTS` points: the minimum and the maximum of each section."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        part = [point for point in points[start : start + size] if math.isfinite(point[1])]
        if not part:
            kept.append(points[start])
            continue
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def _with_margin(values: Iterable[float]) -> tuple[float, float]:
    """Return the minimum and the maximum, moved apart if they are equal."""
    found = list(values)
    low, high = min(found), max(found)
    margin = 0.0 if high > low else abs(low) / 10 or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Return evenly spaced round numbers that cover `low` to `high`."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#555">{escape(text)}</text>'
