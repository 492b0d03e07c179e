"""The listing for readers, and the address finder for fault reports.

raise_attention, .text:
0x00001000                                raise_attention:
0x00001000  c7 05 fe 4f 20 00 01 00 00 00 mov     dword ptr [rip + control_page + 8], 1  # somebody wants us
0x0000100a  f3 90                         .again: pause
"""

from collections.abc import Iterator
from typing import Final

from sidecar.builder.asm.link import Linked, LinkedLine

_BYTES_IN_ROW: Final = 10


def listing(linked: Linked, routine: str | None = None) -> str:
    """Address, bytes and source of every line, in columns, under a heading for each routine (or for the one named)."""
    rows: list[str] = []
    heading = ""
    for line in linked.lines:
        if routine not in (None, line.routine):
            continue
        title = f"{line.routine}, {line.section}:"
        if title != heading:
            rows += ["", title] if rows else [title]
            heading = title
        rows += _rows(line)
    return "\n".join(rows) + "\n" if rows else ""


def _rows(line: LinkedLine) -> Iterator[str]:
    comment = f"  # {line.comment}" if line.comment else ""
    source = line.source + comment
    width = 3 * _BYTES_IN_ROW
    chunks = [line.data[start : start + _BYTES_IN_ROW] for start in range(0, len(line.data), _BYTES_IN_ROW)] or [b""]
    for number, chunk in enumerate(chunks):
        address = line.vaddr + number * _BYTES_IN_ROW
        yield f"{address:#010x}  {chunk.hex(' '):{width}}{source if number == 0 else ''}".rstrip()


def where_is(linked: Linked, vaddr: int) -> str:
    """`routine+0x12, line 7: 'text'` for an address in the image, or its number alone for one outside."""
    for line in linked.lines:
        if line.vaddr <= vaddr < line.vaddr + line.size:
            name = _symbol_before(linked, line)
            return f"{name}+{vaddr - linked.symbols[name]:#x}, line {line.number}: '{line.source}'"
    return f"{vaddr:#x}, in no routine"


def _symbol_before(linked: Linked, line: LinkedLine) -> str:
    """The line's routine; or, in a section where the routine's label is not, the nearest label above the line."""
    start = linked.symbols[line.routine]
    at_start = {other.section for other in linked.lines if other.vaddr == start and other.routine == line.routine}
    if line.section in at_start and start <= line.vaddr:
        return line.routine
    return max(linked.symbols, key=lambda name: (linked.symbols[name] <= line.vaddr, linked.symbols[name]))
