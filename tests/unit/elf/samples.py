"""Small sound files of both kinds, as the inputs of the writer, so that a test can spoil one thing.

The code is a Linux program: it adds a byte of .data to a byte of .bss and exits with the sum, EXIT_STATUS. So the
Linux kernel can judge whether segments, entry and zeroed memory are what the headers say.
"""

from typing import Any

from sidecar.builder.elf import (
    MULTIBOOT2_SECTION,
    NOTE_ALIGN,
    PVH_NOTE_BYTES,
    PVH_SECTION,
    ElfSymbol,
    Plan,
    SectionKind,
    SectionSpec,
    SymbolBinding,
    SymbolType,
    multiboot2_header,
    plan_dyn,
    plan_exec,
    pvh_note,
    write_elf,
)
from sidecar.builder.elf.constants import SegmentType
from sidecar.builder.elf.record import Record
from sidecar.builder.elf.structures import EHDR, PHDR

EXIT_STATUS = 42
TEXT_BYTES = 0x30
DATA = bytes([EXIT_STATUS]) + bytes(23)
TEXT = SectionSpec(".text", TEXT_BYTES, 16, SectionKind.TEXT)
RODATA = SectionSpec(".rodata", 0x64, 16, SectionKind.RODATA)
RELRO_DATA = SectionSpec(".data.rel.ro", 0x20, 8, SectionKind.RELRO)
WRITABLE = SectionSpec(".data", len(DATA), 8, SectionKind.DATA)
BSS = SectionSpec(".bss", 0x2100, 0x40, SectionKind.BSS)
PVH = SectionSpec(PVH_SECTION, PVH_NOTE_BYTES, NOTE_ALIGN, SectionKind.NOTE)
MULTIBOOT2 = SectionSpec(MULTIBOOT2_SECTION, len(multiboot2_header(0, module_alignment=True)), 8, SectionKind.RODATA)

DYN_SECTIONS = (RODATA, TEXT, RELRO_DATA, WRITABLE, BSS)
EXEC_SECTIONS = (RODATA, MULTIBOOT2, PVH, TEXT, WRITABLE, BSS)


def dyn_plan() -> Plan:
    """A relocatable image with two relocations."""
    return plan_dyn(sections=DYN_SECTIONS, relocation_count=2)


def exec_plan() -> Plan:
    """An image for address 0x200000."""
    return plan_exec(sections=EXEC_SECTIONS)


def code(plan: Plan) -> bytes:
    """The program's 21 bytes."""
    text, data, bss = (plan.addresses[name] for name in (".text", ".data", ".bss"))
    return b"".join(
        (
            b"\x0f\xb6\x3d" + (data - (text + 7)).to_bytes(4, "little"),  # movzx edi, byte ptr [rip + data]
            b"\x40\x02\x3d" + (bss - (text + 14)).to_bytes(4, "little"),  # add dil, [rip + bss]
            b"\xb8\x3c\x00\x00\x00",  # mov eax, 60: exit
            b"\x0f\x05",  # syscall
        )
    )


def symbols(plan: Plan) -> list[ElfSymbol]:
    """A routine, a local label in it, an object in .data and one that fills .bss."""
    at = plan.addresses
    return [
        ElfSymbol("start", ".text", at[".text"], 21, SymbolType.STT_FUNC),
        ElfSymbol("start.exit", ".text", at[".text"] + 14, 0, SymbolType.STT_NOTYPE, SymbolBinding.STB_LOCAL),
        ElfSymbol("first_byte", ".data", at[".data"], 1, SymbolType.STT_OBJECT),
        ElfSymbol("stack", ".bss", at[".bss"], BSS.size, SymbolType.STT_OBJECT),
    ]


def dyn_relocations(plan: Plan) -> list[tuple[int, int]]:
    """A pointer to the code in .data.rel.ro, one to .bss in .data."""
    at = plan.addresses
    return [(at[".data"] + 8, at[".bss"]), (at[".data.rel.ro"], at[".text"])]


def dyn_inputs(plan: Plan) -> dict[str, Any]:
    """Keyword arguments of write_elf."""
    return {
        "contents": {".rodata": b"constant" * 12, ".text": code(plan), ".data.rel.ro": bytes(0x20), ".data": DATA},
        "symbols": symbols(plan),
        "relocations": dyn_relocations(plan),
        "entry": plan.addresses[".text"],
    }


def exec_inputs(plan: Plan) -> dict[str, Any]:
    """Keyword arguments of write_elf."""
    entry = plan.addresses[".text"]
    return {
        "contents": {
            ".rodata": b"constant" * 12,
            MULTIBOOT2_SECTION: multiboot2_header(entry, module_alignment=True),
            PVH_SECTION: pvh_note(entry),
            ".text": code(plan),
            ".data": DATA,
        },
        "symbols": symbols(plan),
        "entry": entry,
    }


def dyn_image() -> bytes:
    """The finished relocatable file."""
    plan = dyn_plan()
    return write_elf(plan, **dyn_inputs(plan))


def exec_image() -> bytes:
    """The finished fixed-address file."""
    plan = exec_plan()
    return write_elf(plan, **exec_inputs(plan))


def patched(image: bytes, record: Record, offset: int, **changes: int) -> bytes:
    """The image with fields of the record at `offset` replaced."""
    fields = {**record.parse(image, offset), **changes}
    return image[:offset] + record.build(**fields) + image[offset + record.size :]


def program_header_offset(image: bytes, segment_type: SegmentType, occurrence: int = 0) -> int:
    """File offset of the n-th program header of that type."""
    offsets = range(EHDR.size, EHDR.size + EHDR.parse(image)["e_phnum"] * PHDR.size, PHDR.size)
    return [offset for offset in offsets if PHDR.parse(image, offset)["p_type"] == segment_type][occurrence]
