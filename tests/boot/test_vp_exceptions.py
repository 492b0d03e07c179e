"""Exceptions of a guest: its own, or the VMM's who asked for them; and states that no guest can be in."""

import struct

import pytest

from sidecar.layout.hv_messages import HvExceptionInfo, HvMessageType
from sidecar.layout.svm import SvmExit
from sidecar.layout.x86 import Cr0, Vector
from sidecar.qemu.hosted_vp import HostedVp
from tests.support import guests

FAULTS = [
    ("xor ecx, ecx\n div ecx", Vector.DIVIDE_ERROR, None, 2),
    ("ud2", Vector.INVALID_OPCODE, None, 0),
    ("mov eax, 0x33\n mov ds, eax", Vector.GENERAL_PROTECTION, 0x30, 5),
    ("mov rax, qword ptr [rdi]", Vector.PAGE_FAULT, 0, 0),
    ("mov qword ptr [rdi], rax", Vector.PAGE_FAULT, 2, 0),
]
BUSY_TSS = 0x8B
USER_STACK = 0x6800
NOT_MAPPED_GVA = 0x40000000


@pytest.mark.parametrize(("text", "vector", "code", "offset"), FAULTS)
def test_an_exception_goes_to_the_guest(vp: HostedVp, text: str, vector: int, code: int | None, offset: int) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    outcome = guests.halted_at(vp.run(rdi=NOT_MAPPED_GVA), guests.trap(vector))
    frame = outcome.rsp
    if code is not None:
        assert guests.quad(vp, frame) == code
        frame += 8
    assert guests.quad(vp, frame) == guests.CODE + offset
    if vector == Vector.PAGE_FAULT:
        assert outcome.gps["cr2"] == NOT_MAPPED_GVA


@pytest.mark.parametrize(("text", "vector", "code", "offset"), FAULTS)
def test_an_exception_that_the_vmm_asked_for(
    vp: HostedVp, text: str, vector: int, code: int | None, offset: int
) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    given = {"rdi": NOT_MAPPED_GVA, "rsi": 6, "r15": 15, "cr2": 0x77}
    outcome = vp.run(exception_intercepts=1 << vector, **given)
    body = guests.message(outcome, HvMessageType.X64_EXCEPTION_INTERCEPT).body
    assert (body.vector, body.header.rip) == (vector, guests.CODE + offset)
    assert body.exception_info == (0 if code is None else HvExceptionInfo.ERROR_CODE_VALID)
    assert body.error_code == (code or 0)
    assert body.exception_parameter == (NOT_MAPPED_GVA if vector == Vector.PAGE_FAULT else 0)
    assert (body.registers[4], body.registers[6], body.registers[7], body.registers[15]) == (
        guests.STACK, 6, NOT_MAPPED_GVA, 15,
    )
    assert (body.ss.selector, body.ds.selector) == (0x10, 0x10)
    assert outcome.gps["cr2"] == 0x77, "it has not been delivered"


def test_exceptions_that_nobody_may_ask_for(vp: HostedVp) -> None:
    """Bits that are no exceptions of a guest change nothing."""
    guests.start_long(vp, "ud2\n hlt")
    outcome = vp.run(exception_intercepts=0xFFF80000 | 1 << 2 | 1 << 9 | 1 << 15 | 1 << 18)
    guests.halted_at(outcome, guests.trap(Vector.INVALID_OPCODE))


def test_a_debug_exception_is_passed_on(vp: HostedVp) -> None:
    guests.start_long(vp, "pushfq\n or qword ptr [rsp], Rflags.TF\n popfq\n nop\n hlt")
    outcome = guests.halted_at(guests.asleep(vp).run(), guests.trap(Vector.DEBUG))
    assert outcome.local_exits == 1


def test_a_triple_fault(vp: HostedVp) -> None:
    guests.start_long(vp, "lidt [rdi]\n ud2")
    outcome = vp.run(rdi=guests.DATA)
    body = guests.message(outcome, HvMessageType.UNRECOVERABLE_EXCEPTION).body
    assert body.header.vp_index == 1
    assert outcome.exit_code == SvmExit.SHUTDOWN


def test_an_exception_of_a_user_in_protected_mode(vp: HostedVp) -> None:
    """It takes the stack of the inner ring from the TSS, which is busy as every loaded one."""
    guests.load(vp, "ud2", bits=32)
    guests.prepare(vp)
    struct.pack_into("<HHBBH", vp.memory, guests.IDT + 8 * Vector.INVALID_OPCODE,
                     guests.trap(Vector.INVALID_OPCODE), guests.CODE32, 0, 0x8E, 0)  # fmt: skip
    struct.pack_into("<II", vp.memory, guests.DATA + 4, guests.STACK, guests.DATA_SEGMENT)
    vmcb = vp.vmcb
    vmcb.cr0, vmcb.cpl = Cr0.PE | Cr0.ET | Cr0.NE, 3
    vmcb.gdtr.base, vmcb.gdtr.limit = guests.GDT, 8 * len(guests.DESCRIPTORS) - 1
    vmcb.idtr.base, vmcb.idtr.limit = guests.IDT, 0xFF
    vmcb.tr.selector, vmcb.tr.attributes, vmcb.tr.limit, vmcb.tr.base = 0x28, BUSY_TSS, 0x67, guests.DATA
    vmcb.cs.selector, vmcb.cs.attributes, vmcb.cs.limit, vmcb.cs.base = guests.CODE32 | 3, 0xCFB, 0xFFFFFFFF, 0
    vmcb.ss.selector, vmcb.ss.attributes, vmcb.ss.limit, vmcb.ss.base = guests.DATA_SEGMENT | 3, 0xCF3, 0xFFFFFFFF, 0
    vmcb.rip, vmcb.rsp, vmcb.rflags = guests.CODE, USER_STACK, 2
    assert guests.halted(vp.run()).rip == guests.trap(Vector.INVALID_OPCODE)
    frame = struct.unpack_from("<5I", vp.memory, guests.STACK - 20)
    assert (frame[0], frame[1], frame[3], frame[4]) == (
        guests.CODE, guests.CODE32 | 3, USER_STACK, guests.DATA_SEGMENT | 3,
    )  # fmt: skip
    assert (int(vmcb.cpl), int(vmcb.tr.attributes)) == (0, BUSY_TSS)


def test_a_state_that_no_guest_can_be_entered_with(vp: HostedVp) -> None:
    guests.start_long(vp, "hlt")
    vmcb = vp.vmcb
    vmcb.cr0 = vmcb.cr0 | 1 << 29  # NW without CD
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.INVALID_VP_REGISTER_VALUE).body
    assert (body.vp_index, outcome.guest_entries, body.rule != 0) == (1, 0, True)
    assert body.value == vmcb.cr0
    vmcb.cr0 = vmcb.cr0 & ~(1 << 29)
    guests.halted_at(vp.run(), guests.CODE)
