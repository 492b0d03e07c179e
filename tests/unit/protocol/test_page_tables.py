"""The page-table walk and the comparison with the address map, on tables that are right and on damaged ones."""

from collections.abc import Callable

import pytest

from sidecar.layout import IMAGE_VA, PAGE_SIZE, PrivatePage
from sidecar.layout.address_map import CPU_MAP_SLOT, PER_CPU_MAP, PER_CPU_VA
from sidecar.layout.x86 import Pte
from sidecar.protocol.address_check import ImageSegment, differences, names_of
from sidecar.protocol.discovery import discover
from sidecar.protocol.page_tables import MappedRange, PageTableError, walk
from tests.support.synthetic import (
    CPU_MAP_PA,
    IMAGE_PA,
    IMAGE_RIGHTS,
    Synthetic,
    machine,
    table_slot,
)

SEGMENTS = [
    ImageSegment(number * PAGE_SIZE, PAGE_SIZE, writable=bool(rights & Pte.WRITE), executable=not rights & Pte.NX)
    for number, rights in enumerate(IMAGE_RIGHTS)
]
VA = {mapping.symbol: mapping.va for mapping in PER_CPU_MAP}


def ranges_of(memory: Synthetic) -> list[MappedRange]:
    found = discover(memory)
    return list(walk(memory, found.private_page_pa(found.cpu(1), PrivatePage.PML4)))


def test_walk_merges_neighbours() -> None:
    ranges = ranges_of(machine())
    assert [(one.va, one.pa, one.size, one.rights) for one in ranges[:4]] == [
        (IMAGE_VA, IMAGE_PA, PAGE_SIZE, "R"),
        (IMAGE_VA + PAGE_SIZE, IMAGE_PA + PAGE_SIZE, PAGE_SIZE, "RX"),
        (IMAGE_VA + 2 * PAGE_SIZE, IMAGE_PA + 2 * PAGE_SIZE, 2 * PAGE_SIZE, "RW"),
        (IMAGE_VA + CPU_MAP_SLOT * PAGE_SIZE, CPU_MAP_PA, PAGE_SIZE, "R"),
    ]
    three = next(one for one in ranges if one.va == VA["privileged_page"])
    assert names_of(three) == ["privileged_page", "diagnostic_page", "log_page"]
    assert three.size == 3 * PAGE_SIZE
    assert [name for one in ranges for name in names_of(one)] == [
        "image", "image", "image", "cpu_map", *(mapping.symbol for mapping in PER_CPU_MAP),
    ]


def test_walk_of_large_pages_and_the_lower_half() -> None:
    memory = Synthetic()
    link = Pte.PRESENT | Pte.WRITE | Pte.USER
    memory.write_u64(0x1000, 0x2000 | link)
    memory.write_u64(0x2000, 0x3000 | link | Pte.NX)
    memory.write_u64(0x2008, 0x40000000 | link | Pte.LARGE)
    memory.write_u64(0x3000 + 8 * 5, 0x600000 | Pte.PRESENT | Pte.LARGE | Pte.USER)
    memory.write_u64(0x3000 + 8 * 6, 0x800000 | Pte.PRESENT | Pte.LARGE | Pte.USER)
    assert list(walk(memory, 0x1000)) == [
        MappedRange(0xA00000, 0x600000, 0x400000, writable=False, executable=False, user=True),
        MappedRange(0x40000000, 0x40000000, 1 << 30, writable=True, executable=True, user=True),
    ]


def test_walk_of_tables_that_refer_to_each_other_ends() -> None:
    memory = Synthetic()
    for slot in range(0, 512, 64):
        memory.write_u64(0x1000 + 8 * slot, 0x1000 | Pte.PRESENT)
    with pytest.raises(PageTableError, match=r"^the page tables have more than 512 tables"):
        list(walk(memory, 0x1000))


def test_walk_of_a_table_outside_of_memory() -> None:
    memory = Synthetic()
    memory.write_u64(0x1000, 0x7_0000_0000 | Pte.PRESENT)
    with pytest.raises(PageTableError, match=r"^the page tables have a table at 0x700000000, where no memory is: "):
        list(walk(memory, 0x1000))


@pytest.mark.parametrize("segments", [None, SEGMENTS])
def test_tables_as_the_address_map_says_have_no_differences(segments: list[ImageSegment] | None) -> None:
    memory = machine()
    found = discover(memory)
    for cpu in found.sidecar_cpus:
        ranges = list(walk(memory, found.private_page_pa(cpu, PrivatePage.PML4)))
        assert differences(ranges, found, cpu, segments) == []


def set_entry(va: int, value: int) -> Callable[[Synthetic], None]:
    return lambda memory: memory.write_u64(table_slot(1, va=va), value)


STACK_PA = 0x200000 + (1 + 2 * 3 + 10 + PrivatePage.STACK) * PAGE_SIZE
LATE_VA = IMAGE_VA + 9 * PAGE_SIZE

DAMAGE: dict[str, tuple[Callable[[Synthetic], None], list[str]]] = {
    "absent": (set_entry(VA["stack"], 0), [f"stack at {VA['stack']:#x} is not mapped"]),
    "elsewhere": (
        set_entry(VA["stack"], 0x1000 | Pte.PRESENT | Pte.WRITE | Pte.NX),
        [f"stack at {VA['stack']:#x}: expected {STACK_PA:#x} RW, got 0x1000 RW"],
    ),
    "executable": (
        set_entry(VA["stack"], STACK_PA | Pte.PRESENT | Pte.WRITE),
        [
            f"{VA['stack']:#x} to {VA['stack'] + PAGE_SIZE:#x} is both writable and executable",
            f"stack at {VA['stack']:#x}: expected {STACK_PA:#x} RW, got {STACK_PA:#x} RWX",
        ],
    ),
    "guard page": (
        set_entry(VA["stack"] - PAGE_SIZE, 0x5000 | Pte.PRESENT | Pte.NX),
        [f"{VA['stack'] - PAGE_SIZE:#x} is mapped to 0x5000 R, expected nothing"],
    ),
    "behind the image": (
        set_entry(LATE_VA, 0x109000 | Pte.PRESENT | Pte.NX),
        [f"{LATE_VA:#x} is mapped to 0x109000 R, expected nothing"],
    ),
    "image page elsewhere": (
        set_entry(IMAGE_VA, 0x5000 | Pte.PRESENT | Pte.NX),
        [f"image at {IMAGE_VA:#x}: expected {IMAGE_PA:#x}, got 0x5000"],
    ),
    "writable CPU map": (
        set_entry(IMAGE_VA + CPU_MAP_SLOT * PAGE_SIZE, CPU_MAP_PA | Pte.PRESENT | Pte.WRITE | Pte.NX),
        [f"cpu_map at {IMAGE_VA + CPU_MAP_SLOT * PAGE_SIZE:#x}: expected R, got RW"],
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(case: str) -> None:
    damage, expected = DAMAGE[case]
    memory = machine()
    damage(memory)
    assert differences(ranges_of(memory), discover(memory), discover(memory).cpu(1)) == expected


def test_with_segments_the_rights_in_the_image_are_compared() -> None:
    memory = machine()
    set_entry(IMAGE_VA + 2 * PAGE_SIZE, IMAGE_PA + 2 * PAGE_SIZE | Pte.PRESENT | Pte.NX)(memory)
    found = discover(memory)
    va, pa = IMAGE_VA + 2 * PAGE_SIZE, IMAGE_PA + 2 * PAGE_SIZE
    assert differences(ranges_of(memory), found, found.cpu(1), SEGMENTS) == [
        f"image at {va:#x}: expected {pa:#x} RW, got {pa:#x} R",
    ]
    assert differences(ranges_of(memory), found, found.cpu(1), SEGMENTS[:3])[-1:] == [
        f"{va + PAGE_SIZE:#x} is mapped to {pa + PAGE_SIZE:#x} RW, expected nothing",
    ]


def test_a_mapping_far_away_and_user_mode() -> None:
    found = discover(machine())
    far = MappedRange(0, 0, 1 << 39, writable=False, executable=False, user=True)
    ranges = [far, *ranges_of(machine())]
    assert differences(ranges, found, found.cpu(1)) == [
        "0x0 to 0x8000000000 is open to user mode",
        "0x0 to 0x8000000000 is mapped to 0x0 RU, expected nothing",
    ]
    assert names_of(far) == []
    assert PER_CPU_VA not in range(far.va, far.end)
