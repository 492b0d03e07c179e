"""Relocation, and the page tables that all CPUs share: what the entry builds of them before the first CPU starts."""

import io
import itertools
import struct

import pytest
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from sidecar.builder import image
from sidecar.kernel.image_map import PERMISSION_PAGES, TABLES, read_only_pages
from sidecar.layout import IMAGE_VA, PAGE_SIZE
from sidecar.layout.address_map import CPU_MAP_SLOT, IMAGE_MAX_BYTES, TABLE_ENTRIES
from sidecar.layout.msr_map import msr_map
from sidecar.layout.svm import IOPM_PAGES
from sidecar.layout.x86 import PTE_ADDRESS_MASK, Pte
from sidecar.protocol.page_tables import MappedRange, walk
from tests.support.elf_fields import EHDR_BYTES, PHDR, PHDR_BYTES
from tests.support.emulator import Emulator
from tests.unit.kernel.helpers import BASE, CPU_MAP, OUTPUT, TRAMPOLINE, accepted, fresh, refusal, write_params

ELF = ELFFile(io.BytesIO(image.kernel().elf))
RELA_BYTES = 24
R_X86_64_64 = 1
RELRO, LOAD = "PT_GNU_RELRO", "PT_LOAD"


def entered(base: int = BASE) -> Emulator:
    kernel = fresh(base)
    write_params(kernel)
    accepted(kernel)
    return kernel


@pytest.mark.parametrize("base", [BASE, 0x5555_5000])
def test_every_relocated_field_points_to_where_the_cpus_run(base: int) -> None:
    kernel = fresh(base)
    write_params(kernel)
    accepted(kernel)
    for field, value in image.kernel().linked.relocations:
        assert kernel.number(base + field) == IMAGE_VA + value


def test_relocation_changes_nothing_else() -> None:
    kernel = fresh()
    kernel.call("relocate_image", r14=OUTPUT)
    fields = {field + byte for field, _ in image.kernel().linked.relocations for byte in range(8)}
    for segment in (one for one in ELF.iter_segments() if one["p_type"] == LOAD):
        before, start = segment.data(), segment["p_vaddr"]
        after = kernel.read(BASE + start, len(before))
        assert {start + at for at in range(len(before)) if before[at] != after[at]} <= fields


def relocation_entry(kernel: Emulator, **changes: int) -> None:
    """Change r_offset or r_info of the second entry of the table in memory."""
    table = ELF.get_section_by_name(".rela.dyn")
    assert table is not None
    at = BASE + table["sh_addr"] + RELA_BYTES
    offset, info, addend = struct.unpack("<QQQ", kernel.read(at, RELA_BYTES))
    kernel.write(at, struct.pack("<QQQ", changes.get("r_offset", offset), changes.get("r_info", info), addend))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"r_info": R_X86_64_64, "r_offset": 0x5008},
         "relocation type 1 at 0x5008, expected R_X86_64_RELATIVE (8)"),
        ({"r_offset": 1 << 63}, "relocation type 8 at 0x8000000000000000 lies outside the image"),
        ({"r_offset": image.kernel().plan.memory_bytes - 7},
         f"relocation type 8 at {image.kernel().plan.memory_bytes - 7:#x} lies outside the image"),
    ],
)  # fmt: skip
def test_a_wrong_relocation_is_refused(changes: dict[str, int], sentence: str) -> None:
    kernel = fresh()
    write_params(kernel)
    relocation_entry(kernel, **changes)
    assert refusal(kernel) == f"sidecar image: {sentence}"


def expected_rights() -> dict[int, int]:
    """Slot of image_table -> bits beside the address, by the program headers as pyelftools reads them."""
    rights: dict[int, int] = {}
    for segment in sorted(ELF.iter_segments(), key=lambda one: one["p_type"] == RELRO):
        slots = range(segment["p_vaddr"] // PAGE_SIZE, -(-(segment["p_vaddr"] + segment["p_memsz"]) // PAGE_SIZE))
        flags = segment["p_flags"]
        if segment["p_type"] == LOAD:
            bits = Pte.PRESENT | (flags & P_FLAGS.PF_W and Pte.WRITE) | (0 if flags & P_FLAGS.PF_X else Pte.NX)
            rights |= dict.fromkeys(slots, bits)
        elif segment["p_type"] == RELRO:
            rights |= {slot: rights[slot] & ~Pte.WRITE for slot in slots}
    for page in read_only_pages(image.kernel().linked.symbols):
        rights[page // PAGE_SIZE] &= ~Pte.WRITE
    return rights


def entries(kernel: Emulator, table: str) -> dict[int, int]:
    """The entries of a table that are not zero, by slot."""
    values = struct.unpack(f"<{TABLE_ENTRIES}Q", kernel.read(table, PAGE_SIZE))
    return {slot: value for slot, value in enumerate(values) if value}


def test_the_permission_maps_have_all_ports_and_all_msrs_but_those_that_are_passed() -> None:
    kernel = entered()
    maps = kernel.number("permission_maps_pa")
    assert maps % PAGE_SIZE == 0
    assert kernel.read(maps, PERMISSION_PAGES * PAGE_SIZE) == b"\xff" * (IOPM_PAGES * PAGE_SIZE) + msr_map()


def test_the_image_is_mapped_with_the_rights_of_its_segments() -> None:
    table = entries(entered(), "image_table")
    found = {slot: entry & ~PTE_ADDRESS_MASK for slot, entry in table.items() if slot < CPU_MAP_SLOT}
    assert found == expected_rights()
    assert not [slot for slot, bits in found.items() if bits & Pte.WRITE and not bits & Pte.NX]
    assert all(table[slot] & PTE_ADDRESS_MASK == BASE + slot * PAGE_SIZE for slot in found)


@pytest.mark.parametrize(("count", "pages"), [(2, 1), (256, 1), (257, 2), (2048, 8)])
def test_the_cpu_map_is_mapped_read_only_at_the_end(count: int, pages: int) -> None:
    kernel = fresh()
    write_params(kernel, cpu_map_count=max(count, 5))
    accepted(kernel)
    found = {slot: entry for slot, entry in entries(kernel, "image_table").items() if slot >= CPU_MAP_SLOT}
    assert found == {
        CPU_MAP_SLOT + number: (CPU_MAP + number * PAGE_SIZE) | Pte.PRESENT | Pte.NX for number in range(pages)
    }


def numbers(kind: str) -> list[int]:
    """The numbers of the program headers of a type."""
    return [number for number, one in enumerate(ELF.iter_segments()) if one["p_type"] == kind]


def change_header(kernel: Emulator, segment: int, name: str, value: int) -> None:
    """Another value in a program header of the loaded image."""
    field = PHDR[name]
    kernel.write(BASE + EHDR_BYTES + segment * PHDR_BYTES + field.offset, value, size=field.size)


@pytest.mark.parametrize("segment", numbers(LOAD))
def test_a_segment_both_writable_and_executable_is_refused(segment: int) -> None:
    kernel = fresh()
    write_params(kernel)
    change_header(kernel, segment, "p_flags", P_FLAGS.PF_R | P_FLAGS.PF_W | P_FLAGS.PF_X)
    page = ELF.get_segment(segment)["p_vaddr"] // PAGE_SIZE
    assert refusal(kernel) == f"sidecar image: the segment from page {page} on is both writable and executable"


PT_NULL = 0


@pytest.mark.parametrize("segment", numbers(LOAD))
def test_an_image_with_a_page_in_no_segment_is_refused(segment: int) -> None:
    kernel = fresh()
    write_params(kernel)
    change_header(kernel, segment, "p_type", PT_NULL)
    page, of = ELF.get_segment(segment)["p_vaddr"] // PAGE_SIZE, -(-image.kernel().plan.memory_bytes // PAGE_SIZE)
    assert refusal(kernel) == f"sidecar image: page {page} of its {of} is in no segment"


ADDRESS = st.integers(0, 2 * IMAGE_MAX_BYTES) | st.integers(0, (1 << 64) - 1)
OTHER_TABLES = len(TABLES) - 1


@given(vaddr=ADDRESS, size=ADDRESS)
def test_no_program_header_makes_it_write_beyond_the_image_table(vaddr: int, size: int) -> None:
    kernel = entered()
    others = kernel.read(TABLES[1], OTHER_TABLES * PAGE_SIZE)
    kernel.reset()
    write_params(kernel)
    change_header(kernel, numbers(RELRO)[0], "p_vaddr", vaddr)
    change_header(kernel, numbers(RELRO)[0], "p_memsz", size)
    end, most = (vaddr + size + PAGE_SIZE - 1) % (1 << 64) // PAGE_SIZE, IMAGE_MAX_BYTES // PAGE_SIZE
    if end > most:
        assert refusal(kernel) == f"sidecar image: a segment ends at page {end}, expected at most {most}"
        others = bytes(len(others))
    else:
        accepted(kernel)
    assert kernel.read(TABLES[1], len(others)) == others


def transition(kernel: Emulator) -> list[MappedRange]:
    """Everything that the transition tables map."""
    return list(walk(kernel, kernel.number("transition_cr3")))


def test_the_transition_tables_map_the_trampoline_at_its_own_address() -> None:
    (low,) = [mapped for mapped in transition(entered()) if mapped.va < 1 << 47]
    assert (low.va, low.pa, low.size, low.rights) == (TRAMPOLINE, TRAMPOLINE, PAGE_SIZE, "RX")


def test_the_transition_tables_map_the_image_where_all_cpus_see_it() -> None:
    kernel = entered()
    assert kernel.number("image_table_pa") == kernel.at("image_table")
    high = [mapped for mapped in transition(kernel) if IMAGE_VA <= mapped.va < IMAGE_VA + IMAGE_MAX_BYTES]
    assert {page.va: page.pa for page in pages(high)} == {
        IMAGE_VA + slot * PAGE_SIZE: BASE + slot * PAGE_SIZE for slot in expected_rights()
    }
    code = image.kernel().linked.symbols["arrive"]
    assert [one.rights for one in high if one.va <= IMAGE_VA + code < one.end] == ["RX"]


def test_no_mapping_is_for_user_mode_or_both_writable_and_executable() -> None:
    assert not {mapped.rights for mapped in transition(entered())} - {"R", "RW", "RX"}


def test_nothing_is_mapped_twice_for_writing() -> None:
    mapped = [page.pa for page in pages(transition(entered())) if page.writable]
    assert len(mapped) == len(set(mapped))


def pages(ranges: list[MappedRange]) -> list[MappedRange]:
    """The ranges page by page."""
    return list(itertools.chain.from_iterable(map(cut, ranges)))


def cut(mapped: MappedRange) -> list[MappedRange]:
    return [
        MappedRange(mapped.va + at, mapped.pa + at, PAGE_SIZE, mapped.writable, mapped.executable, mapped.user)
        for at in range(0, mapped.size, PAGE_SIZE)
    ]
