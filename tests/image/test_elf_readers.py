"""Readers that are not the writer find nothing wrong with the images: binutils, elfutils, GRUB, lief, pyelftools."""

import hashlib
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import lief
import pytest
from elftools.elf.constants import P_FLAGS
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import NoteSection, SymbolTableSection

from sidecar.builder import image
from tests.image.helpers import BOTH, built, read

XEN_NOTE = "unknown object file note type 18 with owner name 'Xen'"
MULTIBOOT2_MAGIC, MULTIBOOT2_SEARCH, MULTIBOOT2_ALIGN = 0xE85250D6, 0x8000, 8
ENTRY_ADDRESS_TAG, END_TAG = 3, 0
R_X86_64_RELATIVE = 8


@pytest.fixture
def file(name: str, tmp_path: Path) -> Path:
    path = tmp_path / built(name).name
    path.write_bytes(built(name).elf)
    return path


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


@BOTH
@pytest.mark.needs("readelf")
def test_readelf_has_nothing_to_complain_about(file: Path) -> None:
    result = run("readelf", "-aW", file)
    assert (result.returncode, result.stderr) == (0, "")
    assert not re.findall(r"(?i)\b(?:warning|error):.*", result.stdout)


@BOTH
@pytest.mark.needs("eu-elflint")
def test_elflint_knows_everything_but_the_xen_note(file: Path, name: str) -> None:
    result = run("eu-elflint", "--gnu-ld", file)
    complaints = [line for line in result.stdout.splitlines() if XEN_NOTE not in line]
    assert complaints in ([], ["No errors"])
    assert result.stderr == ""
    assert (XEN_NOTE in result.stdout) == (name == "shim")


@pytest.mark.parametrize("name", ["shim"])
@pytest.mark.needs("grub-file")
def test_grub_takes_the_shim_for_multiboot2(file: Path) -> None:
    assert run("grub-file", "--is-x86-multiboot2", file).returncode == 0
    assert run("grub-file", "--is-x86-multiboot", file).returncode != 0


@BOTH
def test_no_segment_is_both_writable_and_executable(name: str) -> None:
    both = P_FLAGS.PF_W | P_FLAGS.PF_X
    flags = [segment["p_flags"] for segment in read(built(name).elf).iter_segments()]
    assert flags
    assert not [one for one in flags if one & both == both]


@BOTH
def test_lief_sees_code_and_data_apart(name: str) -> None:
    binary = lief.ELF.parse(list(built(name).elf))
    assert isinstance(binary, lief.ELF.Binary)
    assert binary.has_nx
    kinds = lief.ELF.Segment.FLAGS
    loads = [segment for segment in binary.segments if segment.type == lief.ELF.Segment.TYPE.LOAD]
    assert [segment for segment in loads if segment.has(kinds.X)]
    assert not [segment for segment in loads if segment.has(kinds.W) and segment.has(kinds.X)]
    entry = next(segment for segment in loads if segment.has(kinds.X))
    assert 0 <= binary.entrypoint - entry.virtual_address < entry.physical_size


def test_the_kernel_has_relative_relocations_only() -> None:
    tables = [one for one in read(image.kernel().elf).iter_sections() if one["sh_type"] in ("SHT_RELA", "SHT_REL")]
    assert [table.name for table in tables] == [".rela.dyn"]
    (table,) = tables
    assert isinstance(table, RelocationSection)
    assert {one["r_info_type"] for one in table.iter_relocations()} == {R_X86_64_RELATIVE}
    assert {one["r_info_sym"] for one in table.iter_relocations()} == {0}


def test_the_shim_is_not_relocated_at_all() -> None:
    elf = read(image.shim().elf)
    assert elf["e_type"] == "ET_EXEC"
    assert not [one.name for one in elf.iter_sections() if one["sh_type"] in ("SHT_RELA", "SHT_REL", "SHT_DYNAMIC")]
    assert not [one for one in elf.iter_segments() if one["p_type"] in ("PT_DYNAMIC", "PT_GNU_RELRO", "PT_INTERP")]


@BOTH
def test_the_build_id_is_the_hash_of_everything_else(name: str) -> None:
    (build_id,) = [str(note["n_desc"]) for note in notes(name) if note["n_name"] == "GNU"]
    data = built(name).elf
    assert data.count(bytes.fromhex(build_id)) == 1
    assert hashlib.sha1(data.replace(bytes.fromhex(build_id), bytes(20))).hexdigest() == build_id


def test_the_pvh_note_names_the_entry() -> None:
    (entry,) = [note["n_descdata"] for note in notes("shim") if note["n_name"] == "Xen"]
    assert int.from_bytes(entry, "little") == symbol("shim", "pvh_entry")


def notes(name: str) -> list[dict[str, Any]]:
    sections = [one for one in read(built(name).elf).iter_sections() if isinstance(one, NoteSection)]
    return [dict(note) for section in sections for note in section.iter_notes()]


def symbol(name: str, label: str) -> int:
    table = read(built(name).elf).get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    found = table.get_symbol_by_name(label)
    assert found is not None
    (one,) = found
    return int(one["st_value"])


def test_the_multiboot2_header_names_the_entry() -> None:
    """Ref: Multiboot2 Specification 2.0, section 3.1."""
    data = image.shim().elf
    places = range(0, MULTIBOOT2_SEARCH, MULTIBOOT2_ALIGN)
    (at,) = [at for at in places if data[at : at + 4] == MULTIBOOT2_MAGIC.to_bytes(4, "little")]
    magic, architecture, length, checksum = struct.unpack_from("<IIII", data, at)
    assert at + length <= MULTIBOOT2_SEARCH
    assert architecture == 0
    assert (magic + architecture + length + checksum) % (1 << 32) == 0
    tags, place = {}, at + 16
    while place < at + length:
        kind, flags, size = struct.unpack_from("<HHI", data, place)
        assert flags == 0
        tags[kind] = data[place + 8 : place + size]
        place += -(-size // MULTIBOOT2_ALIGN) * MULTIBOOT2_ALIGN
    assert place == at + length
    assert list(tags)[-1] == END_TAG
    assert int.from_bytes(tags[ENTRY_ADDRESS_TAG], "little") == symbol("shim", "multiboot2_entry")


def test_entries_are_the_routines_of_that_name() -> None:
    assert read(image.kernel().elf)["e_entry"] == symbol("kernel", "entry")
    assert read(image.shim().elf)["e_entry"] == symbol("shim", "pvh_entry")


@BOTH
def test_symbols_say_where_the_linker_put_things(name: str) -> None:
    table = read(built(name).elf).get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    seen = {one.name: one["st_value"] for one in table.iter_symbols() if one.name}
    linked = built(name).linked.symbols
    assert seen == {label: linked[label] for label in seen}
    assert {line.routine for line in built(name).linked.lines} <= set(seen)
