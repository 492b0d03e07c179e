"""What QEMU itself knows of a machine: memory, address translations and local APICs, through its monitor.

`info tlb` walks a CPU's page tables in QEMU's own code; a line of it, and one of `info mem`:

    ffffff8000203000: 0000000020587000 X--DA---W        (X: no-execute; U: user; W: writable, of the last level)
    ffffff8000203000-ffffff8000205000 0000000000002000 -rw          (rights of all levels together)
"""

import re
from dataclasses import dataclass

from sidecar.layout.x86 import PTE_ADDRESS_MASK, Pte
from sidecar.qemu.machine import Machine

_PAGE = re.compile(r"^([0-9a-f]{16}): ([0-9a-f]{16}) ([X-])[G-]([P-])[D-][A-][C-][T-]([U-])([W-])$")
_RANGE = re.compile(r"^([0-9a-f]{16})-([0-9a-f]{16}) [0-9a-f]{16} ([u-])r([w-])$")
PAGE = 0x1000
CHUNK = 0x1_0000
ENTRIES = 512


@dataclass(frozen=True, slots=True)
class Page:
    """Where a page of virtual memory lies, and what may be done with it."""

    pa: int
    writable: bool
    executable: bool


class QemuMemory:
    """Physical memory as QEMU saves it: slow, so pieces are kept; for a machine that is stopped or does not write."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._chunks: dict[int, bytes] = {}

    def read(self, pa: int, size: int) -> bytes:
        data = b"".join(self._chunk(start) for start in range(pa & -CHUNK, pa + size, CHUNK))
        return data[pa % CHUNK : pa % CHUNK + size]

    def _chunk(self, start: int) -> bytes:
        if start not in self._chunks:
            self._chunks[start] = self._machine.read_memory(start, CHUNK)
        return self._chunks[start]


def translations(machine: Machine, cpu: int) -> dict[int, Page]:
    """Every page that is mapped on a CPU, by virtual address. Fails on large pages and on pages of user mode."""
    pages: dict[int, Page] = {}
    for line in machine.hmp("info tlb", cpu=cpu).splitlines():
        match = _PAGE.match(line.strip())
        assert match, f"CPU {cpu}: 'info tlb' shows {line!r}"
        va, pa, no_execute, large, user, writable = match.groups()
        assert (large, user) == ("-", "-"), f"CPU {cpu}: a large page or one of user mode: {line!r}"
        pages[int(va, 16)] = Page(int(pa, 16), writable == "W", no_execute == "-")
    return pages


def writable_pages(machine: Machine, cpu: int) -> set[int]:
    """The virtual addresses that a CPU may write, by the rights of all levels of its tables."""
    found: set[int] = set()
    for line in machine.hmp("info mem", cpu=cpu).splitlines():
        match = _RANGE.match(line.strip())
        assert match, f"CPU {cpu}: 'info mem' shows {line!r}"
        start, end, user, writable = match.groups()
        assert user == "-", f"CPU {cpu}: open to user mode: {line!r}"
        if writable == "w":
            found |= set(range(int(start, 16), int(end, 16), PAGE))
    return found


def translate(machine: Machine, cpu: int, va: int) -> int | None:
    """The physical address of a virtual one on a CPU, None if it is not mapped."""
    answer = machine.hmp(f"gva2gpa {va:#x}", cpu=cpu).strip()
    return None if answer == "Unmapped" else int(answer.removeprefix("gpa: "), 16)


def tables(memory: QemuMemory, root: int, level: int = 4) -> set[int]:
    """Physical addresses of the page tables below and including the one at `root`; there are no large pages."""
    found = {root}
    data = memoryview(memory.read(root, PAGE)).cast("Q")
    if level > 1:
        for entry in data:
            if entry & Pte.PRESENT:
                found |= tables(memory, entry & PTE_ADDRESS_MASK, level - 1)
    return found


def local_apic(machine: Machine, cpu: int) -> dict[str, str]:
    """The lines of `info lapic` by their first word, such as SPIV, ISR and LVT0."""
    lines = machine.hmp("info lapic", cpu=cpu).splitlines()
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines if "\t" in line}
