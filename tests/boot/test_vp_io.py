"""I/O ports of a guest: every form of the instructions, field by field, and ports that are the guest's own."""

import pytest

from sidecar.layout.hv_messages import HvExecutionState, HvInterceptAccess, HvIoAccess, HvMessageType
from sidecar.layout.run import RunEnd
from sidecar.layout.svm import SvmExit
from sidecar.layout.x86 import Rflags
from sidecar.qemu.hosted_vp import HostedVp
from tests.support import guests

READ, WRITE = HvInterceptAccess.READ, HvInterceptAccess.WRITE

PORT_FORMS = [
    ("in al, 0x60", 0x60, READ, 1, 2),
    ("in al, dx", 0x3F8, READ, 1, 1),
    ("in ax, dx", 0x3F8, READ, 2, 2),
    ("in eax, dx", 0x3F8, READ, 4, 1),
    ("out 0x80, al", 0x80, WRITE, 1, 2),
    ("out dx, al", 0x3F8, WRITE, 1, 1),
    ("out dx, ax", 0x3F8, WRITE, 2, 2),
    ("out dx, eax", 0x3F8, WRITE, 4, 1),
]


@pytest.mark.parametrize(("text", "port", "access", "size", "length"), PORT_FORMS)
def test_a_port(vp: HostedVp, text: str, port: int, access: HvInterceptAccess, size: int, length: int) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    outcome = vp.run(rax=0x1122334455667788, rdx=0x3F8, rcx=3, rsi=4, rdi=5)
    message = guests.message(outcome, HvMessageType.X64_IO_PORT_INTERCEPT)
    body = message.body
    assert (body.port, body.access_info, body.header.access_type) == (port, size, access)
    assert (message.instruction_length, outcome.rip, body.header.rip) == (length, guests.CODE, guests.CODE)
    assert (body.rax, body.rcx, body.rsi, body.rdi) == (0x1122334455667788, 3, 4, 5)
    assert body.header.execution_state == HvExecutionState.CR0_PE | HvExecutionState.EFER_LMA
    assert (body.ds.selector, body.ds.attributes, body.ds.limit) == (0x10, guests.TLFS_DATA, 0xFFFFFFFF)
    assert outcome.exit_code == SvmExit.IOIO
    after = guests.halted_at(vp.run(advance_rip=length, rax=0xDEAD), guests.CODE + length)
    assert after.gps["rax"] == 0xDEAD


def test_a_step_over_an_instruction_ends_rf(vp: HostedVp) -> None:
    """Looked at before the guest is entered again. Ref: SDM vol. 3B, 18.3.1.1."""
    guests.start_long(vp, "in al, 0x60\n hlt")
    guests.message(vp.run(), HvMessageType.X64_IO_PORT_INTERCEPT)
    vp.vmcb.rflags |= Rflags.RF
    vp.ring(1)
    outcome = vp.run(advance_rip=2)
    assert (outcome.end, outcome.guest_entries, outcome.rip) == (RunEnd.NOTIFIED, 0, guests.CODE + 2)
    assert vp.vmcb.rflags & Rflags.RF == 0


@pytest.mark.parametrize(
    ("text", "access", "info"),
    [
        ("outsb", WRITE, 1 | HvIoAccess.STRING),
        ("rep outsw", WRITE, 2 | HvIoAccess.STRING | HvIoAccess.REP),
        ("rep outsd", WRITE, 4 | HvIoAccess.STRING | HvIoAccess.REP),
        ("insb", READ, 1 | HvIoAccess.STRING),
        ("rep insb", READ, 1 | HvIoAccess.STRING | HvIoAccess.REP),
        ("rep insd", READ, 4 | HvIoAccess.STRING | HvIoAccess.REP),
    ],
)
def test_a_string_of_a_port(vp: HostedVp, text: str, access: HvInterceptAccess, info: int) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    code = guests.program(text)
    message = guests.message(
        vp.run(rdx=0x1F0, rcx=8, rsi=guests.DATA, rdi=guests.DATA + 8), HvMessageType.X64_IO_PORT_INTERCEPT
    )
    body = message.body
    assert (body.port, body.access_info, body.header.access_type) == (0x1F0, info, access)
    assert (body.rcx, body.rsi, body.rdi) == (8, guests.DATA, guests.DATA + 8)
    assert message.instruction_length == len(code)
    assert message.instruction in (b"", code + b"\xf4" + bytes(14 - len(code)))
    guests.halted_at(vp.run(advance_rip=len(code)), guests.CODE + len(code))


def test_a_port_in_real_mode(vp: HostedVp) -> None:
    guests.start_real(vp, "mov al, 'h'\n out 0xe9, al\n hlt")
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.X64_IO_PORT_INTERCEPT).body
    assert (body.port, body.rax & 0xFF, body.header.execution_state) == (0xE9, ord("h"), 0)
    assert (body.header.cs.base, body.header.cs.selector) == (0, 0)
    guests.halted(vp.run(advance_rip=2))


def test_ports_that_are_given_to_the_guest(vp: HostedVp) -> None:
    """An I/O permission map whose bit is clear: port 0x80 does nothing, and no exit is made."""
    guests.start_long(vp, "out 0x80, al\n in al, 0x81\n hlt")
    iopm = vp.free.take(3 * 4096)
    bits = vp.free.ram.view(iopm, 3 * 4096)
    bits[:] = b"\xff" * len(bits)
    bits[0x80 // 8] &= ~1
    vp.privileged.iopm_pa = iopm
    body = guests.message(vp.run(), HvMessageType.X64_IO_PORT_INTERCEPT).body
    assert (body.port, body.header.rip) == (0x81, guests.CODE + 2)
    vp.privileged.iopm_pa = 0
