"""Modes of a guest: on its way to long mode and back, and where the processor leaves it alone on the way."""

import itertools
import struct

import pytest

from sidecar.layout.hv_messages import HvExecutionState, HvInterceptAccess, HvMessageType
from sidecar.layout.run import RunEnd
from sidecar.layout.vmcb_rules import VmcbRule
from sidecar.layout.x86 import Vector
from sidecar.qemu.hosted_vp import HostedVp
from tests.support import cpus, guests

PG, PE = 1 << 31, 1


def protected(text: str) -> str:
    """A 16-bit program that goes to 32-bit protected mode, flat, and goes on with `text`."""
    return f"""
            cli
            lgdt    [gdt_pointer]
            mov     eax, cr0
            or      eax, Cr0.PE
            mov     cr0, eax
            .byte   0x66, 0xea
            .long   protected
            .word   {guests.CODE32}
    gdt_pointer:
            .word   {8 * len(guests.DESCRIPTORS) - 1}
            .long   {guests.GDT}
            .code32
    protected:
            mov     eax, {guests.DATA_SEGMENT}
            mov     ds, eax
            mov     ss, eax
            mov     esp, {guests.STACK}
{text}
            hlt"""


SET_LME = """
            mov     ecx, Msr.EFER
            rdmsr
            or      eax, Efer.LME
            wrmsr"""
SET_PAE = """
            mov     eax, cr4
            or      eax, Cr4.PAE
            mov     cr4, eax"""
SET_CR3 = f"""
            mov     eax, {guests.PML4}
            mov     cr3, eax"""
SET_PG = """
            mov     eax, cr0
            or      eax, Cr0.PG
            mov     cr0, eax"""
TO_64 = f"""
            .byte   0xea
            .long   long_mode
            .word   {guests.CODE64}
            .code64
    long_mode:
            mov     rbx, 0x123456789abcdef0"""


@pytest.mark.parametrize(
    "order",
    [SET_LME + SET_PAE + SET_CR3, SET_PAE + SET_CR3 + SET_LME, SET_CR3 + SET_LME + SET_PAE],
    ids=["LME first", "LME last", "LME between"],
)
def test_long_mode_by_any_order(vp: HostedVp, order: str) -> None:
    """An exit between any two steps shows the guest's own registers."""
    guests.start_real(vp, protected(order + "\n cpuid" + SET_PG + TO_64))
    outcome = guests.halted(vp.run())
    assert (outcome.gps["rbx"], outcome.efer, outcome.cr0 & (PG | PE)) == (0x123456789ABCDEF0, 0x500, PG | PE)


def test_lme_without_paging_is_there_for_whoever_asks(vp: HostedVp) -> None:
    guests.start_real(vp, protected(SET_LME + "\n xor eax, eax\n rdmsr\n mov esi, eax\n cpuid\n cpuid"))
    outcome = guests.halted(vp.run())
    assert (outcome.efer, outcome.gps["rsi"], outcome.cr4) == (0x100, 0x100, 0)
    assert vp.cpu.get_registers(["HvX64RegisterEfer"]) == {"HvX64RegisterEfer": 0x100}
    for _ in range(3):
        assert guests.halted(vp.run()).efer == 0x100


def test_paging_with_lme_and_without_pae_is_refused(vp: HostedVp) -> None:
    """#GP; its handler is a HLT behind a 32-bit gate."""
    guests.start_real(vp, protected(SET_LME + SET_CR3 + "\n lidt [idt_pointer]" + SET_PG + """
            hlt
    idt_pointer:
            .word   0x7ff
            .long   0x6000"""))
    gate = guests.trap(Vector.GENERAL_PROTECTION) | guests.CODE32 << 16 | 0x8E00 << 32
    struct.pack_into("<Q", vp.memory, 0x6000 + 8 * Vector.GENERAL_PROTECTION, gate)
    outcome = guests.halted_at(vp.run(), guests.trap(Vector.GENERAL_PROTECTION))
    frame = [int.from_bytes(vp.memory[outcome.rsp + n : outcome.rsp + n + 4], "little") for n in (0, 4, 8, 12)]
    assert (frame[0], frame[2]) == (0, guests.CODE32)
    assert bytes(vp.memory[frame[1] : frame[1] + 3]) == b"\x0f\x22\xc0", "RIP is at the MOV to CR0"
    assert frame[3] & 1 << 8 == 0, "no TF in the frame"
    assert (outcome.cr0 & (PG | PE), outcome.efer) == (PE, 0x100)


def test_out_of_long_mode_and_back(vp: HostedVp) -> None:
    """Paging and PAE are switched off with LME set, where exits follow."""
    guests.start_real(vp, protected(SET_PAE + SET_CR3 + SET_LME + SET_PG + """
            mov     eax, cr0
            and     eax, ~Cr0.PG
            mov     cr0, eax
            mov     eax, cr4
            and     eax, ~Cr4.PAE
            mov     cr4, eax
            cpuid
            hlt""" + SET_PAE + SET_PG + TO_64))
    outcome = guests.halted(vp.run())
    assert (outcome.cr0 & PG, outcome.cr4, outcome.efer) == (0, 0, 0x100)
    back = guests.halted(vp.run(advance_rip=1))
    assert (back.gps["rbx"], back.efer) == (0x123456789ABCDEF0, 0x500)


def test_a_guest_that_steps_itself_over_a_change_of_cr0(vp: HostedVp) -> None:
    guests.start_long(vp, """
            mov     rax, cr0
            btc     rax, 5
            pushfq
            or      qword ptr [rsp], Rflags.TF
            popfq
            mov     cr0, rax
            hlt""")
    outcome = guests.halted_at(vp.run(), guests.trap(Vector.DEBUG))
    assert vp.memory[guests.quad(vp, outcome.rsp)] == 0xF4, "the trap comes right after the MOV"
    assert guests.quad(vp, outcome.rsp + 16) & 1 << 8
    assert vp.cpu.get_registers(["HvX64RegisterDr6"])["HvX64RegisterDr6"] & 1 << 14


def test_a_change_of_cr0_that_is_refused(vp: HostedVp) -> None:
    """NW without CD: #GP, or where the processor lets it pass, a state that it does not run; never the sidecar's."""
    guests.start_long(vp, "mov eax, 0xa0000011\n mov cr0, rax\n hlt")
    outcome = vp.run()
    assert outcome.message is not None
    if outcome.message.type is HvMessageType.INVALID_VP_REGISTER_VALUE:
        assert (outcome.message.body.rule, outcome.message.body.value) == (VmcbRule.CR0_NW_WITHOUT_CD, 0xA0000011)
        assert (outcome.rip, outcome.cr3, outcome.rsp) == (guests.CODE + 8, guests.PML4, guests.STACK)
        vp.cpu.set_registers({"HvX64RegisterCr0": 0x80000011})
        guests.halted(vp.run())
        return
    guests.halted_at(outcome, guests.trap(Vector.GENERAL_PROTECTION))
    assert guests.quad(vp, outcome.rsp) == 0
    assert guests.quad(vp, outcome.rsp + 24) & 1 << 8 == 0, "no TF in the frame"


def test_a_run_that_ends_before_a_change_of_cr0(vp: HostedVp) -> None:
    """However often it is interrupted there: RFLAGS is the guest's, and the change is made in the end."""
    guests.start_long(vp, """
    again:  mov     rax, cr0
            btc     rax, 5
            mov     cr0, rax
            inc     rbx
            cmp     rbx, 300
            jne     again
            hlt""")
    runs = 0
    run = vp.start(rbx=0)
    while True:
        vp.ring(1)
        run.wait(seconds=cpus.SECONDS)
        outcome = vp.outcome()
        assert outcome.rflags & 1 << 8 == 0
        if outcome.end is RunEnd.INTERCEPT:
            break
        runs += 1
        run = vp.start()
    assert guests.halted(outcome).gps["rbx"] == 300
    assert runs > 0


TO_LONG_MODE = f"""
            cli
            lgdt    [gdt_pointer]
            mov     eax, cr0
            or      eax, Cr0.PE
            mov     cr0, eax
            .byte   0x66, 0xea
            .long   protected
            .word   {guests.CODE32}
            .code32
    protected:
            mov     eax, {guests.DATA_SEGMENT}
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            mov     esp, {guests.STACK}
            mov     eax, cr4
            or      eax, Cr4.PAE
            mov     cr4, eax
            mov     eax, {guests.PML4}
            mov     cr3, eax
            mov     ecx, Msr.EFER
            rdmsr
            or      eax, Efer.LME
            wrmsr
            mov     eax, cr0
            or      eax, Cr0.PG
            mov     cr0, eax
            .byte   0xea
            .long   long_mode
            .word   {guests.CODE64}
            .code64
    long_mode:
            mov     rax, 0x123456789abcdef0
            mov     dx, 0x3f8
            out     dx, al
            hlt
    gdt_pointer:
            .word   {8 * len(guests.DESCRIPTORS) - 1}
            .long   {guests.GDT}"""


def test_from_real_mode_to_long_mode(vp: HostedVp) -> None:
    guests.start_real(vp, TO_LONG_MODE)
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.X64_IO_PORT_INTERCEPT).body
    assert (body.port, body.rax) == (0x3F8, 0x123456789ABCDEF0)
    assert body.header.execution_state == HvExecutionState.CR0_PE | HvExecutionState.EFER_LMA
    assert (body.header.cs.selector, body.header.cs.attributes) == (guests.CODE64, guests.TLFS_CODE64)
    assert (outcome.cr3, outcome.cr4, outcome.efer) == (guests.PML4, 0x20, 0x500)
    assert guests.halted(guests.asleep(vp).run(advance_rip=1)).local_exits == 0


def test_hello_in_real_mode(vp: HostedVp) -> None:
    """A UART in a few lines: the line status says that it is empty, and what is sent is collected."""
    text = "Hello from real mode\n"
    guests.start_real(vp, f"""
            mov     si, text
    next:   mov     dx, 0x3fd
    busy:   in      al, dx
            test    al, 0x20
            je      busy
            mov     al, byte ptr [si]
            test    al, al
            je      done
            mov     dx, 0x3f8
            out     dx, al
            inc     si
            jmp     next
    done:   hlt
    text:   .asciz  "{text[:-1]}\\n" """)
    said, advance = "", 0
    gps: dict[str, int] = {}
    for _ in itertools.count():
        outcome = vp.run(advance_rip=advance, **gps)
        assert outcome.message is not None
        if outcome.message.type is HvMessageType.X64_HALT:
            break
        body = guests.message(outcome, HvMessageType.X64_IO_PORT_INTERCEPT).body
        advance, gps = outcome.message.instruction_length, {}
        if body.port == 0x3F8:
            said += chr(body.rax & 0xFF)
        else:
            assert (body.port, body.header.access_type) == (0x3FD, HvInterceptAccess.READ)
            gps = {"rax": body.rax & ~0xFF | 0x20}
    assert said == text
