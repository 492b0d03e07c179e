"""The program header table of a planned file.

Ref: gABI chapter 5, "Program Header"; Linux Standard Base Core 5.0, section 12.2 (PT_GNU_STACK, PT_GNU_RELRO).
"""

from collections.abc import Iterator

from sidecar.builder.elf.constants import PAGE_BYTES, ElfType, SegmentFlag, SegmentType
from sidecar.builder.elf.notes import NOTE_ALIGN
from sidecar.builder.elf.plan import SEGMENT_FLAGS, Plan, SectionKind, SegmentKind, program_header_count
from sidecar.builder.elf.structures import DYN, EHDR, PHDR

STACK_ALIGN = 16
TABLE_ALIGN = 8


def program_headers(plan: Plan) -> list[bytes]:
    """One entry per header: PT_PHDR before the PT_LOADs, those by address, as the gABI asks."""
    return list(_headers(plan))


def _headers(plan: Plan) -> Iterator[bytes]:
    readable, writable = SegmentFlag.PF_R, SegmentFlag.PF_R | SegmentFlag.PF_W
    count = program_header_count(plan.elf_type, [segment.kind for segment in plan.segments])
    yield _header(
        plan,
        SegmentType.PT_PHDR,
        readable,
        vaddr=plan.base + EHDR.size,
        file_bytes=count * PHDR.size,
        align=TABLE_ALIGN,
    )
    for segment in plan.segments:
        yield _header(
            plan,
            SegmentType.PT_LOAD,
            SEGMENT_FLAGS[segment.kind],
            vaddr=segment.vaddr,
            file_bytes=segment.file_bytes,
            zeroed_bytes=segment.memory_bytes - segment.file_bytes,
            align=PAGE_BYTES,
        )
    if plan.elf_type is ElfType.ET_DYN:
        dynamic = plan.section(".dynamic")
        yield _header(
            plan,
            SegmentType.PT_DYNAMIC,
            writable,
            vaddr=dynamic.vaddr,
            file_bytes=dynamic.spec.size,
            align=DYN.size // 2,
        )
    yield _note_header(plan)
    # No address: it only says that the stack is not executable.
    yield PHDR.build(
        p_type=SegmentType.PT_GNU_STACK,
        p_flags=writable,
        p_offset=0,
        p_vaddr=0,
        p_paddr=0,
        p_filesz=0,
        p_memsz=0,
        p_align=STACK_ALIGN,
    )
    for segment in plan.segments:
        if segment.kind is SegmentKind.RELRO:
            yield _header(
                plan,
                SegmentType.PT_GNU_RELRO,
                readable,
                vaddr=segment.vaddr,
                file_bytes=segment.file_bytes,
                align=1,
            )


def _note_header(plan: Plan) -> bytes:
    """All notes are neighbours: sizes and alignment are multiples of 4, so one segment holds them without gaps."""
    notes = [section for section in plan.sections if section.spec.kind is SectionKind.NOTE]
    return _header(
        plan,
        SegmentType.PT_NOTE,
        SegmentFlag.PF_R,
        vaddr=notes[0].vaddr,
        file_bytes=notes[-1].end - notes[0].vaddr,
        align=NOTE_ALIGN,
    )


def _header(
    plan: Plan,
    segment_type: SegmentType,
    flags: SegmentFlag,
    *,
    vaddr: int,
    file_bytes: int,
    zeroed_bytes: int = 0,
    align: int,
) -> bytes:
    """Offset in the file is distance from the base; nothing is loaded elsewhere than where it runs."""
    return PHDR.build(
        p_type=segment_type,
        p_flags=flags,
        p_offset=vaddr - plan.base,
        p_vaddr=vaddr,
        p_paddr=vaddr,
        p_filesz=file_bytes,
        p_memsz=file_bytes + zeroed_bytes,
        p_align=align,
    )
