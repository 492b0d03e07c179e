"""Exceptions and interrupts of guests of the VMM library, without Linux."""

from __future__ import annotations

from sidecar.client.vmm.answers import Answer
from sidecar.client.vmm.exits import (
    ExceptionExit,
    HaltExit,
)
from sidecar.client.vmm.loaders.modes import Mode
from sidecar.client.vmm.vp import Vp
from sidecar.layout.x86 import Vector
from tests.support.vmm_machine import MIB, GuestMachine, assembled, load, run_to_halt

WITH_IDT = """
        lidt    [AT_pseudo]
        {body}
        hlt
handler_6:
        inc     r12
        add     qword ptr [rsp], 2              # over the ud2
        iretq
handler_13:
        pop     r13                             # error code
        add     qword ptr [rsp], 2
        iretq
handler_32:
        inc     r14
        iretq
        .align  8
pseudo: .word   4095
        .quad   0x180000
"""


def load_with_handlers(guest: GuestMachine, body: str) -> None:
    """64-bit code with an IDT: handlers of #UD, #GP and vector 32 count in R12 and R14, and keep the code in R13."""
    text = "start:\n" + WITH_IDT.format(body=body)
    text = text.replace("[AT_pseudo]", "[rip + pseudo]")
    code = assembled(text, MIB)
    guest.load(code, Mode.LONG)
    for vector, label in ((6, "handler_6"), (13, "handler_13"), (32, "handler_32")):
        marked = text.replace("start:\n", f"start:\n mov eax, AT_{label}\n")
        address = int.from_bytes(assembled(marked, MIB)[1:5], "little") - 5
        low, high = address & 0xFFFF, address >> 16
        gate = low | 8 << 16 | 0x8E00 << 32 | high << 48
        guest.machine.memory.write(0x180000 + 16 * vector, gate.to_bytes(16, "little"))
    guest.vp.set(r12=0, r13=0, r14=0)


def test_exceptions_are_the_guests_own(guest: GuestMachine) -> None:
    load_with_handlers(guest, "ud2\n mov ecx, 0x12345\n rdmsr\n ud2")
    run_to_halt(guest)
    assert guest.vp.get("r12", "r13") == (2, 0)
    assert guest.machine.unclaimed["MSR"] == {0x12345: 1}


def test_exceptions_that_the_vmm_wants(guest: GuestMachine) -> None:
    load_with_handlers(guest, "ud2\n ud2")
    guest.vp.exception_exits = 1 << Vector.INVALID_OPCODE
    seen: list[int] = []

    def handler(vp: Vp, exit: ExceptionExit) -> Answer:
        seen.append(exit.vector)
        if len(seen) == 1:
            vp.advance_rip(2)
        else:
            vp.fault(exit.vector)
        return None

    guest.machine.on(ExceptionExit, handler)
    run_to_halt(guest)
    assert (seen, guest.vp.get("r12")) == ([6, 6], (1,))


def test_an_interrupt_ends_a_hlt(guest: GuestMachine) -> None:
    load_with_handlers(guest, "sti\n hlt\n cli")
    vp = guest.vp
    assert isinstance(vp.run(seconds=60), HaltExit)
    vp.interrupt(32)
    vp.advance_rip(1)
    assert isinstance(vp.run(seconds=60), HaltExit)
    assert vp.get("r14") == (1,)


def test_an_interrupt_waits_until_the_guest_takes_it(guest: GuestMachine) -> None:
    """Interrupts are off when it comes; the exit for the window is nobody's business."""
    load_with_handlers(guest, "in al, 0x10\n mov rbx, r14\n sti\n nop\n nop\n cli")
    guest.machine.ports.add(range(0x10, 0x11), Waker(guest))
    run_to_halt(guest)
    assert guest.vp.get("rbx", "r14") == (0, 1)


class Waker:
    """A port that interrupts who reads it."""

    def __init__(self, guest: GuestMachine) -> None:
        self.guest = guest

    def read(self, offset: int, size: int) -> Answer:
        self.guest.vp.interrupt(32)
        return 0

    def write(self, offset: int, size: int, value: int) -> Answer:
        return None


def test_a_triple_fault_ends_the_machine(guest: GuestMachine) -> None:
    load(guest, "ud2")
    ended = guest.machine.run(seconds=60)
    assert ended.stop is not None
    assert "ended in triple fault" in ended.stop.why
