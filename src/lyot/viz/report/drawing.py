"""Plots as SVG in the colors of the page, written from the numbers alone in milliseconds.

Matplotlib takes half a second for each: a page is opened more often than it is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

import numpy as np

from lyot.types import Array
from lyot.viz.report.blocks import Drawing
from lyot.viz.style import GRAY

WIDTH, LEFT, RIGHT, TOP, BOTTOM, GAP = 420, 64, 12, 10, 38, 12
"""Of a plot and its margins, in units of which a letter is 11 high."""
LETTER = 5.6
N_TICKS = 6
MARGIN = 0.04
MIN_DECADES = 0.1
"""What is left free at the ends of the data: a share of their range, and at least so much."""
INK = "currentColor"
_RAISED = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)


@dataclass(frozen=True)
class Axis:
    """What stands along one side of a panel."""

    label: str
    log: bool = False
    limits: tuple[float, float] | None = None  # by default those of the data
    whole: bool = False  # whether only whole numbers are marked
    color: str = INK
    ticks: Sequence[tuple[float, str]] | None = None  # by default round numbers


@dataclass(frozen=True, eq=False)
class Line:
    """Points, joined or not, with their errors; values that are not finite are left out."""

    x: Array
    y: Array
    color: str
    label: str = ""
    width: float = 1.5  # of the line; 0 for points alone
    dash: str = ""
    radius: float = 0.0  # of the points; 0 for a line alone
    x_error: Array | None = None
    y_error: Array | None = None


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars from zero."""

    x: Array
    y: Array
    color: str
    label: str = ""


@dataclass(frozen=True, eq=False)
class Band:
    """The area between two curves."""

    x: Array
    low: Array
    high: Array
    color: str
    label: str = ""


@dataclass(frozen=True)
class Rule:
    """A line across the panel, at one value of x or of y."""

    x: float | None = None
    y: float | None = None
    label: str = ""
    color: str = GRAY


Mark = Line | Bars | Band | Rule


@dataclass(frozen=True, eq=False)
class Panel:
    """Marks on two axes, and others on an axis at the right."""

    x: Axis
    y: Axis
    marks: Sequence[Mark]
    height: float = 190.0
    right: Axis | None = None
    right_marks: Sequence[Mark] = field(default=())  # without any, the axis has the limits of y
    square: bool = False  # whether a unit is as long on both axes


class _Scale(NamedTuple):
    """From values to places along one side."""

    low: float  # in logarithms where the axis has them
    high: float
    log: bool
    length: float
    flipped: bool  # upward, where places run downward

    def __call__(self, values: Array | float) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            at = np.log10(values) if self.log else np.asarray(values, dtype=float)
        part = (at - self.low) / (self.high - self.low)
        return np.asarray(self.length * (1.0 - part if self.flipped else part))

    def ticks(self, axis: Axis) -> list[tuple[float, str]]:
        """Return the places and texts of marks along an axis."""
        shown = axis.ticks
        if shown is None:
            values = self._decades() if self.log else _round(self.low, self.high, whole=axis.whole)
            shown = [(v, _text(v)) for v in values]
        places = [(float(self(value)), text) for value, text in shown]
        return [(p, text) for p, text in places if -1e-6 <= p <= self.length + 1e-6]

    def _decades(self) -> list[float]:
        """Powers of ten, with 2 and 5 times these where there are few; round numbers in one."""
        n_decades = self.high - self.low
        if n_decades < 1.0:
            return _round(10.0**self.low, 10.0**self.high)
        factors = (1,) if n_decades > 2.2 else (1, 2, 5)
        every = max(1, round(n_decades / N_TICKS))
        powers = range(int(np.floor(self.low)), int(np.ceil(self.high)) + 1)
        return [m * 10.0**n for n in powers if n % every == 0 for m in factors]


def _round(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers between two values."""
    step = (high - low) / N_TICKS
    size = 10.0 ** np.floor(np.log10(step))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= step * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    return [k * step for k in range(int(np.ceil(low / step)), int(high / step) + 1)]


def _text(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.10g}"
    digits, _, power = f"{value:.3e}".partition("e")
    digits = f"{float(digits):g}"
    raised = f"10{str(int(power)).translate(_RAISED)}"
    return raised if digits == "1" else f"{digits} \u00d7 {raised}"


def drawing(panels: Sequence[Panel], alt: str, caption: str, /) -> Drawing:
    """Draw panels below one another; `alt` says in words what the drawing shows."""
    parts, top = [], 0.0
    for panel in panels:
        content, height = _panel(panel, top)
        parts.append(content)
        top += height
    head = (
        f'<svg viewBox="0 0 {WIDTH} {top:.0f}" role="img" aria-label="{escape(alt)}" '
        'font-size="11" font-family="system-ui, sans-serif" fill="currentColor">'
    )
    return Drawing(f"{head}{''.join(parts)}</svg>", caption)


def _panel(panel: Panel, top: float) -> tuple[str, float]:
    """Return a panel whose legend begins at a height, and its own height."""
    legend, above = _legend([*panel.marks, *panel.right_marks])
    width = WIDTH - LEFT - (LEFT if panel.right else RIGHT)
    height, y0 = panel.height, top + TOP + above
    x_limits = _limits(panel.x, [*panel.marks, *panel.right_marks], "x")
    y_limits = _limits(panel.y, panel.marks, "y")
    if panel.square:
        unit = max(np.ptp(x_limits) / width, np.ptp(y_limits) / height)
        x_limits, y_limits = (
            (np.mean(both) - 0.5 * n * unit, np.mean(both) + 0.5 * n * unit)
            for both, n in ((x_limits, width), (y_limits, height))
        )
    x = _Scale(*x_limits, panel.x.log, width, flipped=False)
    y = _Scale(*y_limits, panel.y.log, height, flipped=True)
    parts = [f'<g transform="translate(0 {top + TOP:.1f})">{legend}</g>']
    parts.append(f'<g transform="translate({LEFT} {y0:.1f})">')
    parts += _axes(panel, x, y)
    inside = [_mark(mark, x, y) for mark in panel.marks]
    if panel.right:
        limits = _limits(panel.right, panel.right_marks, "y") if panel.right_marks else y_limits
        right = _Scale(*limits, panel.right.log, height, flipped=True)
        inside += [_mark(mark, x, right) for mark in panel.right_marks]
        parts += _side(panel.right, right, width + 6, "start", width + LEFT - 10)
    # A drawing within the drawing shows nothing beyond its edges.
    parts.append(f'<svg width="{width:.0f}" height="{height:.0f}">{"".join(inside)}</svg></g>')
    return "".join(parts), TOP + above + height + BOTTOM + GAP


def _limits(axis: Axis, marks: Sequence[Mark], name: str) -> tuple[float, float]:
    """Return the ends of an axis, in logarithms where it has them."""
    if axis.limits is not None:
        low, high = axis.limits
        return (float(np.log10(low)), float(np.log10(high))) if axis.log else (low, high)
    found = np.concatenate([[], *(values for mark in marks for values in _values(mark, name))])
    found = found[np.isfinite(found) & (found > 0)] if axis.log else found[np.isfinite(found)]
    found = np.log10(found) if axis.log else found
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    free = max(MARGIN * (high - low), MIN_DECADES if axis.log else 0.0) or 0.5 * (abs(high) or 1.0)
    return low - free, high + free


def _values(mark: Mark, name: str) -> Iterator[Array]:
    """Yield what of a mark must lie within its axis."""
    if isinstance(mark, Rule):
        return
    values = np.asarray(mark.x if name == "x" else getattr(mark, "y", mark.x), dtype=float)
    if isinstance(mark, Line):
        error = mark.x_error if name == "x" else mark.y_error
        yield from (values,) if error is None else (values - error, values + error)
    elif isinstance(mark, Bars):
        yield from (values - 0.6, values + 0.6) if name == "x" else (values, np.zeros(1))
    elif name == "x":
        yield values
    else:
        yield from (np.asarray(mark.low, dtype=float), np.asarray(mark.high, dtype=float))


def _axes(panel: Panel, x: _Scale, y: _Scale) -> Iterator[str]:
    """Yield the frame of a panel, its grid and what is written along its axes."""
    width, height = x.length, y.length
    grid = [f"M{at:.1f} 0V{height:.0f}" for at, _ in x.ticks(panel.x)]
    grid += [f"M0 {at:.1f}H{width:.0f}" for at, _ in y.ticks(panel.y)]
    yield f'<path d="{"".join(grid)}" stroke="{GRAY}" stroke-opacity=".3" stroke-width=".7"/>'
    yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="none" stroke="{GRAY}"/>'
    for at, text in x.ticks(panel.x):
        yield f'<text x="{at:.1f}" y="{height + 14:.1f}" text-anchor="middle">{text}</text>'
    label = escape(panel.x.label)
    yield f'<text x="{width / 2:.1f}" y="{height + 30:.1f}" text-anchor="middle">{label}</text>'
    yield from _side(panel.y, y, -6.0, "end", 12.0 - LEFT)


def _side(axis: Axis, scale: _Scale, at_x: float, anchor: str, label_x: float) -> Iterator[str]:
    """Yield what is written along an upright axis."""
    yield f'<g fill="{axis.color}">'
    for at, text in scale.ticks(axis):
        yield f'<text x="{at_x:.1f}" y="{at + 4:.1f}" text-anchor="{anchor}">{text}</text>'
    place = f"translate({label_x:.1f} {scale.length / 2:.1f}) rotate(-90)"
    yield f'<text transform="{place}" text-anchor="middle">{escape(axis.label)}</text></g>'


def _legend(marks: Sequence[Mark]) -> tuple[str, float]:
    """Return the names of marks, in rows above the panel, and their height."""
    parts, x, rows = [], float(LEFT), 0
    for mark in marks:
        if not mark.label:
            continue
        length = 30.0 + LETTER * (len(mark.label) + 0.4 * sum(map(str.isupper, mark.label)))
        if not rows or x + length > WIDTH:
            x, rows = float(LEFT), rows + 1
        y = 14.0 * rows - 4.0
        dash = f' stroke-dasharray="{mark.dash}"' if isinstance(mark, Line) and mark.dash else ""
        width = 8 if isinstance(mark, Bars | Band) else 2
        parts.append(
            f'<path d="M{x:.0f} {y:.0f}h16" stroke="{mark.color}" stroke-width="{width}"{dash}/>'
            f'<text x="{x + 20:.0f}" y="{y + 4:.0f}">{escape(mark.label)}</text>'
        )
        x += length
    return "".join(parts), 14.0 * rows + (4.0 if rows else 0.0)


def _mark(mark: Mark, x: _Scale, y: _Scale) -> str:
    if isinstance(mark, Rule):
        line = f"M{_one(x(mark.x))} 0V{y.length:.0f}" if mark.x is not None else ""
        line += f"M0 {_one(y(mark.y))}H{x.length:.0f}" if mark.y is not None else ""
        return f'<path d="{line}" stroke="{mark.color}" stroke-width=".8"/>'
    if isinstance(mark, Bars):
        left, right = x(np.asarray(mark.x) - 0.4), x(np.asarray(mark.x) + 0.4)
        zero, ends = float(y(0.0)), y(np.asarray(mark.y))
        bars = zip(left, right, ends, strict=True)
        d = "".join(f"M{a:.1f} {zero:.1f}V{e:.1f}H{b:.1f}V{zero:.1f}" for a, b, e in bars)
        return f'<path d="{d}" fill="{mark.color}"/>'
    if isinstance(mark, Band):
        around = [
            np.concatenate([a, b[::-1]]) for a, b in ((mark.x, mark.x), (mark.low, mark.high))
        ]
        return (
            f'<path d="{_path(x(around[0]), y(around[1]))}" fill="{mark.color}" fill-opacity=".2"/>'
        )
    return _line(mark, x, y)


def _line(mark: Line, x: _Scale, y: _Scale) -> str:
    """Return points, what joins them, and their errors."""
    at = x(np.asarray(mark.x)), y(np.asarray(mark.y))
    parts = []
    dash = f' stroke-dasharray="{mark.dash}"' if mark.dash else ""
    if mark.width:
        parts.append(
            f'<path d="{_path(*at)}" fill="none" stroke="{mark.color}" '
            f'stroke-width="{mark.width}"{dash}/>'
        )
    bars = ""
    if mark.y_error is not None:
        ends = (y(np.asarray(mark.y) + s * np.asarray(mark.y_error)) for s in (-1, 1))
        bars += "".join(f"M{a:.1f} {b:.1f}V{c:.1f}" for a, b, c in _finite(at[0], *ends))
    if mark.x_error is not None:
        ends = (x(np.asarray(mark.x) + s * np.asarray(mark.x_error)) for s in (-1, 1))
        bars += "".join(f"M{b:.1f} {a:.1f}H{c:.1f}" for a, b, c in _finite(at[1], *ends))
    if bars:
        parts.append(f'<path d="{bars}" stroke="{mark.color}" stroke-width=".8"/>')
    if mark.radius:
        # A line of no length with round ends is a point.
        points = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in _finite(*at))
        parts.append(
            f'<path d="{points}" stroke="{mark.color}" stroke-width="{2 * mark.radius}" '
            'stroke-linecap="round"/>'
        )
    return "".join(parts)


def _finite(*columns: Array) -> Iterator[tuple[float, ...]]:
    """Yield the rows in which every column is finite."""
    rows = np.stack(columns, axis=1)
    yield from map(tuple, rows[np.isfinite(rows).all(axis=1)].tolist())


def _path(x: Array, y: Array) -> str:
    """Join points; where one is not finite the path is interrupted."""
    parts, pen = [], "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(a) and np.isfinite(b):
            parts.append(f"{pen}{a:.1f} {b:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def _one(value: Array) -> str:
    return f"{float(value):.1f}"
