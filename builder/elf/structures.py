"""The ELF64 structures, field for field; offsets and sizes come from nowhere else.

The names are the gABI's. Values of the enumerated fields are in `constants`.

Ref: System V gABI (ELF), chapters 4 and 5; the structure under each name is cited with its figure's title.
"""

from sidecar.builder.elf.constants import SymbolBinding, SymbolType
from sidecar.builder.elf.record import S64, U8, U16, U32, U56, U64, Record

EHDR = Record(
    "Elf64_Ehdr",
    64,
    ei_mag=U32,  # ELF_MAGIC
    ei_class=U8,  # ElfClass
    ei_data=U8,  # ElfData
    ei_version=U8,  # ElfVersion
    ei_osabi=U8,  # 0: no operating-system extensions
    ei_abiversion=U8,  # 0: unspecified
    ei_pad=U56,  # reserved, zero
    e_type=U16,  # ElfType
    e_machine=U16,  # Machine
    e_version=U32,  # ElfVersion
    e_entry=U64,  # virtual address of the first instruction
    e_phoff=U64,  # file offset of the program header table
    e_shoff=U64,  # file offset of the section header table
    e_flags=U32,  # 0: x86-64 defines none, and QEMU refuses some
    e_ehsize=U16,  # size of this header
    e_phentsize=U16,  # size of one program header
    e_phnum=U16,  # number of program headers
    e_shentsize=U16,  # size of one section header
    e_shnum=U16,  # number of section headers
    e_shstrndx=U16,  # index of the section that names the sections
)
"""The first bytes of the file. Ref: gABI chapter 4, "ELF Header"."""

PHDR = Record(
    "Elf64_Phdr",
    56,
    p_type=U32,  # SegmentType
    p_flags=U32,  # SegmentFlag
    p_offset=U64,  # file offset of the segment's first byte
    p_vaddr=U64,  # virtual address of the first byte; 0-based in ET_DYN
    p_paddr=U64,  # physical address: where QEMU and GRUB put it
    p_filesz=U64,  # bytes in the file
    p_memsz=U64,  # bytes in memory; what exceeds p_filesz is zero
    p_align=U64,  # p_vaddr and p_offset are congruent modulo this
)
"""One segment. Ref: gABI chapter 5, "Program Header"."""

SHDR = Record(
    "Elf64_Shdr",
    64,
    sh_name=U32,  # offset of the name in .shstrtab
    sh_type=U32,  # SectionType
    sh_flags=U64,  # SectionFlag
    sh_addr=U64,  # virtual address, 0 when not loaded
    sh_offset=U64,  # file offset
    sh_size=U64,  # bytes, in memory for SHT_NOBITS
    sh_link=U32,  # index of the section this one refers to
    sh_info=U32,  # for symbol tables: index of the first non-local symbol
    sh_addralign=U64,  # alignment of sh_addr
    sh_entsize=U64,  # bytes per entry of a table, else 0
)
"""One section. Ref: gABI chapter 4, "Sections"."""

SYM = Record(
    "Elf64_Sym",
    24,
    st_name=U32,  # offset of the name in the string table
    st_info=U8,  # binding and type, see st_info()
    st_other=U8,  # 0: STV_DEFAULT
    st_shndx=U16,  # index of the section the symbol lies in
    st_value=U64,  # virtual address
    st_size=U64,  # bytes, 0 when unknown
)
"""One symbol. Ref: gABI chapter 4, "Symbol Table"."""

RELA = Record(
    "Elf64_Rela",
    24,
    r_offset=U64,  # virtual address of the field to relocate
    r_info=U64,  # symbol index << 32 | RelocationType; the symbol is 0 for RELATIVE
    r_addend=S64,  # RELATIVE: the field becomes load address + r_addend
)
"""One relocation. Ref: gABI chapter 4, "Relocation"."""

DYN = Record(
    "Elf64_Dyn",
    16,
    d_tag=U64,  # DynamicTag
    d_un=U64,  # d_val or d_ptr, by tag
)
"""One entry of the dynamic section. Ref: gABI chapter 5, "Dynamic Section"."""

NHDR = Record(
    "Elf64_Nhdr",
    12,
    n_namesz=U32,  # bytes of the owner's name with its NUL, before padding
    n_descsz=U32,  # bytes of the descriptor, before padding
    n_type=U32,  # NoteType
)
"""The head of a note; name and descriptor follow, each padded to 4. Ref: gABI chapter 5, "Note Section"."""

HASH = Record(
    "hash table of one symbol",
    16,
    nbucket=U32,  # number of buckets: 1
    nchain=U32,  # number of symbols in .dynsym: 1
    bucket_0=U32,  # 0: STN_UNDEF, the bucket is empty
    chain_0=U32,  # 0: the null symbol ends the chain
)
"""The hash table over a .dynsym that holds the null symbol alone. Ref: gABI chapter 5, "Hash Table"."""


def st_info(binding: SymbolBinding, symbol_type: SymbolType) -> int:
    """The gABI's ELF64_ST_INFO."""
    return binding << 4 | symbol_type & 0xF
