"""Linking: the sidecar kernel, the boot shim, and the bundle that carries what the shim starts.

    kernel().elf                      sidecar.elf, relocatable ET_DYN
    shim().elf                        shim.elf, ET_EXEC with PVH note and Multiboot2 header
    bundle({BundleKind.SIDECAR: ...}) the boot bundle that QEMU loads by -initrd
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from sidecar.builder.asm import Linked, Object, assemble
from sidecar.builder.asm.fragments import FieldKind
from sidecar.builder.elf import (
    MULTIBOOT2_SECTION,
    PVH_SECTION,
    ElfSymbol,
    Plan,
    SectionKind,
    SectionSpec,
    SymbolType,
    check,
    check_shim,
    constants,
    multiboot2_header,
    plan_dyn,
    plan_exec,
    pvh_note,
    structures,
    write_elf,
)
from sidecar.builder.elf.notes import NOTE_ALIGN, PVH_NOTE_BYTES
from sidecar.builder.modules import KERNEL, SHIM
from sidecar.kernel import descriptors, svm_msr, svm_step, vp
from sidecar.kernel.common import serial
from sidecar.layout import ABI_VERSION, NAMES, PAGE_SIZE, Bundle, BundleKind, abi_hash
from sidecar.layout.address_map import absolute_symbols
from sidecar.layout.boot import BUNDLE_MAGIC, BUNDLE_PARTS, RelayFlags
from sidecar.layout.params import ParamsFlags
from sidecar.shim import console, memory, options, traps

SHIM_BASE = 0x200000
"""Physical address of the shim: above what firmware uses, below where Linux is loaded."""

_KINDS = {
    ".text": SectionKind.TEXT,
    ".rodata": SectionKind.RODATA,
    ".data.rel.ro": SectionKind.RELRO,
    ".data": SectionKind.DATA,
    ".bss": SectionKind.BSS,
}

NAMES_FOR_TEXT: dict[str, object] = {
    **NAMES,
    "ParamsFlags": ParamsFlags,
    "VpOperation": vp.VpOperation,
    "Kind": svm_msr.Kind,
    "Step": svm_step.Step,
    "Uart": serial.Uart,
    "Port": console.Port,
    "ExitCode": console.ExitCode,
    "Option": options.Option,
    "Range": memory.Range,
    "MEMORY_AFFINITIES": memory.MEMORY_AFFINITIES,
    "ShimVector": traps.ShimVector,
    "RelayFlags": RelayFlags,
    "Elf64Ehdr": structures.EHDR.offsets(),
    "Elf64Phdr": structures.PHDR.offsets(),
    "Elf64Dyn": structures.DYN.offsets(),
    "Elf64Rela": structures.RELA.offsets(),
    "ElfType": constants.ElfType,
    "Machine": constants.Machine,
    "SegmentType": constants.SegmentType,
    "SegmentFlag": constants.SegmentFlag,
    "DynamicTag": constants.DynamicTag,
    "RelocationType": constants.RelocationType,
    "ELF_MAGIC": constants.ELF_MAGIC,
}
"""What assembly text may name, beside labels."""


class BundleError(Exception):
    """Parts that make no bundle, or bytes that are none; says what, where, expected and got."""


@dataclass(frozen=True, slots=True)
class Image:
    """A finished ELF file with its linked code, for listings and for naming addresses."""

    name: str
    elf: bytes
    linked: Linked
    plan: Plan


@cache
def kernel() -> Image:
    """The sidecar kernel, assembled and linked. Raises AssemblyError or ElfError."""
    code = assemble(routines(KERNEL), names=NAMES_FOR_TEXT)
    plan = plan_dyn(sections=_specs(code), relocation_count=_pointers(code))
    absolute = {
        **absolute_symbols(),
        "__ehdr_start": 0,
        "_DYNAMIC": plan.addresses[".dynamic"],
        "_end": plan.memory_bytes,
    }
    linked = code.link(_addresses(code, plan), absolute=absolute, allow_absolute=False)
    contents = _patched(linked, code, descriptors.late_data(linked.symbols))
    elf = write_elf(
        plan, contents=contents, symbols=_symbols(code, linked), relocations=linked.relocations,
        entry=linked.symbols["entry"],
    )
    check(elf)
    return Image("sidecar.elf", elf, linked, plan)


@cache
def shim() -> Image:
    """The boot shim, assembled and linked for SHIM_BASE. Raises AssemblyError or ElfError."""
    code = assemble(routines(SHIM), names=NAMES_FOR_TEXT)
    header_bytes = len(multiboot2_header(SHIM_BASE))
    plan = plan_exec(
        base=SHIM_BASE,
        sections=[
            SectionSpec(PVH_SECTION, PVH_NOTE_BYTES, NOTE_ALIGN, SectionKind.NOTE),
            SectionSpec(MULTIBOOT2_SECTION, header_bytes, 8, SectionKind.RODATA),
            *_specs(code),
        ],
    )
    absolute = {"shim_start": SHIM_BASE, "_end": SHIM_BASE + plan.memory_bytes}
    linked = code.link(_addresses(code, plan), absolute=absolute, allow_absolute=True)
    contents = {
        **_patched(linked, code, {}),
        PVH_SECTION: pvh_note(linked.symbols["pvh_entry"]),
        MULTIBOOT2_SECTION: multiboot2_header(linked.symbols["multiboot2_entry"]),
    }
    elf = write_elf(
        plan, contents=contents, symbols=_symbols(code, linked), entry=linked.symbols["pvh_entry"],
    )
    check_shim(elf)
    return Image("shim.elf", elf, linked, plan)


def bundle(parts: Mapping[BundleKind, bytes]) -> bytes:
    """The boot bundle: a head page, then each part on pages of its own. Raises BundleError for no or too many parts."""
    if not 1 <= len(parts) <= BUNDLE_PARTS:
        raise BundleError(f"bundle: expected 1 to {BUNDLE_PARTS} parts, got {len(parts)}")
    offset, entries, body = PAGE_SIZE, [], b""
    for kind, data in parts.items():
        entries.append({"kind": kind, "checksum": checksum(data), "offset": offset, "size": len(data)})
        body += data + bytes(-len(data) % PAGE_SIZE)
        offset = PAGE_SIZE + len(body)
    empty = {"kind": BundleKind.END, "checksum": 0, "offset": 0, "size": 0}
    head = Bundle.build(
        magic=BUNDLE_MAGIC,
        abi_version=ABI_VERSION,
        part_count=len(entries),
        abi_hash=abi_hash(),
        total_bytes=offset,
        parts=entries + [empty] * (BUNDLE_PARTS - len(entries)),
    )
    return head + body


def checksum(data: bytes) -> int:
    """Sum of the little-endian u32 words, zero padded, modulo 2^32."""
    padded = data + bytes(-len(data) % 4)
    return sum(memoryview(padded).cast("I")) % (1 << 32)


def routines(modules: Iterable[ModuleType]) -> list[Callable[[], str]]:
    """The routines of modules that list them as ROUTINES."""
    return [routine for module in modules for routine in module.ROUTINES]


def _specs(code: Object) -> list[SectionSpec]:
    return [SectionSpec(s.name, s.size, s.align, _KINDS[s.name]) for s in code.sections.values()]


def _addresses(code: Object, plan: Plan) -> dict[str, int]:
    return {name: plan.addresses[name] for name in code.sections}


def _pointers(code: Object) -> int:
    return sum(fixup.kind is FieldKind.ABSOLUTE and fixup.width == 8 for fixup in code.fixups)


def _symbols(code: Object, linked: Linked) -> list[ElfSymbol]:
    """The symbol table's entries; the sentences, labelled text_..., need no names in a debugger."""
    return [
        ElfSymbol(
            s.name, s.section, linked.symbols[s.name], s.size,
            SymbolType.STT_FUNC if s.section == ".text" else SymbolType.STT_OBJECT,
        )
        for s in code.symbols.values()
        if not s.name.startswith("text_")
    ]


def _patched(linked: Linked, code: Object, late: Mapping[str, bytes]) -> dict[str, bytes]:
    """The sections' bytes with the data that depends on addresses put over its reserved zeros."""
    sections = {name: bytearray(data) for name, data in linked.sections.items() if name != ".bss"}
    for label, data in late.items():
        symbol = code.symbols[label]
        sections[symbol.section][symbol.offset : symbol.offset + len(data)] = data
    return {name: bytes(data) for name, data in sections.items()}
