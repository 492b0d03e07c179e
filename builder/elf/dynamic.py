"""The sections the writer makes itself: the build-id note, and what makes an ET_DYN file relocatable.

The .hash, .dynsym and .dynstr are empty but present: DT_HASH, DT_SYMTAB and DT_STRTAB are mandatory.
Relocations are R_X86_64_RELATIVE only, the field at base + r_offset becomes base + r_addend, and never lie in
sections that are not writable: that would be a text relocation (DT_TEXTREL).

Ref: gABI chapter 5, "Dynamic Section", table "Dynamic Array Tags"; AMD64 supplement, section 4.4.1.
"""

from collections.abc import Sequence

from sidecar.builder.elf.constants import DynamicTag, ElfType, RelocationType
from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.notes import BUILD_ID_SECTION, build_id_note
from sidecar.builder.elf.plan import DYNSTR, GeneratedSection, PlacedSection, Plan, SectionKind
from sidecar.builder.elf.structures import DYN, HASH, RELA, SYM

Relocation = tuple[int, int]
"""Virtual address of an 8-byte field, and the 0-based address that becomes its value once the base is added."""

FIELD_BYTES = 8


def generated_contents(plan: Plan, relocations: Sequence[Relocation]) -> dict[str, bytes]:
    """Content of every section the writer makes itself, by name; the build id still zero.

    Raises ElfError, one sentence, for relocations that do not fit the plan.
    """
    if plan.elf_type is not ElfType.ET_DYN:
        if relocations:
            raise ElfError(f"relocations: expected none in an ET_EXEC file, got {len(relocations):#x}")
        return {BUILD_ID_SECTION: build_id_note()}
    contents = {
        BUILD_ID_SECTION: build_id_note(),
        ".hash": HASH.build(nbucket=1, nchain=1, bucket_0=0, chain_0=0),
        ".dynsym": bytes(SYM.size),
        ".dynstr": DYNSTR,
        ".dynamic": _dynamic(plan),
    }
    table = _relocation_table(plan, relocations)
    return contents | {".rela.dyn": table} if table else contents


def _dynamic(plan: Plan) -> bytes:
    at = plan.addresses
    entries = {
        DynamicTag.DT_HASH: at[".hash"],
        DynamicTag.DT_STRTAB: at[".dynstr"],
        DynamicTag.DT_SYMTAB: at[".dynsym"],
        DynamicTag.DT_STRSZ: len(DYNSTR),
        DynamicTag.DT_SYMENT: SYM.size,
    }
    if plan.relocation_count:
        entries |= {
            DynamicTag.DT_RELA: at[".rela.dyn"],
            DynamicTag.DT_RELASZ: plan.relocation_count * RELA.size,
            DynamicTag.DT_RELAENT: RELA.size,
            DynamicTag.DT_RELACOUNT: plan.relocation_count,
        }
    entries[DynamicTag.DT_NULL] = 0
    return b"".join(DYN.build(d_tag=tag, d_un=value) for tag, value in entries.items())


def _relocation_table(plan: Plan, relocations: Sequence[Relocation]) -> bytes:
    """Sorted by address, so that the caller's order does not show in the file."""
    if len(relocations) != plan.relocation_count:
        raise ElfError(f"relocations: expected {plan.relocation_count:#x} as planned, got {len(relocations):#x}")
    homes = [
        section
        for section in plan.sections
        if section.spec.kind in (SectionKind.RELRO, SectionKind.DATA) and not isinstance(section.spec, GeneratedSection)
    ]
    entries: list[bytes] = []
    previous_end = 0
    for offset, addend in sorted(relocations):
        _check_relocation(plan, homes, offset=offset, addend=addend, previous_end=previous_end)
        previous_end = offset + FIELD_BYTES
        entries.append(RELA.build(r_offset=offset, r_info=RelocationType.R_X86_64_RELATIVE, r_addend=addend))
    return b"".join(entries)


def _check_relocation(
    plan: Plan, homes: Sequence[PlacedSection], *, offset: int, addend: int, previous_end: int
) -> None:
    if not any(section.vaddr <= offset and offset + FIELD_BYTES <= section.end for section in homes):
        names = ", ".join(section.spec.name for section in homes) or "a section of kind RELRO or DATA"
        raise ElfError(f"relocation at {offset:#x}: expected 8 bytes inside {names}, got an address outside")
    if offset % FIELD_BYTES:
        raise ElfError(
            f"relocation at {offset:#x}: expected an address aligned to 0x8, got {offset % FIELD_BYTES:#x} more"
        )
    if offset < previous_end:
        raise ElfError(f"relocation at {offset:#x}: expected one per field, got a second for the same field")
    if not 0 <= addend <= plan.memory_bytes:
        raise ElfError(
            f"relocation at {offset:#x}: expected an addend from 0x0 to the image's end {plan.memory_bytes:#x}, "
            f"got {addend:#x}"
        )
