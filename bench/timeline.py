"""The fan-out as a picture, from the boot records: a bar per CPU from its first instruction to idle, by phase."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from sidecar.layout import BootPhase
from sidecar.qemu.session import Session

WIDTH, LEFT, TOP, BOTTOM = 900, 60, 50, 40
ROW = 8
TICKS = 8
COLOURS = {
    BootPhase.TRAMPOLINE: "#d73027",
    BootPhase.LONG_MODE: "#fc8d59",
    BootPhase.FOUND: "#fee090",
    BootPhase.MAPPED: "#91bfdb",
    BootPhase.APIC: "#4575b4",
    BootPhase.FAN_OUT: "#7a7a7a",
}
"""Colour of the bar from a phase to the next."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A CPU's stamps, in microseconds after the first INIT, by BootPhase; how many CPUs it started."""

    cpu: int
    stamps: tuple[float, ...]
    started: int


def arrivals(session: Session) -> list[Arrival]:
    """Every sidecar CPU's arrival in a booted machine."""
    found = session.found
    result = []
    for number in session.cpus:
        record = session.driver.pages(number).diagnostic.boot
        stamps = tuple(found.microseconds(int(record.stamps[phase])) for phase in BootPhase)
        result.append(Arrival(number, stamps, int(record.started_by_it)))
    return result


def draw(rows: Sequence[Arrival], title: str) -> str:
    """An SVG picture; rows are sorted by arrival."""
    return "\n".join(_elements(sorted(rows, key=lambda row: row.stamps[0]), title)) + "\n"


def _elements(rows: Sequence[Arrival], title: str) -> Iterator[str]:
    end = max(row.stamps[-1] for row in rows)
    height = TOP + ROW * len(rows) + BOTTOM
    scale = (WIDTH - LEFT - 20) / end
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
           f'font-size="11"><rect width="{WIDTH}" height="{height}" fill="white"/>')
    yield f'<text x="{LEFT}" y="16" font-size="14">{escape(title)}</text>'
    for number, (phase, colour) in enumerate(COLOURS.items()):
        x = LEFT + 140 * number
        yield f'<rect x="{x}" y="26" width="12" height="10" fill="{colour}"/>'
        yield f'<text x="{x + 16}" y="35">{phase.name.lower().replace("_", " ")}</text>'
    for tick in range(TICKS + 1):
        right = LEFT + end * tick / TICKS * scale
        yield f'<line x1="{right:.1f}" y1="{TOP}" x2="{right:.1f}" y2="{height - BOTTOM}" stroke="#ddd"/>'
        yield (f'<text x="{right:.1f}" y="{height - BOTTOM + 14}" text-anchor="middle">'
               f'{end * tick / TICKS / 1000:.2f}</text>')
    yield f'<text x="{WIDTH / 2}" y="{height - 8}" text-anchor="middle">milliseconds after the first INIT</text>'
    for place, row in enumerate(rows):
        yield from _bar(row, TOP + ROW * place, scale)
    yield "</svg>"


def _bar(row: Arrival, y: int, scale: float) -> Iterator[str]:
    tip = f"CPU {row.cpu}: idle after {row.stamps[-1]:.0f} us, started {row.started} others"
    yield f'<g><title>{tip}</title>'
    yield f'<text x="{LEFT - 6}" y="{y + ROW - 1}" font-size="8" text-anchor="end">{row.cpu}</text>'
    for phase, colour in COLOURS.items():
        start, stop = row.stamps[phase] * scale, row.stamps[phase + 1] * scale
        yield (f'<rect x="{LEFT + start:.2f}" y="{y}" width="{max(stop - start, 0.4):.2f}" height="{ROW - 1}" '
               f'fill="{colour}"/>')
    yield "</g>"
