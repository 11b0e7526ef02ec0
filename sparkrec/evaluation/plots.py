"""Plots as SVG text: no script, no outside file, colours from the page's style so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Bar:
    """One bar, with its interval where there is one. ``style`` is a CSS class."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    style: str = "m0"


@dataclass(frozen=True)
class Line:
    """One curve through (x, y)."""

    label: str
    points: Sequence[tuple[float, float]]
    style: str = "m0"


def bars(rows: Sequence[Bar], title: str) -> str:
    """Horizontal bars with 95 % intervals, a number beside each; the axis starts at zero."""
    left, right, row, width = 96, 62, 30, 360
    top = max([bar.high if bar.high is not None else bar.value for bar in rows], default=0) or 1.0
    scale = (width - left - right) / top
    parts = []
    for number, bar in enumerate(rows):
        middle = number * row + row / 2
        end = left + bar.value * scale
        parts.append(f'<text x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(bar.label)}</text>')
        parts.append(
            f'<rect class="fill {bar.style}" x="{left}" y="{middle - 8:.1f}" '
            f'width="{max(end - left, 1):.1f}" height="16" rx="2"/>'
        )
        last = end
        if bar.low is not None and bar.high is not None:
            low, last = left + bar.low * scale, left + bar.high * scale
            parts.append(
                f'<path class="interval" d="M{low:.1f} {middle:.1f}H{last:.1f}'
                f'M{low:.1f} {middle - 4:.1f}v8M{last:.1f} {middle - 4:.1f}v8"/>'
            )
        parts.append(f'<text class="number" x="{last + 6:.1f}" y="{middle + 4:.1f}">{number_text(bar.value)}</text>')
    return _svg(width, max(len(rows), 1) * row, title, parts)


def curves(lines: Sequence[Line], title: str, x_label: str, y_label: str, percent: bool = False) -> str:
    """Lines over a common pair of axes, with a legend below. ``percent``: both axes are shares from 0 to 1."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    width, height, left, right, top, bottom = 480, 300, 52, 20, 12, 44  # half of "100%" on the right
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x0, x1 = (0.0, 1.0) if percent else _span(xs)
    y0, y1 = (0.0, 1.0) if percent else _span(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x0) / (x1 - x0) * (width - left - right)
        return across, height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom)

    write = (lambda value: f"{value:.0%}") if percent else _tick_text
    parts = []
    for value in ticks(y0, y1):
        y = place(x0, value)[1]
        parts.append(f'<path class="rule" d="M{left} {y:.1f}H{width - right}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{write(value)}</text>')
    for value in ticks(x0, x1, whole=all(float(x).is_integer() for x in xs)):
        x = place(value, y0)[0]
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{write(value)}</text>')
    centre = (left + width - right) / 2
    parts.append(f'<text x="{centre:.0f}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>')
    for line in lines:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (place(*point) for point in line.points))
        parts.append(f'<path class="line {line.style}" d="M{path}"/>')
        if len(line.points) <= 40:
            parts += [
                f'<circle class="fill {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
                for x, y in (place(*p) for p in line.points)
            ]
    legend = "".join(
        f'<span class="key"><i class="swatch {line.style}"></i>{escape(line.label)}</span>' for line in lines
    )
    return f'<p class="y-label">{escape(y_label)}</p>{_svg(width, height, title, parts)}<p class="legend">{legend}</p>'


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Three to six round numbers (1, 2 or 5 times a power of ten apart) between two bounds."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * n for n in (1, 2, 5, 10) if (high - low) / (step * n) <= 5.5)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number_text(value: float) -> str:
    """Four decimals below one, three digits above: ``0.1161``, ``3.42``, ``12,000``."""
    if abs(value) < 1:
        return f"{value:.4f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _tick_text(value: float) -> str:
    return f"{round(value, 10):,.6g}" if abs(value) < 1e6 else f"{value:.0e}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
