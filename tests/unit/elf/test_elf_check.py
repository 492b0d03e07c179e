"""The host-side check: sound files pass, and each field that a loader relies on is refused by name."""

import contextlib
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.builder.elf import ElfError, SectionKind, SectionSpec, check, check_shim, plan_dyn, write_elf
from sidecar.builder.elf.constants import SegmentType
from sidecar.builder.elf.structures import DYN, EHDR, NHDR, PHDR, RELA, SHDR
from tests.unit.elf.samples import (
    PVH,
    TEXT,
    dyn_image,
    dyn_plan,
    exec_image,
    exec_plan,
    patched,
    program_header_offset,
)

IMAGE = dyn_image()
SHIM = exec_image()
LOAD = SegmentType.PT_LOAD
TEXT_HEADER = program_header_offset(IMAGE, LOAD, 1)
DATA_HEADER = program_header_offset(IMAGE, LOAD, 3)
RELOCATIONS = dyn_plan().addresses[".rela.dyn"]
DYNAMIC = dyn_plan().addresses[".dynamic"]


def header(**changes: int) -> bytes:
    return patched(IMAGE, EHDR, 0, **changes)


def segment(offset: int, **changes: int) -> bytes:
    return patched(IMAGE, PHDR, offset, **changes)


def relocation(**changes: int) -> bytes:
    return patched(IMAGE, RELA, RELOCATIONS, **changes)


def dynamic(index: int, **changes: int) -> bytes:
    return patched(IMAGE, DYN, DYNAMIC + index * DYN.size, **changes)


def without_loads() -> bytes:
    image = IMAGE
    for occurrence in range(4):
        image = patched(image, PHDR, program_header_offset(IMAGE, LOAD, occurrence), p_type=0)
    return image


def endless_dynamic() -> bytes:
    offset = program_header_offset(IMAGE, SegmentType.PT_DYNAMIC)
    return segment(offset, p_filesz=9 * DYN.size)


REFUSED: list[tuple[bytes, str]] = [
    (b"", "Elf64_Ehdr at offset 0x0: expected 0x40 bytes, got 0x0 before the end of the file"),
    (IMAGE[:0x3F], "expected 0x40 bytes, got 0x3f"),
    (IMAGE[:0x100], "Elf64_Phdr at offset 0xe8: expected 0x38 bytes, got 0x18"),
    (IMAGE[:0x1200], "program header 0x3 p_offset + p_filesz: expected at most the file size 0x1200, got 0x3000"),
    (b"\x7fELG" + IMAGE[4:], "ei_mag: expected 0x464c457f, got 0x474c457f"),
    (header(ei_class=1), "ei_class: expected 0x2, got 0x1"),
    (header(ei_data=2), "ei_data: expected 0x1, got 0x2"),
    (header(e_type=2), "e_type: expected 0x3, got 0x2"),
    (header(e_machine=3), "e_machine: expected 0x3e, got 0x3"),
    (header(e_flags=4), "e_flags: expected 0x0, got 0x4"),
    (header(e_phentsize=32), "e_phentsize: expected 0x38, got 0x20"),
    (header(e_phoff=1 << 63), "Elf64_Phdr at offset 0x8000000000000000: expected 0x38 bytes, got 0x0"),
    (header(e_phnum=0), "e_phnum: expected at least one PT_LOAD, got none among 0x0 program headers"),
    (without_loads(), "e_phnum: expected at least one PT_LOAD, got none among 0x9 program headers"),
    (header(e_entry=0x10), "e_entry: expected an address in an executable segment (0x1000..0x1030), got 0x10"),
    (header(e_entry=0x1030), "got 0x1030"),
    (segment(TEXT_HEADER, p_flags=7), "program header 0x2 p_flags: expected not both W and X, got 0x7"),
    (segment(TEXT_HEADER, p_flags=4), "e_entry: expected an address in an executable segment (none), got 0x1000"),
    (segment(TEXT_HEADER, p_align=1), "PT_LOAD 0x1 p_align: expected 0x1000, got 0x1"),
    (segment(TEXT_HEADER, p_vaddr=0x1008), "PT_LOAD 0x1 p_vaddr modulo a page: expected 0x0, got 0x8"),
    (segment(TEXT_HEADER, p_paddr=0), "PT_LOAD 0x1 p_paddr: expected 0x1000, got 0x0"),
    (segment(TEXT_HEADER, p_offset=0), "PT_LOAD 0x1 p_offset: expected 0x1000, got 0x0"),
    (segment(TEXT_HEADER, p_vaddr=0, p_paddr=0, p_offset=0), "PT_LOAD 0x1 p_vaddr: expected 0x324 or above, got 0x0"),
    (
        segment(TEXT_HEADER, p_memsz=0x31),
        "p_memsz (only the last segment has .bss): expected 0x30, got 0x31",
    ),
    (segment(DATA_HEADER, p_memsz=1), "PT_LOAD 0x3 p_memsz: expected at least 0x1 and p_filesz"),
    (segment(DATA_HEADER, p_memsz=0x20_0000), "image size: expected at most 0x200000 bytes with .bss, got 0x203000"),
    (relocation(r_info=1), "r_info: expected 0x8, got 0x1"),
    (relocation(r_info=1 << 32 | 8), "r_info: expected 0x8, got 0x100000008"),
    (relocation(r_offset=0x1000), "r_offset: expected 8 bytes of a writable segment's file part, got 0x1000"),
    (relocation(r_offset=1 << 40), "r_offset: expected 8 bytes of a writable segment's file part, got 0x10000000000"),
    (relocation(r_addend=-8), "r_addend: expected an address from 0x0 to"),
    (relocation(r_addend=1 << 21), "got 0x200000"),
    (dynamic(5, d_un=1 << 40), "DT_RELA: expected a table inside a loaded segment, got 0x10000000000..0x10000000030"),
    (dynamic(6, d_un=25), "DT_RELASZ modulo DT_RELAENT: expected 0x0, got 0x1"),
    (dynamic(7, d_un=16), "DT_RELAENT: expected 0x18, got 0x10"),
    (dynamic(8, d_un=3), "DT_RELACOUNT: expected 0x2, got 0x3"),
    (dynamic(0, d_tag=22), "DT_TEXTREL: expected no relocation of read-only segments, got the tag"),
    (endless_dynamic(), "PT_DYNAMIC: expected a DT_NULL before offset"),
]


def test_sound_files_pass() -> None:
    check(IMAGE)
    check_shim(SHIM)


@pytest.mark.parametrize(("image", "sentence"), REFUSED)
def test_check_refuses(image: bytes, sentence: str) -> None:
    with pytest.raises(ElfError, match=re.escape(sentence)):
        check(image)


def test_an_image_may_fill_2_mib_and_not_a_byte_more() -> None:
    def image(bss_bytes: int) -> bytes:
        bss = SectionSpec(".bss", bss_bytes, 0x1000, SectionKind.BSS)
        plan = plan_dyn(sections=[TEXT, bss], relocation_count=0)
        return write_elf(plan, contents={".text": b"\xf4"}, symbols=[], entry=plan.addresses[".text"])

    check(image(0x20_0000 - 0x3000))
    with pytest.raises(ElfError, match=r"image size: expected at most 0x200000 bytes .*, got 0x200001"):
        check(image(0x20_0000 - 0x3000 + 1))


def shim_without(what: str) -> bytes:
    start = exec_plan().addresses[what] - exec_plan().base
    return SHIM[:start] + bytes(8) + SHIM[start + 8 :]


PVH_OFFSET = exec_plan().addresses[PVH.name] - exec_plan().base
NOTE_HEADER = program_header_offset(SHIM, SegmentType.PT_NOTE)
FIRST_SECTION = EHDR.parse(SHIM)["e_shoff"] + SHDR.size

SHIM_REFUSED: list[tuple[bytes, str]] = [
    (IMAGE, "e_type: expected 0x2, got 0x3"),
    (patched(SHIM, PHDR, NOTE_HEADER, p_align=8), "PT_NOTE p_align: expected 0x4, got 0x8"),
    (
        patched(SHIM, PHDR, NOTE_HEADER, p_type=0),
        "expected a XEN_ELFNOTE_PHYS32_ENTRY note (type 0x12), got none",
    ),
    (patched(SHIM, NHDR, PVH_OFFSET, n_type=17), "PT_NOTE: expected a XEN_ELFNOTE_PHYS32_ENTRY note"),
    (patched(SHIM, NHDR, PVH_OFFSET, n_descsz=2), "PVH note n_descsz: expected 0x4 or 0x8, got 0x2"),
    (SHIM[: PVH_OFFSET + 16] + bytes(8) + SHIM[PVH_OFFSET + 24 :], "PVH entry: expected an address in an executable"),
    (
        shim_without(".multiboot2"),
        "Multiboot2 header: expected one, 8-byte aligned, in the first 0x8000",
    ),
    (
        SHIM[:0x800] + 0x1BADB002.to_bytes(4, "little") + SHIM[0x804:],
        "Multiboot 1 magic: expected none, for QEMU",
    ),
    (
        patched(SHIM, SHDR, FIRST_SECTION, sh_type=4),
        "section 0x1 sh_type: expected anything but 0x4, which GRUB",
    ),
    (SHIM[:-1], "Elf64_Shdr at offset"),
]


@pytest.mark.parametrize(("image", "sentence"), SHIM_REFUSED)
def test_check_shim_refuses(image: bytes, sentence: str) -> None:
    with pytest.raises(ElfError, match=re.escape(sentence)):
        check_shim(image)


@pytest.mark.parametrize("checker", [check, check_shim])
@pytest.mark.parametrize("image", [IMAGE, SHIM], ids=["dyn", "exec"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_corrupted_bytes_pass_or_are_refused(
    checker: Callable[[bytes], None], image: bytes, data: st.DataObject
) -> None:
    # Where the headers, notes, tables and relocations are; the rest of the file is padding and code.
    meaningful = [offset for offset, byte in enumerate(image) if byte and byte != 0xCC]
    changes = data.draw(st.dictionaries(st.sampled_from(meaningful), st.integers(0, 255), max_size=8))
    corrupted = bytearray(image)
    for offset, value in changes.items():
        corrupted[offset] = value
    del corrupted[data.draw(st.integers(0, len(image))) :]
    with contextlib.suppress(ElfError):
        checker(bytes(corrupted))
