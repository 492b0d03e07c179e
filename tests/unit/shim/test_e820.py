"""The memory map for Linux: byte for byte the loader's, but that the sidecar's memory in it is reserved."""

import struct
from bisect import bisect_right
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.layout import PAGE_SIZE, SidecarParams
from sidecar.layout.linux_boot import BootParams, E820Type, LinuxBoot
from sidecar.layout.params import SidecarNodeParams
from tests.support.emulator import Emulator, Outcome
from tests.unit.shim.helpers import fatal, fresh, returned
from tests.unit.shim.test_memory import Area, memory_map

ACPI_RECLAIMABLE = 3
Entry = tuple[Area, int]
MIB = 1 << 20


def write(entries: Sequence[Entry], nodes: Sequence[Area], image: Area, trampoline: int) -> tuple[Emulator, Outcome]:
    """write_e820 over the loader's entries, with these nodes' memory, image and trampoline page."""
    shim = fresh()
    shim.write("memory_map", memory_map(*entries))
    shim.write("memory_map_count", len(entries), size=4)
    params = [
        SidecarNodeParams.build(memory_base=node.base, memory_size=node.end - node.base, base_vp=0, vp_count=2)
        for node in nodes
    ]
    shim.write(shim.at("params_page") + SidecarParams.nodes, b"".join(params))
    shim.write("node_count", len(nodes), size=4)
    shim.write("image_pa", image.base)
    shim.write("image_bytes", image.end - image.base)
    shim.write("trampoline_pa", trampoline)
    return shim, shim.call("write_e820")


def table(shim: Emulator) -> list[Entry]:
    """What Linux reads in boot_params."""
    count = shim.number(shim.at("boot_params") + BootParams.e820_entries, 1)
    at = shim.at("boot_params") + BootParams.e820_table
    data = shim.read(at, count * LinuxBoot.E820_ENTRY_BYTES)
    return [(Area(base, base + size), kind) for base, size, kind in struct.iter_unpack("<QQI", data)]


def types(entries: Sequence[Entry], borders: Sequence[int]) -> list[int]:
    """The type of the bytes from each border on; 0 for none."""
    found = []
    for border in borders:
        kinds = [kind for area, kind in entries if area.base <= border < area.end]
        assert len(kinds) <= 1, f"{border:#x} is in two entries"
        found.append(kinds[0] if kinds else 0)
    return found


def reserved(shim: Emulator, nodes: Sequence[Area], image: Area, trampoline: int) -> list[Area]:
    lasting = Area(shim.at("lasting_tables"), shim.at("lasting_tables_end"))
    return [*nodes, image, Area(trampoline, trampoline + PAGE_SIZE), lasting] if nodes else []


def compare(entries: Sequence[Entry], nodes: Sequence[Area], image: Area, trampoline: int) -> Emulator:
    shim, outcome = write(entries, nodes, image, trampoline)
    returned(shim, outcome)
    kept = reserved(shim, nodes, image, trampoline)
    borders = sorted({end for area in [*kept, *(area for area, _ in entries)] for end in (area.base, area.end)})
    expected = [
        E820Type.RESERVED if kind == E820Type.RAM and any(area.base <= border < area.end for area in kept) else kind
        for border, kind in zip(borders, types(entries, borders), strict=True)
    ]
    assert types(table(shim), borders) == expected
    ends = {end for area, _ in table(shim) for end in (area.base, area.end)}
    assert ends <= set(borders), "a border that nobody asked for"
    assert all(area.base < area.end for area, _ in table(shim))
    return shim


FIRMWARE: list[Entry] = [
    (Area(0, 0x9FC00), E820Type.RAM),
    (Area(0x9FC00, 0xA0000), E820Type.RESERVED),
    (Area(MIB, 512 * MIB), E820Type.RAM),
    (Area(512 * MIB, 513 * MIB), ACPI_RECLAIMABLE),
    (Area(4096 * MIB, 5120 * MIB), E820Type.RAM),
]
IMAGE = Area(511 * MIB, 512 * MIB)
TRAMPOLINE = 0x9E000


def test_without_the_sidecar_the_map_is_the_loaders() -> None:
    assert table(compare(FIRMWARE, [], IMAGE, TRAMPOLINE)) == FIRMWARE


def test_the_sidecars_memory_is_reserved() -> None:
    nodes = [Area(510 * MIB, 511 * MIB), Area(5119 * MIB, 5120 * MIB)]
    shim = compare(FIRMWARE, nodes, IMAGE, TRAMPOLINE)
    assert (Area(510 * MIB, 512 * MIB), E820Type.RESERVED) in table(shim), "neighbours are one entry"
    assert (Area(0x9E000, 0x9F000), E820Type.RESERVED) in table(shim)
    assert (Area(5119 * MIB, 5120 * MIB), E820Type.RESERVED) in table(shim)


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[Entry], list[Area], Area, int]:
    """Entries apart from each other, and pages for the sidecar anywhere in its memory, apart from each other."""
    cuts = sorted(draw(st.sets(st.integers(0, 600), min_size=2, max_size=14)))
    kinds = draw(st.lists(st.sampled_from([0, E820Type.RAM, E820Type.RAM, E820Type.RESERVED, ACPI_RECLAIMABLE]),
                          min_size=len(cuts) - 1, max_size=len(cuts) - 1))  # fmt: skip
    entries = [
        (Area(low * PAGE_SIZE, high * PAGE_SIZE), int(kind))
        for low, high, kind in zip(cuts, cuts[1:], kinds, strict=False)
        if kind
    ]
    ours = sorted(draw(st.sets(st.integers(1, 500), min_size=4, max_size=12)))
    areas = [Area(low * PAGE_SIZE, high * PAGE_SIZE) for low, high in zip(ours[::2], ours[1::2], strict=False)]
    areas = draw(st.permutations(areas))
    free = [page for page in range(1, 600) if bisect_right(ours, page) % 2 == 0]
    return entries, areas[1:], areas[0], draw(st.sampled_from(free)) * PAGE_SIZE


@given(maps().filter(lambda drawn: bool(drawn[0])))
def test_any_map_is_the_loaders_but_for_the_sidecars_memory(drawn: tuple[list[Entry], list[Area], Area, int]) -> None:
    compare(*drawn)


@pytest.mark.parametrize("nodes", [62, 63])
def test_too_many_entries_end_the_machine(nodes: int) -> None:
    """Each node in the middle of RAM makes two entries more; 128 is the protocol's limit."""
    entries: list[Entry] = [(Area(16 * MIB, 4096 * MIB), E820Type.RAM)]
    memory = [Area((20 + 2 * number) * MIB, (21 + 2 * number) * MIB) for number in range(nodes)]
    shim, outcome = write(entries, memory, Area(18 * MIB, 19 * MIB), TRAMPOLINE)
    if 2 * (nodes + 1) + 1 <= LinuxBoot.E820_MAX_ENTRIES:
        returned(shim, outcome)
        assert len(table(shim)) == 2 * (nodes + 1) + 1
    else:
        assert fatal(shim, outcome) == "the memory map for Linux needs more than 128 entries"
