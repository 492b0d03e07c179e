"""From a plan and the sections' bytes to the finished file, byte for byte the same for the same input.

    plan = plan_dyn(sections=[SectionSpec(".text", 64, 16, SectionKind.TEXT)], relocation_count=0)
    image = write_elf(plan, contents={".text": code}, symbols=[], relocations=[], entry=plan.addresses[".text"])

Behind the loaded part follow .symtab, .strtab, .shstrtab and the section headers, for people and their tools.
The build id is the SHA-1 over the finished file with the id itself zero.
"""

from collections.abc import Mapping, Sequence

from sidecar.builder.elf.constants import (
    ELF_MAGIC,
    INT3,
    PAGE_BYTES,
    ElfClass,
    ElfData,
    ElfType,
    ElfVersion,
    Machine,
)
from sidecar.builder.elf.dynamic import Relocation, generated_contents
from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.multiboot2 import MULTIBOOT1_SEARCH_BYTES, find_multiboot1
from sidecar.builder.elf.notes import BUILD_ID_SECTION, stamp_build_id
from sidecar.builder.elf.plan import GeneratedSection, Plan, SectionKind, SegmentKind
from sidecar.builder.elf.program_headers import program_headers
from sidecar.builder.elf.section_headers import ElfSymbol, Tail, build_tail
from sidecar.builder.elf.structures import EHDR, PHDR, SHDR


def write_elf(
    plan: Plan,
    *,
    contents: Mapping[str, bytes],
    symbols: Sequence[ElfSymbol],
    relocations: Sequence[Relocation] = (),
    entry: int,
) -> bytes:
    """The ELF file. `contents` names every planned section but .bss; shorter content is padded (text with int3).

    Raises ElfError, one sentence, when contents, symbols, relocations or entry do not fit the plan.
    """
    _check_entry(plan, entry)
    given = _checked_contents(plan, contents)
    image = _loaded_part(plan, {**given, **generated_contents(plan, relocations)})
    tail = build_tail(plan, symbols, offset=len(image))
    headers = program_headers(plan)
    head = _elf_header(plan, entry=entry, program_header_count=len(headers), tail=tail) + b"".join(headers)
    image[: len(head)] = head
    image += tail.data
    stamp_build_id(image, note_offset=plan.section(BUILD_ID_SECTION).vaddr - plan.base)
    _check_multiboot1(plan, image)
    return bytes(image)


def _elf_header(plan: Plan, *, entry: int, program_header_count: int, tail: Tail) -> bytes:
    return EHDR.build(
        ei_mag=ELF_MAGIC,
        ei_class=ElfClass.ELFCLASS64,
        ei_data=ElfData.ELFDATA2LSB,
        ei_version=ElfVersion.EV_CURRENT,
        ei_osabi=0,
        ei_abiversion=0,
        ei_pad=0,
        e_type=plan.elf_type,
        e_machine=Machine.EM_X86_64,
        e_version=ElfVersion.EV_CURRENT,
        e_entry=entry,
        e_phoff=EHDR.size,
        e_shoff=tail.table_offset,
        e_flags=0,
        e_ehsize=EHDR.size,
        e_phentsize=PHDR.size,
        e_phnum=program_header_count,
        e_shentsize=SHDR.size,
        e_shnum=tail.section_count,
        e_shstrndx=tail.section_count - 1,
    )


def _check_entry(plan: Plan, entry: int) -> None:
    text = [section for section in plan.sections if section.spec.kind is SectionKind.TEXT]
    if not any(section.vaddr <= entry < section.end for section in text):
        ranges = ", ".join(f"{section.spec.name} {section.vaddr:#x}..{section.end:#x}" for section in text)
        raise ElfError(f"entry: expected an address in {ranges}, got {entry:#x}")


def _check_multiboot1(plan: Plan, image: bytearray) -> None:
    if plan.elf_type is ElfType.ET_EXEC and (found := find_multiboot1(bytes(image))) is not None:
        raise ElfError(
            f"image: expected no Multiboot 1 magic in the first {MULTIBOOT1_SEARCH_BYTES:#x} bytes, "
            f"got 0x1badb002 at {found:#x}, for which QEMU would refuse the file"
        )


def _checked_contents(plan: Plan, contents: Mapping[str, bytes]) -> Mapping[str, bytes]:
    for name, content in contents.items():
        spec = plan.section(name).spec
        if isinstance(spec, GeneratedSection):
            raise ElfError(f"section {name}: expected no content, its bytes are made here; got {len(content):#x} bytes")
        if spec.kind is SectionKind.BSS:
            raise ElfError(f"section {name}: expected no content in zeroed memory, got {len(content):#x} bytes")
        if len(content) > spec.size:
            raise ElfError(f"section {name}: expected at most {spec.size:#x} bytes as planned, got {len(content):#x}")
    for section in plan.sections:
        spec = section.spec
        if not isinstance(spec, GeneratedSection) and spec.kind is not SectionKind.BSS and spec.name not in contents:
            raise ElfError(f"section {spec.name}: expected up to {spec.size:#x} bytes of content, got none")
    return contents


def _loaded_part(plan: Plan, contents: Mapping[str, bytes]) -> bytearray:
    image = bytearray(plan.loaded_file_bytes)
    for segment in plan.segments:
        if segment.kind is SegmentKind.EXECUTE:
            start = segment.vaddr - plan.base
            pages = -(-segment.file_bytes // PAGE_BYTES)
            end = min(start + pages * PAGE_BYTES, len(image))
            image[start:end] = bytes([INT3]) * (end - start)
    for name, content in contents.items():
        start = plan.section(name).vaddr - plan.base
        image[start : start + len(content)] = content
    return image
