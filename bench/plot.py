"""Pictures of figures, as SVG: lines over logarithmic axes, and bars on a logarithmic scale.

    draw(Chart("Boot", "CPUs", "seconds", (Series("sidecar", BLUE, (Point(2, 4.1, 4.0, 4.3), ...)), ...)))

A point that was cut off at its bound is drawn hollow, with an arrow upwards: the truth is above it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 44, 52
BLUE, ORANGE, GREEN, PURPLE, GREY = "#2166ac", "#d95f02", "#1b9e77", "#7570b3", "#8a8a8a"
INK, GRID = "#333", "#e4e4e4"
LABEL_GAP = 15
APART = 5

FONT = "system-ui, -apple-system, Segoe UI, sans-serif"


@dataclass(frozen=True, slots=True)
class Point:
    """A median with its range; `bounded`: the measurement was ended there."""

    x: float
    y: float
    low: float
    high: float
    bounded: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    colour: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A median with its range, and the text at its end."""

    name: str
    value: float
    low: float
    high: float
    text: str
    colour: str


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from at most `low` to at least `high`."""
    steps = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digit in (1, 2, 5)
    ]
    first = max(index for index, step in enumerate(steps) if step <= low * 1.0001)
    last = min(index for index, step in enumerate(steps) if step >= high * 0.9999)
    return steps[first : last + 1]


def short(value: float) -> str:
    """A tick's label, without zeros that say nothing."""
    return f"{value:g}" if value < 1e6 else f"{value / 1e6:g}M"


def _head(width: int, height: int, title: str) -> Iterator[str]:
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="{FONT}" '
           f'font-size="12" fill="{INK}"><rect width="{width}" height="{height}" fill="white"/>')
    yield f'<text x="16" y="24" font-size="15" font-weight="600">{escape(title)}</text>'


# --- lines --------------------------------------------------------------------------------------------------------


def draw(chart: Chart) -> str:
    """Lines over CPUs, both axes logarithmic."""
    return "\n".join(_lines(chart)) + "\n"


class _Scale:
    """From a value to a place on an axis, logarithmically."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._per = math.log(low), (end - start) / (math.log(high) - math.log(low) or 1)
        self._start = start

    def __call__(self, value: float) -> float:
        return self._start + (math.log(value) - self._low) * self._per


def _lines(chart: Chart) -> Iterator[str]:
    points = [point for series in chart.series for point in series.points]
    xs = sorted({point.x for point in points})
    ys = ticks(min(point.low for point in points), max(point.high for point in points))
    x = _Scale(xs[0], xs[-1], LEFT + 14, WIDTH - RIGHT)
    y = _Scale(ys[0], ys[-1], HEIGHT - BOTTOM, TOP)
    yield from _head(WIDTH, HEIGHT, chart.title)
    for value in ys:
        at = y(value)
        yield f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT + 14}" y2="{at:.1f}" stroke="{GRID}"/>'
        yield f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>'
    for value in xs:
        at = x(value)
        yield (f'<line x1="{at:.1f}" y1="{HEIGHT - BOTTOM}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM + 5}" '
               f'stroke="{INK}"/>')
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 19}" text-anchor="middle">{short(value)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(chart.x_label)}</text>'
    yield (f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
           f'{escape(chart.y_label)}</text>')
    for place, series in enumerate(chart.series):
        yield from _series(series, x, y, APART * (place - (len(chart.series) - 1) / 2))
    yield from _names(chart.series, y)
    yield "</svg>"


def _series(series: Series, x: _Scale, y: _Scale, aside: float) -> Iterator[str]:
    """A line; its ranges stand `aside` of its points, so that those of several lines can be told apart."""
    path = " ".join(f"{x(point.x):.1f},{y(point.y):.1f}" for point in series.points)
    yield f'<polyline points="{path}" fill="none" stroke="{series.colour}" stroke-width="2"/>'
    for point in series.points:
        at, up = x(point.x), y(point.y)
        said = f"{series.name}, {short(point.x)}: {'more than ' if point.bounded else ''}{point.y:.3g}"
        yield f"<g><title>{escape(said)}</title>"
        if point.bounded:
            yield (f'<path d="M{at:.1f} {up:.1f} v-16 m-4 5 l4 -5 l4 5" fill="none" stroke="{series.colour}" '
                   'stroke-width="1.5"/>')
        else:
            yield (f'<line x1="{at + aside:.1f}" y1="{y(point.low):.1f}" x2="{at + aside:.1f}" '
                   f'y2="{y(point.high):.1f}" stroke="{series.colour}" stroke-width="4" stroke-opacity="0.35"/>')
        fill = "white" if point.bounded else series.colour
        yield (f'<circle cx="{at:.1f}" cy="{up:.1f}" r="3.5" fill="{fill}" stroke="{series.colour}" '
               'stroke-width="1.5"/></g>')


def _names(all_series: Sequence[Series], y: _Scale) -> Iterator[str]:
    """The name of each line at its right end, moved apart where they would overlap."""
    below = -math.inf
    for series in sorted(all_series, key=lambda one: y(one.points[-1].y)):
        at = max(y(series.points[-1].y) + 4, below + LABEL_GAP)
        below = at
        yield f'<text x="{WIDTH - RIGHT + 20}" y="{at:.1f}" fill="{series.colour}">{escape(series.name)}</text>'


# --- bars ---------------------------------------------------------------------------------------------------------

ROW, BAR_LEFT, BAR_RIGHT = 26, 270, 110


def draw_bars(title: str, label: str, bars: Sequence[Bar]) -> str:
    """A row per bar, longest value to the right on a logarithmic scale."""
    return "\n".join(_bars(title, label, bars)) + "\n"


def _bars(title: str, label: str, bars: Sequence[Bar]) -> Iterator[str]:
    height = TOP + ROW * len(bars) + BOTTOM
    values = ticks(min(bar.low for bar in bars) / 1.5, max(bar.high for bar in bars))
    x = _Scale(values[0], values[-1], BAR_LEFT, WIDTH - BAR_RIGHT)
    yield from _head(WIDTH, height, title)
    for value in values:
        at = x(value)
        yield f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{height - BOTTOM}" stroke="{GRID}"/>'
        yield f'<text x="{at:.1f}" y="{height - BOTTOM + 17}" text-anchor="middle">{short(value)}</text>'
    yield (f'<text x="{(BAR_LEFT + WIDTH - BAR_RIGHT) / 2}" y="{height - 12}" text-anchor="middle">'
           f'{escape(label)}</text>')
    for row, bar in enumerate(bars):
        top, middle = TOP + ROW * row + 5, TOP + ROW * row + ROW / 2
        yield f'<text x="{BAR_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(bar.name)}</text>'
        yield (f'<rect x="{BAR_LEFT}" y="{top}" width="{x(bar.value) - BAR_LEFT:.1f}" height="{ROW - 10}" rx="2" '
               f'fill="{bar.colour}"/>')
        yield (f'<line x1="{x(bar.low):.1f}" y1="{middle}" x2="{x(bar.high):.1f}" y2="{middle}" stroke="{INK}" '
               'stroke-width="1.5" stroke-opacity="0.7"/>')
        yield f'<text x="{x(max(bar.value, bar.high)) + 6:.1f}" y="{middle + 4}">{escape(bar.text)}</text>'
    yield "</svg>"
