"""The ELF numbers the project uses, under the manuals' names.

Ref: System V gABI (ELF), chapter 4 "Object Files": ELF Header, Sections, Symbol Table, Relocation;
     chapter 5 "Program Loading and Dynamic Linking": Program Header, Note Section, Dynamic Section.
Ref: System V ABI, AMD64 Architecture Processor Supplement, sections 4.1 (machine) and 4.4 (relocation types).
Ref: Linux Standard Base Core 5.0, section 12.2 for the GNU segment types.
Ref: Xen `public/elfnote.h` for XEN_ELFNOTE_PHYS32_ENTRY.
"""

from enum import IntEnum, IntFlag

ELF_MAGIC = 0x464C457F
"""0x7F 'E' 'L' 'F' as the little-endian word at offset 0 (EI_MAG0..EI_MAG3)."""

PAGE_BYTES = 0x1000
IMAGE_LIMIT_BYTES = 0x20_0000
"""The sidecar image, .bss included, is mapped through one page table: 512 pages of 4 KiB."""

INT3 = 0xCC
"""One-byte breakpoint: fills what an executable page holds besides code, so that a stray jump traps."""


class ElfClass(IntEnum):
    """ei_class. Ref: gABI chapter 4, "ELF Identification"."""

    ELFCLASSNONE = 0
    ELFCLASS32 = 1
    ELFCLASS64 = 2


class ElfData(IntEnum):
    """ei_data. Ref: gABI chapter 4, "ELF Identification"."""

    ELFDATANONE = 0
    ELFDATA2LSB = 1
    ELFDATA2MSB = 2


class ElfVersion(IntEnum):
    """ei_version and e_version. Ref: gABI chapter 4, "ELF Header"."""

    EV_NONE = 0
    EV_CURRENT = 1


class ElfType(IntEnum):
    """e_type. Ref: gABI chapter 4, "ELF Header"."""

    ET_NONE = 0
    ET_REL = 1
    ET_EXEC = 2
    ET_DYN = 3
    ET_CORE = 4


class Machine(IntEnum):
    """e_machine. Ref: gABI chapter 4, "ELF Header"."""

    EM_386 = 3
    EM_X86_64 = 62


class SegmentType(IntEnum):
    """p_type. Ref: gABI chapter 5, "Segment Types"; the GNU ones in the LSB."""

    PT_NULL = 0
    PT_LOAD = 1
    PT_DYNAMIC = 2
    PT_INTERP = 3
    PT_NOTE = 4
    PT_PHDR = 6
    PT_GNU_STACK = 0x6474_E551
    PT_GNU_RELRO = 0x6474_E552


class SegmentFlag(IntFlag):
    """p_flags. Ref: gABI chapter 5, "Segment Permissions"."""

    PF_X = 1
    PF_W = 2
    PF_R = 4


class SectionType(IntEnum):
    """sh_type. Ref: gABI chapter 4, "Section Types"."""

    SHT_NULL = 0
    SHT_PROGBITS = 1
    SHT_SYMTAB = 2
    SHT_STRTAB = 3
    SHT_RELA = 4
    SHT_HASH = 5
    SHT_DYNAMIC = 6
    SHT_NOTE = 7
    SHT_NOBITS = 8
    SHT_DYNSYM = 11


class SectionFlag(IntFlag):
    """sh_flags. Ref: gABI chapter 4, "Section Attribute Flags"."""

    SHF_WRITE = 1
    SHF_ALLOC = 2
    SHF_EXECINSTR = 4


class SymbolBinding(IntEnum):
    """High half of st_info. Ref: gABI chapter 4, "Symbol Binding"."""

    STB_LOCAL = 0
    STB_GLOBAL = 1
    STB_WEAK = 2


class SymbolType(IntEnum):
    """Low half of st_info. Ref: gABI chapter 4, "Symbol Types"."""

    STT_NOTYPE = 0
    STT_OBJECT = 1
    STT_FUNC = 2


class DynamicTag(IntEnum):
    """d_tag. Ref: gABI chapter 5, "Dynamic Array Tags"."""

    DT_NULL = 0
    DT_HASH = 4
    DT_STRTAB = 5
    DT_SYMTAB = 6
    DT_RELA = 7
    DT_RELASZ = 8
    DT_RELAENT = 9
    DT_STRSZ = 10
    DT_SYMENT = 11
    DT_TEXTREL = 22
    DT_RELACOUNT = 0x6FFF_FFF9


class RelocationType(IntEnum):
    """Low half of r_info. Ref: AMD64 supplement, section 4.4.1."""

    R_X86_64_NONE = 0
    R_X86_64_64 = 1
    R_X86_64_RELATIVE = 8


class NoteType(IntEnum):
    """Note types count per owner: 3 belongs to "GNU", 18 to "Xen"."""

    NT_GNU_BUILD_ID = 3
    XEN_ELFNOTE_PHYS32_ENTRY = 18
