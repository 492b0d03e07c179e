"""The description: what it holds, how it reads, and that a damaged file gives one sentence and nothing else."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.builder.elf import ElfError, describe, render
from sidecar.builder.elf.constants import SegmentType
from sidecar.builder.elf.structures import EHDR, PHDR, SHDR, SYM
from tests.unit.elf.samples import dyn_image, dyn_plan, exec_image, exec_plan, patched, program_header_offset

DYN_IMAGE = dyn_image()
EXEC_IMAGE = exec_image()
SECTION_TABLE = EHDR.parse(DYN_IMAGE)["e_shoff"]
SECTION_COUNT = EHDR.parse(DYN_IMAGE)["e_shnum"]
SYMTAB_HEADER = SECTION_TABLE + (SECTION_COUNT - 3) * SHDR.size
SYMTAB = SHDR.parse(DYN_IMAGE, SYMTAB_HEADER)["sh_offset"]


def test_header_segments_and_sections() -> None:
    found = describe(DYN_IMAGE)
    at = dyn_plan().addresses
    assert found["file_bytes"] == len(DYN_IMAGE)
    assert (found["header"]["type"], found["header"]["machine"]) == ("ET_DYN", "EM_X86_64")
    assert found["header"]["entry"] == at[".text"]
    loads = [one for one in found["segments"] if one["type"] == "PT_LOAD"]
    assert [one["flags"] for one in loads] == ["R", "RX", "RW", "RW"]
    assert [one["vaddr"] for one in loads] == [one.vaddr for one in dyn_plan().segments]
    sections = {one["name"]: one for one in found["sections"]}
    assert {name: sections[name]["vaddr"] for name in at} == at
    assert (sections[".text"]["flags"], sections[".bss"]["type"]) == ("AX", "SHT_NOBITS")


def test_symbols_relocations_dynamic() -> None:
    found = describe(DYN_IMAGE)
    at = dyn_plan().addresses
    symbols = {one["name"]: one for one in found["symbols"]}
    assert symbols["start"] == {
        "name": "start",
        "section": ".text",
        "value": at[".text"],
        "size": 21,
        "type": "STT_FUNC",
        "binding": "STB_GLOBAL",
    }
    assert symbols["start.exit"]["binding"] == "STB_LOCAL"
    assert symbols["stack"]["type"] == "STT_OBJECT"
    assert [(one["type"], one["offset"], one["addend"]) for one in found["relocations"]] == [
        ("R_X86_64_RELATIVE", at[".data.rel.ro"], at[".text"]),
        ("R_X86_64_RELATIVE", at[".data"] + 8, at[".bss"]),
    ]
    assert {"tag": "DT_RELACOUNT", "value": 2} in found["dynamic"]


def test_notes_of_the_shim() -> None:
    found = describe(EXEC_IMAGE)
    assert found["pvh_entry"] == exec_plan().addresses[".text"]
    assert [one["type"] for one in found["notes"]] == ["NT_GNU_BUILD_ID", "XEN_ELFNOTE_PHYS32_ENTRY"]
    assert found["build_id"] == found["notes"][0]["descriptor"]
    assert describe(DYN_IMAGE)["pvh_entry"] is None


def test_it_is_ready_for_json() -> None:
    found = describe(EXEC_IMAGE)
    assert json.loads(json.dumps(found)) == found


def test_a_path_is_named_in_description_and_error(tmp_path: Path) -> None:
    path = tmp_path / "sample.elf"
    path.write_bytes(DYN_IMAGE)
    assert describe(path)["file"] == str(path)
    path.write_bytes(b"not an ELF file" * 10)
    with pytest.raises(ElfError, match=f"^{re.escape(str(path))}: ei_mag: expected 0x464c457f, got 0x20746f6e$"):
        describe(path)


def test_render_shows_every_table() -> None:
    text = render(describe(DYN_IMAGE))
    lines = text.splitlines()
    assert lines[0] == f"image: ET_DYN, EM_X86_64, {len(DYN_IMAGE)} bytes"
    assert lines[1] == "entry     0x1000"
    for title in ("Segments", "Sections", "Symbols", "Relocations", "Dynamic", "Notes"):
        assert title in lines
    assert "PVH" not in text
    assert not [line for line in lines if line != line.rstrip()]
    assert re.search(r"^PT_LOAD +RX +0x1000 +0x1000 +0x1000 +0x30 +0x30 +0x1000$", text, re.MULTILINE)
    assert "PVH entry 0x201000" in render(describe(EXEC_IMAGE)).splitlines()


def test_render_leaves_out_empty_tables() -> None:
    text = render(describe(EXEC_IMAGE))
    assert "Relocations" not in text
    assert "Dynamic" not in text


def test_a_file_without_section_headers_is_described() -> None:
    found = describe(patched(EXEC_IMAGE, EHDR, 0, e_shoff=0, e_shnum=0, e_shstrndx=0))
    assert found["sections"] == []
    assert found["build_id"] is not None


REFUSED: list[tuple[bytes, str]] = [
    (b"", "image: Elf64_Ehdr at offset 0x0: expected 0x40 bytes, got 0x0 before the end of the file"),
    (DYN_IMAGE[:0x3F], "expected 0x40 bytes, got 0x3f"),
    (DYN_IMAGE[:0x41], "Elf64_Phdr at offset 0x40: expected 0x38 bytes, got 0x1"),
    (DYN_IMAGE[:-1], f"Elf64_Shdr at offset {len(DYN_IMAGE) - 64:#x}: expected 0x40 bytes, got 0x3f"),
    (patched(DYN_IMAGE, EHDR, 0, ei_class=1), "ei_class: expected 0x2, got 0x1"),
    (patched(DYN_IMAGE, EHDR, 0, ei_data=2), "ei_data: expected 0x1, got 0x2"),
    (patched(DYN_IMAGE, EHDR, 0, e_phentsize=0), "e_phentsize: expected 0x38, got 0x0"),
    (patched(DYN_IMAGE, EHDR, 0, e_shentsize=8), "e_shentsize: expected 0x40, got 0x8"),
    (
        patched(DYN_IMAGE, EHDR, 0, e_shstrndx=99),
        f"expected less than e_shnum {SECTION_COUNT:#x}, got 0x63",
    ),
    (
        patched(DYN_IMAGE, PHDR, program_header_offset(DYN_IMAGE, SegmentType.PT_NOTE), p_filesz=1 << 40),
        f"program header 0x6: expected an end within the file's {len(DYN_IMAGE):#x} bytes, got 0x100",
    ),
    (
        patched(DYN_IMAGE, SHDR, SYMTAB_HEADER, sh_size=1 << 40),
        f"section header {SECTION_COUNT - 3:#x}: expected an end within the file's {len(DYN_IMAGE):#x} bytes",
    ),
    (
        patched(DYN_IMAGE, SHDR, SYMTAB_HEADER, sh_entsize=0),
        "image: expected an ELF64 file that can be read to its end, got contents that contradict each other",
    ),
    (
        patched(DYN_IMAGE, SYM, SYMTAB + SYM.size, st_shndx=77),
        "image: expected an ELF64 file that can be read to its end, got contents that contradict each other",
    ),
]


@pytest.mark.parametrize(("image", "sentence"), REFUSED)
def test_damaged_files_are_refused(image: bytes, sentence: str) -> None:
    with pytest.raises(ElfError, match=re.escape(sentence)) as caught:
        describe(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", [DYN_IMAGE, EXEC_IMAGE], ids=["dyn", "exec"])
def test_every_truncation_in_the_headers_and_the_tail_is_refused(image: bytes) -> None:
    table = EHDR.parse(image)["e_shoff"]
    for length in [*range(0, 0x300, 3), *range(0x300, table, 0x101), *range(table, len(image), 7)]:
        with pytest.raises(ElfError, match="expected"):
            describe(image[:length])


@pytest.mark.parametrize("image", [DYN_IMAGE, EXEC_IMAGE], ids=["dyn", "exec"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_corrupted_bytes_are_described_or_refused(image: bytes, data: st.DataObject) -> None:
    # Where the headers, notes, tables and relocations are; the rest of the file is padding and code.
    meaningful = [offset for offset, byte in enumerate(image) if byte and byte != 0xCC]
    near = st.builds(lambda offset, step: offset + step, st.sampled_from(meaningful), st.integers(0, 7))
    changes = data.draw(st.dictionaries(near, st.integers(0, 255), min_size=1, max_size=8))
    corrupted = bytearray(image)
    for offset, value in changes.items():
        corrupted[offset % len(image)] = value
    assert_outcome(bytes(corrupted))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
@example(b"\x7fELF")
@example(b"\x7fELF\x02\x01" + bytes(58))
def test_any_bytes_are_described_or_refused(image: bytes) -> None:
    assert_outcome(image)


def assert_outcome(image: bytes) -> None:
    """Either text of several lines or one sentence; any other exception fails the test."""
    refused = ""
    try:
        assert render(describe(image)).count("\n") > 1
    except ElfError as error:
        refused = str(error)
    assert "\n" not in refused
