"""Judges that are not the writer: binutils, elfutils, pyelftools, lief, and the Linux kernel read the files."""

import io
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lief
import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from sidecar.builder.elf import Plan
from tests.unit.elf.samples import EXIT_STATUS, dyn_image, dyn_plan, exec_image, exec_plan

KINDS = pytest.mark.parametrize("image", [dyn_image(), exec_image()], ids=["dyn", "exec"])
PLANS = pytest.mark.parametrize(
    ("plan", "image"), [(dyn_plan(), dyn_image()), (exec_plan(), exec_image())], ids=["dyn", "exec"]
)


@pytest.fixture
def elf_file(tmp_path: Path) -> Callable[[bytes], Path]:
    """Puts bytes into an executable file."""

    def write(image: bytes) -> Path:
        path = tmp_path / "sample.elf"
        path.write_bytes(image)
        path.chmod(0o755)
        return path

    return write


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def read(image: bytes) -> ELFFile:
    return ELFFile(io.BytesIO(image))


@KINDS
@pytest.mark.needs("readelf")
def test_readelf_has_nothing_to_complain_about(image: bytes, elf_file: Callable[[bytes], Path]) -> None:
    result = run("readelf", "-aW", elf_file(image))
    assert (result.returncode, result.stderr) == (0, "")
    assert "arning" not in result.stdout
    assert "rror" not in result.stdout


@KINDS
@pytest.mark.needs("eu-elflint")
def test_elflint_knows_everything_but_the_xen_note(image: bytes, elf_file: Callable[[bytes], Path]) -> None:
    result = run("eu-elflint", "--gnu-ld", elf_file(image))
    lines = [line for line in result.stdout.splitlines() if "unknown object file note type 18" not in line]
    assert lines in ([], ["No errors"])
    assert result.stderr == ""


@KINDS
@pytest.mark.needs("objdump")
def test_objdump_finds_the_routine_by_its_symbol(image: bytes, elf_file: Callable[[bytes], Path]) -> None:
    result = run("objdump", "-d", "-M", "intel", elf_file(image))
    assert result.stderr == ""
    assert "<start>:" in result.stdout
    assert "syscall" in result.stdout
    assert "int3" in result.stdout


@KINDS
@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="a Linux x86-64 program")
def test_linux_loads_it_and_reaches_entry_data_and_zeroed_bss(image: bytes, elf_file: Callable[[bytes], Path]) -> None:
    assert run(elf_file(image)).returncode == EXIT_STATUS


@PLANS
def test_pyelftools_sees_the_planned_segments(plan: Plan, image: bytes) -> None:
    loads = [segment for segment in read(image).iter_segments() if segment["p_type"] == "PT_LOAD"]
    seen = [(one["p_vaddr"], one["p_filesz"], one["p_memsz"]) for one in loads]
    assert seen == [(one.vaddr, one.file_bytes, one.memory_bytes) for one in plan.segments]
    for load in loads:
        assert load["p_offset"] == load["p_vaddr"] - plan.base
        assert load["p_paddr"] == load["p_vaddr"]
        assert load["p_vaddr"] % 0x1000 == 0
        assert load["p_flags"] & 3 != 3, "writable and executable"


@PLANS
def test_pyelftools_sees_the_planned_sections(plan: Plan, image: bytes) -> None:
    elf = read(image)
    seen = {section.name: section["sh_addr"] for section in elf.iter_sections() if section["sh_addr"]}
    assert seen == plan.addresses
    for section in elf.iter_sections():
        if section["sh_addr"]:
            assert section["sh_offset"] == section["sh_addr"] - plan.base
            assert section["sh_addr"] % section["sh_addralign"] == 0


def test_pyelftools_sees_relative_relocations_only() -> None:
    elf, at = read(dyn_image()), dyn_plan().addresses
    table = elf.get_section_by_name(".rela.dyn")
    assert isinstance(table, RelocationSection)
    seen = [(one["r_offset"], one["r_info_type"], one["r_addend"]) for one in table.iter_relocations()]
    assert seen == [(at[".data.rel.ro"], 8, at[".text"]), (at[".data"] + 8, 8, at[".bss"])]
    dynamic = elf.get_section_by_name(".dynamic")
    assert isinstance(dynamic, DynamicSection)
    tags = {tag.entry.d_tag: tag.entry.d_val for tag in dynamic.iter_tags()}
    assert (tags["DT_RELA"], tags["DT_RELASZ"]) == (at[".rela.dyn"], 48)
    assert (tags["DT_RELAENT"], tags["DT_RELACOUNT"]) == (24, 2)
    assert "DT_TEXTREL" not in tags


def test_relocated_constants_have_pages_of_their_own() -> None:
    relro = next(one for one in read(dyn_image()).iter_segments() if one["p_type"] == "PT_GNU_RELRO")
    assert relro["p_vaddr"] == dyn_plan().addresses[".data.rel.ro"]
    assert (relro["p_vaddr"] % 0x1000, relro["p_memsz"]) == (0, 0x1000)


def test_a_fixed_image_has_neither_relocations_nor_dynamic_section() -> None:
    elf = read(exec_image())
    assert not [one for one in elf.iter_sections() if one["sh_type"] in ("SHT_RELA", "SHT_REL", "SHT_DYNAMIC")]
    assert not [one for one in elf.iter_segments() if one["p_type"] in ("PT_DYNAMIC", "PT_GNU_RELRO")]
    assert elf["e_flags"] == 0


def test_the_note_segment_has_the_alignment_qemu_needs() -> None:
    notes = [one for one in read(exec_image()).iter_segments() if one["p_type"] == "PT_NOTE"]
    assert [one["p_align"] for one in notes] == [4]


@PLANS
def test_lief_agrees(plan: Plan, image: bytes) -> None:
    binary = lief.ELF.parse(list(image))
    assert isinstance(binary, lief.ELF.Binary)
    assert binary.entrypoint == plan.addresses[".text"]
    assert binary.has_nx
    loads = [one for one in binary.segments if one.type == lief.ELF.Segment.TYPE.LOAD]
    assert [(one.virtual_address, one.virtual_size) for one in loads] == [
        (one.vaddr, one.memory_bytes) for one in plan.segments
    ]
    write_and_execute = lief.ELF.Segment.FLAGS.W, lief.ELF.Segment.FLAGS.X
    assert not [one for one in binary.segments if all(one.has(flag) for flag in write_and_execute)]
    assert {one.name for one in binary.symtab_symbols} >= {"start", "first_byte", "stack"}
    assert len(binary.notes) == (2 if ".note.Xen" in plan.addresses else 1)
    assert all(one.type == lief.ELF.Relocation.TYPE.X86_64_RELATIVE for one in binary.relocations)
    assert len(list(binary.relocations)) == plan.relocation_count


@pytest.mark.needs("grub-file")
def test_grub_takes_the_shim_for_multiboot2_and_not_for_multiboot1(elf_file: Callable[[bytes], Path]) -> None:
    path = elf_file(exec_image())
    assert run("grub-file", "--is-x86-multiboot2", path).returncode == 0
    assert run("grub-file", "--is-x86-multiboot", path).returncode != 0
