"""The ELF64 files of the project: planned, written, checked and described, nothing but Python.

`sidecar.elf` (ET_DYN, relocates itself) and `shim.elf` (ET_EXEC, PVH and Multiboot2) come from the same steps:

    plan = plan_dyn(sections=[...], relocation_count=n)     # or plan_exec; addresses are known now
    image = write_elf(plan, contents=..., symbols=..., relocations=..., entry=...)
    check(image)                                            # what the boot shim's loader would refuse
    print(render(describe(image)))                          # what an independent reader sees

Numbers live in `constants`, structures in `structures`; `plan` decides where things lie, `write` puts them there
with `dynamic`, `program_headers` and `section_headers`; `notes` and `multiboot2` make what boot loaders look for.
"""

from sidecar.builder.elf.check import check, check_shim
from sidecar.builder.elf.constants import ElfType, SymbolBinding, SymbolType
from sidecar.builder.elf.describe import describe
from sidecar.builder.elf.description import Description
from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.multiboot2 import MULTIBOOT2_SECTION, multiboot2_header
from sidecar.builder.elf.notes import NOTE_ALIGN, PVH_NOTE_BYTES, PVH_SECTION, pvh_note
from sidecar.builder.elf.plan import Plan, SectionKind, SectionSpec, Segment, SegmentKind, plan_dyn, plan_exec
from sidecar.builder.elf.render import render
from sidecar.builder.elf.section_headers import ElfSymbol
from sidecar.builder.elf.write import write_elf

__all__ = [
    "MULTIBOOT2_SECTION",
    "NOTE_ALIGN",
    "PVH_NOTE_BYTES",
    "PVH_SECTION",
    "Description",
    "ElfError",
    "ElfSymbol",
    "ElfType",
    "Plan",
    "SectionKind",
    "SectionSpec",
    "Segment",
    "SegmentKind",
    "SymbolBinding",
    "SymbolType",
    "check",
    "check_shim",
    "describe",
    "multiboot2_header",
    "plan_dyn",
    "plan_exec",
    "pvh_note",
    "render",
    "write_elf",
]
