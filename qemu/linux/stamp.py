"""A program for the guest that says what time it is on its CPU: one line with the time-stamp counter.

    $ /usr/bin/stamp
    guest: time 0x00000000a3c1f04e

A shell cannot read the counter, and the boot's other times are given in it. Ref: Intel SDM volume 2, RDTSC; System V
ABI, AMD64 supplement, A.2.1 (system calls: number in rax, arguments in rdi, rsi, rdx; rcx and r11 are lost).
"""

from functools import cache

from sidecar.builder.asm import assemble
from sidecar.builder.elf import ElfSymbol, SectionKind, SectionSpec, SymbolType, plan_exec, write_elf

BASE = 0x400000
PREFIX = "guest: time 0x"
DIGITS = 16
LINE_BYTES = len(PREFIX) + DIGITS + 1

NAMES = {"DIGITS": DIGITS, "LINE_BYTES": LINE_BYTES, "SYS_WRITE": 1, "SYS_EXIT": 60, "STANDARD_OUTPUT": 1}


def start() -> str:
    """Entry from the kernel. Prints the line and exits with 0, whether it could be printed or not."""
    return f"""
    start:
            rdtsc                                   # edx:eax; first of all
            shl     rdx, 32
            or      rax, rdx
            lea     rsi, [rip + line]
            lea     rdi, [rsi + LINE_BYTES - 1]     # behind the last digit
            lea     r8, [rip + digits]
            mov     ecx, DIGITS
    .digit: mov     edx, eax
            and     edx, 15
            movzx   edx, byte ptr [r8 + rdx]
            dec     rdi
            mov     byte ptr [rdi], dl
            shr     rax, 4
            dec     ecx
            jne     .digit
            mov     eax, SYS_WRITE
            mov     edi, STANDARD_OUTPUT
            mov     edx, LINE_BYTES
            syscall
            mov     eax, SYS_EXIT
            xor     edi, edi
            syscall
            .section .rodata
    digits:
            .ascii  "0123456789abcdef"
            .section .data
    line:
            .ascii  "{PREFIX}{"0" * DIGITS}"
            .byte   10
            .section .text
    """


@cache
def stamp_program() -> bytes:
    """The program as an ELF file."""
    code = assemble([start], names=NAMES)
    kinds = {".text": SectionKind.TEXT, ".rodata": SectionKind.RODATA, ".data": SectionKind.DATA}
    plan = plan_exec(
        base=BASE,
        sections=[SectionSpec(part.name, part.size, part.align, kinds[part.name]) for part in code.sections.values()],
    )
    linked = code.link({name: plan.addresses[name] for name in code.sections}, allow_absolute=False)
    entry = linked.symbols["start"]
    symbols = [ElfSymbol("start", ".text", entry, code.symbols["start"].size, SymbolType.STT_FUNC)]
    return write_elf(plan, contents=linked.sections, symbols=symbols, entry=entry)
