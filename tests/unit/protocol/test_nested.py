"""Nested page tables as the host builds them, judged by a walk of their own bytes."""

import random
import struct

import pytest

from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.x86 import PTE_ADDRESS_MASK, Pte
from sidecar.protocol.nested import NestedTables, Rights

LARGE = 0x200000


class Memory:
    """Pages by number, made when they are allocated."""

    def __init__(self) -> None:
        self.bytes = bytearray(1 << 20)
        self.next = PAGE_SIZE

    def page(self) -> int:
        self.next += PAGE_SIZE
        return self.next - PAGE_SIZE

    def view(self, pa: int, size: int) -> memoryview:
        return memoryview(self.bytes)[pa : pa + size]


def walk(memory: Memory, root: int, gpa: int) -> tuple[int, int] | None:
    """(physical address, flags of the leaf) by the manual's rules; None if something is not present."""
    table = root
    for shift in (39, 30, 21, 12):
        (entry,) = struct.unpack_from("<Q", memory.bytes, table + (gpa >> shift & 511) * 8)
        if not entry & Pte.PRESENT:
            return None
        assert entry & Pte.USER, "a nested access is a user's"
        if shift == 12 or (entry & Pte.LARGE and shift < 39):
            size = 1 << shift
            return (entry & PTE_ADDRESS_MASK & -size) | gpa & size - 1, entry & (Pte.WRITE | Pte.NX)
        assert entry & Pte.WRITE
        assert not entry & Pte.NX
        table = entry & PTE_ADDRESS_MASK
    raise AssertionError


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def tables(memory: Memory) -> NestedTables:
    return NestedTables(memory, memory.page)


@pytest.mark.parametrize(
    ("rights", "flags"),
    [
        (Rights.READ, Pte.NX),
        (Rights.READ | Rights.WRITE, Pte.WRITE | Pte.NX),
        (Rights.READ | Rights.EXECUTE, 0),
        (Rights.ALL, Pte.WRITE),
    ],
)
def test_a_page_and_its_rights(memory: Memory, tables: NestedTables, rights: Rights, flags: int) -> None:
    tables.map(0xFFFFFFFFF000, 0x12345000, PAGE_SIZE, rights)
    assert walk(memory, tables.root_pa, 0xFFFFFFFFF123) == (0x12345123, flags)
    assert walk(memory, tables.root_pa, 0xFFFFFFFFE000) is None


def test_large_pages_where_they_fit(memory: Memory, tables: NestedTables) -> None:
    tables.map(0x1FF000, 0x7FF000, PAGE_SIZE + 2 * LARGE)
    assert [tables.entry(gpa)[1] for gpa in (0x1FF000, 0x200000, 0x400000)] == [1, 2, 2]
    for gpa in (0x1FF000, 0x200000, 0x3FF123, 0x5FFFFF):
        found = walk(memory, tables.root_pa, gpa)
        assert found is not None
        assert found[0] == gpa + 0x600000


def test_no_large_page_if_the_offsets_differ(memory: Memory, tables: NestedTables) -> None:
    tables.map(0, PAGE_SIZE, LARGE)
    assert tables.entry(0)[1] == 1
    assert walk(memory, tables.root_pa, 0x1FFFFF) == (0x200FFF, Pte.WRITE)


def test_unmapping_splits_a_large_page(memory: Memory, tables: NestedTables) -> None:
    tables.map(0, 0x40000000, LARGE, Rights.READ)
    tables.unmap(0x5000, PAGE_SIZE)
    assert walk(memory, tables.root_pa, 0x5000) is None
    for gpa in (0, 0x4FFF, 0x6000, 0x1FFFFF):
        assert walk(memory, tables.root_pa, gpa) == (0x40000000 + gpa, Pte.NX)


def test_unmapping_what_is_not_mapped_takes_no_tables(memory: Memory, tables: NestedTables) -> None:
    before = memory.next
    tables.unmap(0x123000, 0x10000)
    assert memory.next == before


def test_any_sequence(memory: Memory, tables: NestedTables) -> None:
    """Against a dictionary of pages."""
    rng = random.Random(5)
    model: dict[int, int] = {}
    for _ in range(60):
        gpa, pages = rng.randrange(0x800) * PAGE_SIZE, rng.choice((1, 3, 512, 700))
        if rng.random() < 0.6:
            pa = rng.choice((gpa + (1 << 30), rng.randrange(1 << 20) * PAGE_SIZE))
            tables.map(gpa, pa, pages * PAGE_SIZE)
            model |= {gpa + n * PAGE_SIZE: pa + n * PAGE_SIZE for n in range(pages)}
        else:
            tables.unmap(gpa, pages * PAGE_SIZE)
            for n in range(pages):
                model.pop(gpa + n * PAGE_SIZE, None)
    for gpa in range(0, 0xC00 * PAGE_SIZE, PAGE_SIZE):
        found = walk(memory, tables.root_pa, gpa)
        assert (found and found[0]) == model.get(gpa)


@pytest.mark.parametrize(
    ("gpa", "pa", "size", "sentence"),
    [
        (1, 0, PAGE_SIZE, "guest memory at 0x1, 0x1000 bytes: expected whole pages"),
        (0, 0, 0, "guest memory at 0x0, 0x0 bytes: expected whole pages"),
        (0, 5, PAGE_SIZE, "physical address 0x5: expected a multiple of 0x1000"),
        (1 << 48, 0, PAGE_SIZE, "guest memory at 0x1000000000000, 0x1000 bytes: expected to end below 0x1000000000000"),
    ],
)
def test_what_is_refused(tables: NestedTables, gpa: int, pa: int, size: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tables.map(gpa, pa, size)
