"""The address map: every page of node memory belongs to one owner, and no two virtual pages collide."""

from sidecar.layout.address_map import (
    CPU_MAP_SLOT,
    IMAGE_VA,
    PAGES_PER_CPU,
    PER_CPU_MAP,
    PER_CPU_VA,
    PrivatePage,
    SharedPage,
    absolute_symbols,
    private_pa,
    required_memory,
    shared_pa,
    window_tables,
)
from sidecar.layout.schema import PAGE_SIZE

BASE = 0x1_4000_0000


def test_the_pages_of_a_node_fill_its_memory_without_overlap() -> None:
    for count in (2, 20, 32, 43):
        pages = [BASE]
        pages += [shared_pa(BASE, index, page) for index in range(count) for page in SharedPage]
        pages += [private_pa(BASE, count, index, page) for index in range(count) for page in PrivatePage]
        assert pages == [BASE + PAGE_SIZE * number for number in range(1 + PAGES_PER_CPU * count)]
        assert pages[-1] + PAGE_SIZE * (1 + window_tables(count)) == BASE + required_memory(count)


def test_upstreams_slots() -> None:
    slots = {mapping.symbol: mapping.slot for mapping in PER_CPU_MAP}
    upstream = {"command_page": 3, "vp_globals": 4, "control_page": 6, "register_page": 7, "stack": 511}
    assert {name: slots[name] for name in upstream} == upstream
    assert {IMAGE_VA, PER_CPU_VA} == {0xFFFFFF8000000000, 0xFFFFFF8000200000}


def test_guard_pages_stay_empty_around_the_stacks() -> None:
    slots = {mapping.slot for mapping in PER_CPU_MAP}
    assert not slots & {508, 510}


def test_symbols_lie_in_their_own_two_megabytes() -> None:
    symbols = absolute_symbols()
    assert symbols["stack_end"] == 0x400000
    assert symbols["cpu_map"] == CPU_MAP_SLOT * PAGE_SIZE == 0x1F8000
    assert all(0x200000 <= symbols[mapping.symbol] < 0x400000 for mapping in PER_CPU_MAP)
