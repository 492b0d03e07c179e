"""Where guest-physical memory lies in the files behind it, as QEMU itself tells.

The output of the monitor command `info mtree -f` lists flat views; the one of address space "memory" is what the CPUs
see:

    FlatView #4
     AS "memory", root: system
     AS "cpu-memory-0", root: system
     Root memory region: system
      0000000000000000-00000000000c2fff (prio 0, ram): ram0
      00000000000c3000-00000000000e3fff (prio 0, rom): ram0 @00000000000c3000
      0000000000100000-0000000063ffffff (prio 0, ram): ram0 @0000000000100000
      0000000064000000-000000007fffffff (prio 0, ram): ram1
      00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic
      0000000100000000-0000000147ffffff (prio 0, ram): ram1 @000000001c000000

Nothing about it is assumed: the PCI hole splits a node's memory, and the firmware switches parts of 0xC0000-0xFFFFF
between rom and ram while it runs.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_RANGE = re.compile(r"^ +([0-9a-f]+)-([0-9a-f]+) \(prio -?\d+, ([^)]+)\): (\S+)(?: @([0-9a-f]+))?", re.MULTILINE)


class OutOfRange(LookupError):
    """An address that is no RAM of the machine, or not as much of it as asked for."""


@dataclass(frozen=True, slots=True)
class RamRange:
    """Guest-physical [start, end) lies in the memory backend `backend` from `offset` on."""

    start: int
    end: int
    backend: str
    offset: int

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.end:#x}"


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """The RAM of a machine: ranges in ascending order that do not touch where they continue in the same file."""

    ranges: tuple[RamRange, ...]

    def range_at(self, pa: int, size: int = 1) -> RamRange:
        """The range that holds all of [pa, pa + size). Raises OutOfRange."""
        for ram in self.ranges:
            if ram.start <= pa < ram.end:
                if pa + size > ram.end:
                    raise OutOfRange(f"{size:#x} bytes at {pa:#x} leave the range {ram}")
                return ram
        raise OutOfRange(f"{pa:#x} is not in RAM, which is {', '.join(map(str, self.ranges)) or 'empty'}")

    def pieces(self, pa: int, size: int) -> Iterator[tuple[str, int, int]]:
        """(backend, offset, size) of each piece of [pa, pa + size), in order. Raises OutOfRange."""
        while size:
            ram = self.range_at(pa)
            piece = min(size, ram.end - pa)
            yield ram.backend, ram.offset + pa - ram.start, piece
            pa, size = pa + piece, size - piece


def parse_memory_tree(text: str, backends: Collection[str]) -> MemoryMap:
    """The map in the output of `info mtree -f`, as far as it lies in `backends`. Raises ValueError on other text."""
    for view in re.split(r"^FlatView #\d+\s*$", text, flags=re.MULTILINE):
        if re.search(r'^ AS "memory", root: ', view, re.MULTILINE):
            return MemoryMap(tuple(_joined(_ranges(view, backends))))
    raise ValueError(f"'info mtree -f' shows no address space \"memory\": {text[:200]!r}")


def _ranges(view: str, backends: Collection[str]) -> Iterator[RamRange]:
    for start, last, kind, name, offset in _RANGE.findall(view):
        if kind in ("ram", "rom") and name in backends:
            yield RamRange(int(start, 16), int(last, 16) + 1, name, int(offset or "0", 16))


def _joined(ranges: Iterator[RamRange]) -> Iterator[RamRange]:
    """Neighbours that continue each other in the same file become one."""
    current: RamRange | None = None
    for ram in ranges:
        if (
            current is not None
            and (current.end, current.backend) == (ram.start, ram.backend)
            and current.offset + current.end - current.start == ram.offset
        ):
            current = RamRange(current.start, ram.end, current.backend, current.offset)
            continue
        if current is not None:
            yield current
        current = ram
    if current is not None:
        yield current
