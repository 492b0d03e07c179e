"""Free memory and its allocation: against sets of pages in Python, for any memory map and any sequence of requests."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.builder import image
from sidecar.layout import MAX_NUMA_NODES, PAGE_SIZE
from sidecar.layout.boot import HvmMemoryMapEntry
from sidecar.shim.memory import FREE_RANGES, USED_RANGES, Range
from tests.support.emulator import Emulator
from tests.unit.shim.helpers import changed, fresh, returned

MIB = 1 << 20
RAM_TYPE, RESERVED_TYPE = 1, 2
TRAMPOLINE_LIMIT = 0x9F000
VARIABLES = {"free_ranges", "free_count", "used_ranges", "trampoline_pa"}
NOWHERE = (1 << 64) - 1


@dataclass(frozen=True, order=True)
class Area:
    """From `base` up to `end`, in a NUMA node."""

    base: int
    end: int
    numa: int = 0

    @property
    def pages(self) -> set[int]:
        """Numbers of the pages that lie in it whole."""
        return set(range(-(-self.base // PAGE_SIZE), self.end // PAGE_SIZE))

    @property
    def touched(self) -> set[int]:
        """Numbers of the pages that it has a byte of."""
        return set(range(self.base // PAGE_SIZE, -(-self.end // PAGE_SIZE)))


def write_ranges(shim: Emulator, label: str, areas: Iterable[Area]) -> None:
    fields = [(one.base, one.end, one.numa) for one in areas]
    shim.write(label, b"".join(field.to_bytes(8, "little") for entry in fields for field in entry))


def free_ranges(shim: Emulator) -> list[Area]:
    at = shim.at("free_ranges")
    starts = range(at, at + shim.number("free_count", 4) * Range.SIZE, Range.SIZE)
    return [Area(*(shim.number(start + field) for field in (Range.base, Range.end, Range.numa))) for start in starts]


def pages_of(areas: Iterable[Area]) -> list[int]:
    return sorted(page for area in areas for page in area.pages)


# --- add_free --------------------------------------------------------------------------------------------------------


def area(first: int, last: int) -> st.SearchStrategy[Area]:
    """Somewhere in pages `first` to `last`, on page boundaries or off them."""
    byte = st.integers(first, last).map(lambda page: page * PAGE_SIZE)
    place = byte | st.tuples(byte, st.integers(0, PAGE_SIZE - 1)).map(sum)
    return st.tuples(place, place).filter(lambda ends: ends[0] != ends[1]).map(lambda ends: Area(min(ends), max(ends)))


@given(area(256, 300), st.lists(area(250, 310), max_size=USED_RANGES), st.integers(0, 63))
def test_a_piece_is_free_but_for_what_is_used(piece: Area, used: list[Area], numa: int) -> None:
    shim = fresh()
    write_ranges(shim, "used_ranges", [*used, *[Area(0, 0)] * (USED_RANGES - len(used))])
    returned(shim, shim.call("add_free", rsi=piece.base, rdi=piece.end, rdx=numa))
    taken = {page for one in used for page in one.touched}
    assert pages_of(free_ranges(shim)) == sorted(piece.pages - taken)
    assert {one.numa for one in free_ranges(shim)} <= {numa}
    assert changed(shim) <= VARIABLES


def test_the_list_of_free_ranges_is_never_written_beyond_its_end() -> None:
    shim = fresh()
    for number in range(FREE_RANGES + 5):
        base = 16 * MIB + 2 * number * PAGE_SIZE
        returned(shim, shim.call("add_free", rsi=base, rdi=base + PAGE_SIZE, rdx=0))
    assert len(free_ranges(shim)) == FREE_RANGES
    assert changed(shim) <= VARIABLES


# --- list_free_memory ------------------------------------------------------------------------------------------------


def memory_map(*entries: tuple[Area, int]) -> bytes:
    return b"".join(HvmMemoryMapEntry.build(addr=one.base, size=one.end - one.base, type=kind) for one, kind in entries)


def list_free(
    shim: Emulator, entries: list[tuple[Area, int]], affinities: list[Area], *, bundle: Area, mapped: int = 4096 * MIB
) -> None:
    shim.write("memory_map", memory_map(*entries))
    shim.write("memory_map_count", len(entries), size=4)
    write_ranges(shim, "memory_affinity", affinities)
    shim.write("memory_affinity_count", len(affinities), size=4)
    shim.write("bundle_pa", bundle.base)
    shim.write("bundle_bytes", bundle.end - bundle.base)
    shim.write("mapped_bytes", mapped)
    returned(shim, shim.call("list_free_memory"))


OWN = Area(image.shim().plan.base, image.shim().plan.base + image.shim().plan.memory_bytes)
NO_BUNDLE = Area(0, 0)
LOW = Area(0, 0x9FC00)
HIGH = Area(MIB, 16 * MIB)
ANYWHERE = Area(0, NOWHERE)


def test_what_is_free_is_ram_above_1_mib_without_the_shim_and_the_bundle() -> None:
    shim, bundle = fresh(), Area(12 * MIB, 12 * MIB + 0x1800)
    list_free(shim, [(LOW, RAM_TYPE), (HIGH, RAM_TYPE)], [ANYWHERE], bundle=bundle)
    assert free_ranges(shim) == [
        Area(MIB, OWN.base),
        Area(-(-OWN.end // PAGE_SIZE) * PAGE_SIZE, bundle.base),
        Area(bundle.base + 0x2000, HIGH.end),
    ]


def test_where_linux_will_run_is_not_free() -> None:
    shim = fresh()
    shim.write("linux_load_pa", 8 * MIB)
    shim.write("linux_load_end", 10 * MIB + 1)
    list_free(shim, [(HIGH, RAM_TYPE)], [ANYWHERE], bundle=NO_BUNDLE)
    assert not set(pages_of(free_ranges(shim))) & Area(8 * MIB, 10 * MIB + 1).touched
    assert 10 * MIB // PAGE_SIZE + 1 in pages_of(free_ranges(shim))


def test_memory_is_cut_where_numa_nodes_meet() -> None:
    shim = fresh()
    affinities = [Area(0, 6 * MIB, 0), Area(6 * MIB, 8 * MIB, 3), Area(8 * MIB, 64 * MIB, 1)]
    list_free(shim, [(HIGH, RAM_TYPE)], affinities, bundle=NO_BUNDLE)
    assert [one for one in free_ranges(shim) if one.base >= OWN.end + PAGE_SIZE] == [
        Area(6 * MIB, 8 * MIB, 3),
        Area(8 * MIB, 16 * MIB, 1),
    ]


def test_memory_that_is_not_mapped_is_not_free() -> None:
    shim = fresh()
    list_free(shim, [(HIGH, RAM_TYPE)], [ANYWHERE], bundle=NO_BUNDLE, mapped=6 * MIB)
    assert max(one.end for one in free_ranges(shim)) == 6 * MIB


KIND = st.sampled_from([RAM_TYPE, RESERVED_TYPE])


@given(
    st.lists(st.tuples(area(0, 1200), KIND), min_size=1, max_size=6),
    st.lists(st.integers(0, 1200), max_size=4),
    area(0, 1200),
)
def test_any_memory_map_gives_what_sets_of_pages_give(
    entries: list[tuple[Area, int]], borders: list[int], bundle: Area
) -> None:
    shim = fresh()
    cuts = [0, *sorted(border * PAGE_SIZE for border in borders), NOWHERE]
    affinities = [Area(low, high, number) for number, (low, high) in enumerate(itertools.pairwise(cuts))]
    list_free(shim, entries, affinities, bundle=bundle)
    taken = OWN.touched | bundle.touched | set(range(MIB // PAGE_SIZE))
    expected = [page for one, kind in entries if kind == RAM_TYPE for page in one.pages - taken]
    assert pages_of(free_ranges(shim)) == sorted(expected)
    for one in free_ranges(shim):
        assert affinities[one.numa].base <= one.base < one.end <= affinities[one.numa].end
    low = [page for one, kind in entries if kind == RAM_TYPE for page in one.pages if 0 < page < TRAMPOLINE_LIMIT >> 12]
    assert shim.number("trampoline_pa") == max(low, default=0) * PAGE_SIZE
    assert changed(shim) <= VARIABLES | {
        "memory_map", "memory_map_count", "memory_affinity", "memory_affinity_count", "bundle_pa", "bundle_bytes",
        "mapped_bytes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "page"),
    [
        ([Area(0, 0x9FC00)], 0x9E000),
        ([Area(0, 0xA0000)], 0x9E000),
        ([Area(0, 0x9E000)], 0x9D000),
        ([Area(0, 0x1000)], 0),
        ([Area(0, 0x1FFF)], 0),
        ([Area(0x800, 0x2000)], 0x1000),
        ([Area(MIB, 2 * MIB)], 0),
        ([Area(0, 0x3000), Area(0x8000, 0x9000)], 0x8000),
    ],
)
def test_the_trampoline_gets_the_highest_page_of_low_memory(entries: list[Area], page: int) -> None:
    shim = fresh()
    list_free(shim, [(one, RAM_TYPE) for one in entries], [ANYWHERE], bundle=NO_BUNDLE)
    assert shim.number("trampoline_pa") == page


# --- allocate --------------------------------------------------------------------------------------------------------


def take(ranges: list[Area], size: int, numa: int, limit: int) -> tuple[int, int]:
    """What allocate gives: (address, NUMA node), (0, ...) for nothing; takes it out of `ranges`."""
    for node in ((numa + step) % MAX_NUMA_NODES for step in range(MAX_NUMA_NODES)):
        fitting = [one for one in ranges if one.numa == node and one.end <= limit]
        largest = max(fitting, key=lambda one: one.end - one.base, default=None)
        if largest is not None and largest.end - largest.base >= size:
            ranges[ranges.index(largest)] = Area(largest.base, largest.end - size, node)
            return largest.end - size, node
    return 0, 0


def free_list() -> st.SearchStrategy[list[Area]]:
    """Ranges apart from each other, in four nodes."""
    gap = st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(0, 3))

    def place(gaps: list[tuple[int, int, int]]) -> list[Area]:
        page, areas = 256, []
        for before, size, numa in gaps:
            areas.append(Area((page + before) * PAGE_SIZE, (page + before + size) * PAGE_SIZE, numa))
            page += before + size
        return areas

    return st.lists(gap, max_size=8).map(place)


LIMIT = st.sampled_from([1 << 32, NOWHERE]) | st.integers(256, 500).map(lambda page: page * PAGE_SIZE)
REQUESTS = st.lists(st.tuples(st.integers(1, 45), st.integers(0, MAX_NUMA_NODES - 1), LIMIT), max_size=12)


@given(free_list(), REQUESTS)
def test_allocations_are_free_local_if_possible_and_apart(
    ranges: list[Area], requests: list[tuple[int, int, int]]
) -> None:
    shim = fresh()
    write_ranges(shim, "free_ranges", ranges)
    shim.write("free_count", len(ranges), size=4)
    free, given_away = set(pages_of(ranges)), set[int]()
    for pages, numa, limit in requests:
        done = returned(shim, shim.call("allocate", rdi=pages * PAGE_SIZE, rsi=numa, rdx=limit))
        address, node = take(ranges, pages * PAGE_SIZE, numa, limit)
        assert done.rax == address
        if address:
            got = Area(address, address + pages * PAGE_SIZE)
            assert done.registers["rcx"] == node
            assert got.pages <= free - given_away
            assert got.end <= limit
            given_away |= got.pages
    assert free_ranges(shim) == ranges
    assert changed(shim) <= VARIABLES
