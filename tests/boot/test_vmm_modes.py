"""Guests of the VMM library on sidecar CPUs, without Linux: hello in real mode; to protected and to long mode."""

from __future__ import annotations

from sidecar.client.vmm.answers import Stop
from sidecar.client.vmm.loaders.modes import CODE_32, CODE_64, DATA, GDT, Mode
from sidecar.client.vmm.loaders.multiboot import BOOT_MAGIC, Module, MultibootInfo, load_multiboot
from sidecar.client.vmm.loop import How
from sidecar.layout.x86 import Cr0, Cr4, Efer, Msr, Pte
from sidecar.qemu.session import Session
from tests.support.multiboot_kernel import kernel
from tests.support.vmm_machine import GuestMachine, assembled

NAMES = {"CODE_32": CODE_32, "CODE_64": CODE_64, "DATA": DATA, "GDT": GDT, "PE": int(Cr0.PE), "PG": int(Cr0.PG),
         "PAE": int(Cr4.PAE), "LME": int(Efer.LME), "EFER": int(Msr.EFER), "TABLE": int(Pte.PRESENT | Pte.WRITE),
         "LARGE": int(Pte.PRESENT | Pte.WRITE | Pte.LARGE)}  # fmt: skip


def end(guest: GuestMachine) -> int:
    """The status with which the guest ended itself."""
    ended = guest.machine.run(seconds=60)
    assert ended.how is How.STOPPED
    assert isinstance(ended.stop, Stop)
    assert "debug-exit" in ended.stop.why, ended.stop.why
    return ended.stop.status


HELLO = """
    start:
            .code16
            mov     si, AT_text
    .next:  lodsb
            test    al, al
            je      .done
            mov     dx, 0x3f8
            out     dx, al
            jmp     .next
    .done:  mov     al, 21
            mov     dx, 0xf4
            out     dx, al
    text:   .ascii  "hello from real mode"
            .byte   0
"""


def test_hello_in_real_mode(plain: Session) -> None:
    with GuestMachine(plain) as guest:
        guest.load(assembled(HELLO, 0x7C00), Mode.REAL)
        assert end(guest) == 43
        assert guest.console == b"hello from real mode"
        assert guest.machine.unclaimed == {"port": {}, "address": {}, "MSR": {}}


TO_LONG = """
    start:
            .code16
            mov     dx, 0x3f8
            mov     al, 'R'
            out     dx, al
            lgdtd   [AT_pseudo]
            mov     eax, cr0
            or      eax, PE
            mov     cr0, eax
            ljmp    fword ptr [AT_to_protected]
            .code32
    protected:
            mov     eax, DATA
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            mov     esp, 0x7c00
            mov     edx, 0x3f8
            mov     al, 'P'
            out     dx, al
            mov     edi, 0x10000
            mov     dword ptr [edi], 0x11000 + TABLE
            mov     dword ptr [edi + 0x1000], 0x12000 + TABLE
            mov     dword ptr [edi + 0x2000], LARGE
            mov     cr3, edi
            mov     eax, PAE
            mov     cr4, eax
            mov     ecx, EFER
            rdmsr
            or      eax, LME
            wrmsr
            mov     eax, cr0
            or      eax, PG
            mov     cr0, eax
            ljmp    fword ptr [AT_to_long]
            .code64
    long:   mov     rax, 0x123456789abcdef0
            mov     rbx, rax
            shr     rbx, 32
            cmp     ebx, 0x12345678
            jne     .bad
            mov     edx, 0x3f8
            mov     al, 'L'
            out     dx, al
    .bad:   mov     edx, 0xf4
            mov     al, 5
            out     dx, al
            .align  8
    pseudo: .word   31
            .long   AT_gdt
            .align  8
    gdt:    .quad   0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF
    to_protected:
            .long   AT_protected
            .word   CODE_32
            .align  8
    to_long:
            .long   AT_long
            .word   CODE_64
"""


def test_from_real_to_protected_to_long_mode(plain: Session) -> None:
    with GuestMachine(plain) as guest:
        guest.load(assembled(TO_LONG, 0x7C00, NAMES), Mode.REAL)
        assert end(guest) == 11
        assert guest.console == b"RPL"
        cr0, cr3, efer = guest.vp.get("cr0", "cr3", "efer")
        assert isinstance(cr0, int)
        assert isinstance(efer, int)
        assert (cr0 & (Cr0.PG | Cr0.PE), cr3) == (Cr0.PG | Cr0.PE, 0x10000)
        assert efer & (Efer.LME | Efer.LMA | Efer.SVME) == Efer.LME | Efer.LMA


PROTECTED = """
    start:
            .code32
            push    eax
            mov     eax, ds
            push    eax
            pop     ebx
            mov     es, ebx
            mov     edx, 0x3f8
            mov     al, '3'
            out     dx, al
            mov     edx, 0xf4
            mov     eax, ebx
            out     dx, al
"""


def test_a_raw_image_in_protected_mode(plain: Session) -> None:
    """Its stack works, and so do the descriptors in memory."""
    with GuestMachine(plain, memory=2 << 20) as guest:
        guest.load(assembled(PROTECTED, 1 << 20), Mode.PROTECTED)
        assert end(guest) == DATA << 1 | 1
        assert guest.console == b"3"


LONG = """
    start:
            push    rdi
            pop     rax
            mov     ecx, ds
            mov     es, ecx
            mov     edx, 0xf4
            out     dx, al
"""


def test_a_raw_image_in_long_mode(plain: Session) -> None:
    with GuestMachine(plain, memory=2 << 20) as guest:
        guest.load(assembled(LONG, 1 << 20), Mode.LONG)
        guest.vp.set(rdi=0x33)
        assert end(guest) == 0x67


def test_a_multiboot_kernel(plain: Session) -> None:
    """It sends its command line and its module to the UART."""
    with GuestMachine(plain, memory=4 << 20) as guest:
        module = Module("a module", b"from the module\n")
        load_multiboot(guest.machine.memory, guest.vp, kernel(), command_line="kernel says hello\n", modules=[module])
        assert guest.vp.get("rax") == (BOOT_MAGIC,)
        assert end(guest) == 1
        assert guest.console == b"kernel says hello\nfrom the module\n"
        assert MultibootInfo.SIZE == 116
