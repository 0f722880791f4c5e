"""Charts as SVG text: bars, lines and stacked areas over time. Every name is escaped; every chart says what it shows.

Knows nothing of what is drawn. Needs no script, no font and no network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from headgate.allocation.arrays import Floats

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#7a5195")
"""Told apart by people who see few colours. Source: M. Okabe and K. Ito, Color Universal Design, 2008."""

OTHERS = "#9a9a9a"
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 240, 56, 12, 12, 30
_ROW, _LABEL = 26, 190

Told = Callable[[float], str]


def draw_bars(key: str, title: str, rows: Sequence[tuple[str, float]], told: Told) -> str:
    """A bar for each (name, value); `told` writes values. `key` is unique on the page."""
    most = max([value for _, value in rows] + [1e-12])
    high = _ROW * len(rows) + 8
    room = _WIDE - _LABEL - 90
    parts: list[str] = []
    for number, (name, value) in enumerate(rows):
        y = 4 + _ROW * number
        wide = room * value / most
        parts.append(
            f'<text x="{_LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(_cut(name, 28))}</text>'
            f'<rect x="{_LABEL}" y="{y + 3}" width="{wide:.1f}" height="{_ROW - 8}" fill="{COLOURS[number % 8]}"/>'
            f'<text x="{_LABEL + wide + 6:.1f}" y="{y + 16}">{escape(told(value))}</text>'
        )
    desc = "; ".join(f"{name}: {told(value)}" for name, value in rows)
    return _svg(key, title, desc, high, "".join(parts))


def draw_lines(key: str, title: str, span_s: float, lines: Mapping[str, Floats], told: Told) -> str:
    """A line for each name over `span_s` seconds; a gap where a value is NaN."""
    most = _round_up(max([float(np.nanmax(one)) for one in lines.values() if not np.isnan(one).all()] + [0.0]))
    parts = [_axes(span_s, most, told)]
    for number, values in enumerate(lines.values()):
        dash = f' stroke-dasharray="{_DASHES[number % 4]}"' if number % 4 else ""
        path = _path(values, most)
        parts.append(f'<path d="{path}" fill="none" stroke="{COLOURS[number % 8]}" stroke-width="1.6"{dash}/>')
    means = [(name, 0.0 if np.isnan(one).all() else float(np.nanmean(one))) for name, one in lines.items()]
    desc = "Mean over time: " + "; ".join(f"{name}: {told(mean)}" for name, mean in means)
    return _svg(key, title, desc, _HIGH, "".join(parts)) + _legend(list(lines))


def draw_stack(
    key: str, title: str, span_s: float, layers: Mapping[str, Floats], told: Told, most: float | None = None
) -> str:
    """Areas on top of one another over `span_s` seconds; `most` is the height of the chart."""
    total = np.sum(list(layers.values()), axis=0)
    top = _round_up(max(float(total.max()), most or 0.0))
    parts = [_axes(span_s, top, told)]
    below = np.zeros(len(total))
    for number, values in enumerate(layers.values()):
        above = below + values
        path = f"M{_steps(above, top)}L{_steps(below, top, back=True)}Z"
        parts.append(f'<path d="{path}" fill="{_colour(number)}" stroke="#fff" stroke-width="0.4"/>')
        below = above
    desc = "Mean over time: " + "; ".join(f"{name}: {told(float(one.mean()))}" for name, one in layers.items())
    return _svg(key, title, desc, _HIGH, "".join(parts)) + _legend(list(layers))


def gather_layers(names: Sequence[str], values: Floats, order: Sequence[int]) -> dict[str, Floats]:
    """The columns of `values` [time, name] by name in that order; what is beyond the colours there are is 'others'."""
    shown, rest = order[: len(COLOURS)], order[len(COLOURS) :]
    layers: dict[str, Floats] = {names[number]: values[:, number] for number in shown}
    if rest:
        layers[f"{len(rest)} others"] = values[:, list(rest)].sum(axis=1)
    return layers


def tell_time(seconds: float) -> str:
    """A moment of the trace for people: '90 s', '5 min', '2.5 h', '3 d'."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _svg(key: str, title: str, desc: str, high: int, inside: str) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {_WIDE} {high}" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(desc)}</desc>{inside}</svg>'
    )


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><span style="background:{_colour(number)}"></span>{escape(name)}</li>'
        for number, name in enumerate(names)
    )
    return f'<ul class="legend" aria-hidden="true">{items}</ul>'


def _colour(number: int) -> str:
    return COLOURS[number] if number < len(COLOURS) else OTHERS


def _axes(span_s: float, most: float, told: Told) -> str:
    parts: list[str] = []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(part * most, most)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(told(part * most))}</text>'
        )
        x = _LEFT + part * (_WIDE - _LEFT - _RIGHT)
        anchor = "start" if part == 0.0 else "end" if part == 1.0 else "middle"
        moment = escape(tell_time(part * span_s))
        parts.append(f'<text x="{x:.1f}" y="{_HIGH - 8}" text-anchor="{anchor}">{moment}</text>')
    return "".join(parts)


def _y(value: float, most: float) -> float:
    return _HIGH - _BOTTOM - value / most * (_HIGH - _TOP - _BOTTOM)


def _x(number: float, count: int) -> float:
    return _LEFT + number / count * (_WIDE - _LEFT - _RIGHT)


def _path(values: Floats, most: float) -> str:
    parts: list[str] = []
    pen = "M"
    for number, value in enumerate(values.tolist()):
        if np.isnan(value):
            pen = "M"
            continue
        parts.append(f"{pen}{_x(number + 0.5, len(values)):.1f} {_y(value, most):.1f}")
        pen = "L"
    return " ".join(parts) or f"M{_LEFT} {_HIGH - _BOTTOM}"


def _steps(values: Floats, most: float, *, back: bool = False) -> str:
    """A line that is level in each stretch, from left to right or back; level stretches in a row are one."""
    heights = [f"{_y(value, most):.1f}" for value in values.tolist()]
    edges = [f"{_x(number, len(heights)):.1f}" for number in range(len(heights) + 1)]
    if back:
        heights, edges = heights[::-1], edges[::-1]
    parts = [f"{edges[0]} {heights[0]}"]
    for number in range(1, len(heights)):
        if heights[number] != heights[number - 1]:
            parts.append(f"H{edges[number]}V{heights[number]}")
    return "".join(parts) + f"H{edges[-1]}"


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 4, 5, 8 times a power of ten, so that its quarters are short to write."""
    if value <= 0.0:
        return 1.0
    size = 10.0 ** np.floor(np.log10(value))
    return float(
        next(step * size for step in (1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0) if step * size >= value * (1 - 1e-9))
    )


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
