"""Reading `info registers`, in the spellings of 32-bit and of 64-bit code."""

import pytest

from sidecar.qemu.registers import DescriptorTable, Segment, parse_registers

TEXT = """\

CPU#0
EAX=00000000 EBX=000021e0 ECX=00100000 EDX=00000518
EIP=00100002 EFL=00000006 [-----P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0010 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
CS =0008 00000000 ffffffff 00cf9a00 DPL=0 CS32 [-R-]
LDT=0000 00000000 0000ffff 00008200 DPL=0 LDT
TR =0000 00000000 0000ffff 00008b00 DPL=0 TSS32-busy
GDT=     000c0118 00000027
IDT=     00000000 000003ff
CR0=00000011 CR2=00000000 CR3=00000000 CR4=00000000
EFER=0000000000000000
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
XMM00=0000000000000000 0000000000000000 XMM01=0000000000000000 0000000000000000

CPU#1
RAX=ffffff8000200000 RBX=0000000000000001 RCX=0000000000000000 RDX=0000000000000000
R8 =0000000000000008 R9 =0000000000000009 R10=000000000000000a R11=000000000000000b
RIP=ffffff8000000123 RFL=00000202 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0008 0000000000000000 ffffffff 00af9a00 DPL=0 CS64 [-R-]
FS =0000 00000000deadb000 00000000 00000000
TR =0018 ffffff8000202000 00000067 00008b00 DPL=0 TSS64-busy
GDT=     ffffff8000201000 00000037
IDT=     ffffff8000203000 00000fff
CR0=80010033 CR2=0000000000000000 CR3=0000000000102000 CR4=00000620
EFER=0000000000000d00
"""


def test_both_spellings() -> None:
    first, second = parse_registers(TEXT)
    assert (first.cpu, first.rip, first.rflags, first.halted) == (0, 0x10_0002, 6, True)
    assert first.gdt == DescriptorTable(0xC0118, 0x27)
    assert first.segments["CS"] == Segment(8, 0, 0xFFFF_FFFF, 0x00CF_9A00)
    assert (second.cpu, second.rip, second.rflags, second.halted) == (1, 0xFFFF_FF80_0000_0123, 0x202, False)
    assert second.idt == DescriptorTable(0xFFFF_FF80_0020_3000, 0xFFF)
    assert (second.cr0, second.cr3, second.cr4, second.efer) == (0x8001_0033, 0x10_2000, 0x620, 0xD00)
    assert second.segments["TR"] == Segment(0x18, 0xFFFF_FF80_0020_2000, 0x67, 0x8B00)
    assert (second.values["R8"], second.values["R11"], second.values["RBX"]) == (8, 11, 1)


def test_other_text_is_refused() -> None:
    with pytest.raises(ValueError, match="'info registers' shows no CPU: 'unknown command'"):
        parse_registers("unknown command")
    with pytest.raises(ValueError, match="'info registers' shows no CR3 for CPU 1: "):
        parse_registers(TEXT.replace("CR3=0000000000102000", ""))
