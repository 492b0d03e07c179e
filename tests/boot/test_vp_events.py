"""Interrupts and exceptions that the VMM gives to a guest, and what the guest and the VMM see of them."""

import pytest

from sidecar.layout.hv import HvInterruptionType
from sidecar.layout.hv_messages import HvExecutionState, HvMessageType
from sidecar.layout.run import RunEnd
from sidecar.layout.x86 import Vector
from sidecar.protocol.vp_events import (
    exception,
    external_interrupt,
    interruption,
    when_interruptible,
    when_nmi_possible,
)
from sidecar.qemu.hosted_vp import HostedVp
from tests.support import guests

EVENT, INTERRUPTION = "HvRegisterPendingEvent0", "HvRegisterPendingInterruption"
NOTIFICATIONS, STATE = "HvX64RegisterDeliverabilityNotifications", "HvRegisterInterruptState"
VECTOR = 0x31
UNMAPPED = 0x200000


def give(vp: HostedVp, name: str, value: int) -> None:
    vp.cpu.set_registers({name: value})


def pending(vp: HostedVp, name: str) -> int:
    return vp.cpu.get_registers([name])[name]


def length_of(text: str) -> int:
    return len(guests.program(text))


def interrupted_rip(vp: HostedVp, rsp: int) -> int:
    """RIP in a frame without an error code."""
    return guests.quad(vp, rsp)


# --- interrupts -------------------------------------------------------------------------------------------------------


def test_an_interrupt_for_a_guest_that_is_ready(vp: HostedVp) -> None:
    guests.start_long(vp, "sti\n nop\n hlt\n nop\n hlt")
    guests.halted_at(vp.run(), guests.CODE + 2)
    give(vp, EVENT, external_interrupt(VECTOR))
    outcome = guests.halted_at(guests.asleep(vp).run(advance_rip=1), guests.trap(VECTOR))
    assert interrupted_rip(vp, outcome.rsp) == guests.CODE + 3
    assert guests.quad(vp, outcome.rsp + 16) & 1 << 9, "IF in the frame"
    assert (outcome.rflags & 1 << 9, outcome.guest_entries, pending(vp, EVENT)) == (0, 1, 0)


@pytest.mark.parametrize("text", ["sti", "push 0x202\n popfq"])
def test_an_interrupt_waits_until_the_guest_takes_it(vp: HostedVp, text: str) -> None:
    """Until after the shadow of STI; POPF has none."""
    guests.start_long(vp, f"nop\n nop\n {text}\n inc rax\n inc rax\n hlt")
    give(vp, EVENT, external_interrupt(VECTOR))
    outcome = guests.halted_at(guests.asleep(vp).run(rax=0), guests.trap(VECTOR))
    assert outcome.gps["rax"] == (1 if text == "sti" else 0)
    assert outcome.local_exits == 1, "the interrupt window"
    assert interrupted_rip(vp, outcome.rsp) == guests.CODE + length_of(f"nop\n nop\n {text}") + 3 * outcome.gps["rax"]


def test_an_interrupt_is_delivered_once(vp: HostedVp) -> None:
    guests.start_long(vp, """
            sti
    again:  inc     rax
            cmp     rax, 1000
            jne     again
            hlt
            .align  16
    handler:
            inc     rbx
            iretq""")
    handler = guests.CODE + len(guests.program("sti\n again: inc rax\n cmp rax, 1000\n jne again\n hlt\n .align 16"))
    set_gate(vp, VECTOR, handler)
    give(vp, EVENT, external_interrupt(VECTOR))
    outcome = guests.halted(vp.run(rax=0, rbx=0))
    assert (outcome.gps["rax"], outcome.gps["rbx"]) == (1000, 1)


def set_gate(vp: HostedVp, vector: int, target: int) -> None:
    vp.memory[guests.IDT + 16 * vector : guests.IDT + 16 * vector + 2] = target.to_bytes(2, "little")


def test_halt_is_woken_by_an_interrupt(vp: HostedVp) -> None:
    guests.start_long(vp, "sti\n hlt\n inc rax\n hlt")
    guests.load(vp, "inc rbx\n iretq", at=guests.CODE + 0x100)
    set_gate(vp, VECTOR, guests.CODE + 0x100)
    guests.halted_at(vp.run(rax=0, rbx=0), guests.CODE + 1)
    give(vp, EVENT, external_interrupt(VECTOR))
    outcome = guests.halted_at(vp.run(advance_rip=1), guests.CODE + 5)
    assert (outcome.gps["rax"], outcome.gps["rbx"]) == (1, 1)


def test_a_pending_interrupt_outlives_a_run_that_does_not_enter(vp: HostedVp) -> None:
    guests.start_long(vp, "sti\n nop\n nop\n hlt")
    give(vp, EVENT, external_interrupt(VECTOR))
    vp.ring(1)
    assert vp.run().end is RunEnd.NOTIFIED
    assert pending(vp, EVENT) == external_interrupt(VECTOR)
    guests.halted_at(vp.run(), guests.trap(VECTOR))


# --- interrupt windows ------------------------------------------------------------------------------------------------


def deliverable(vp: HostedVp, kind: HvInterruptionType) -> int:
    """Runs until the VMM is told that `kind` can be delivered; RIP then."""
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.X64_INTERRUPTION_DELIVERABLE).body
    assert (body.deliverable_type, pending(vp, NOTIFICATIONS)) == (kind, 0)
    return outcome.rip


def test_the_vmm_is_told_when_an_interrupt_could_be_taken(vp: HostedVp) -> None:
    guests.start_long(vp, "nop\n sti\n nop\n nop\n hlt")
    give(vp, NOTIFICATIONS, when_interruptible())
    assert deliverable(vp, HvInterruptionType.INTERRUPT) == guests.CODE + 3
    give(vp, EVENT, external_interrupt(VECTOR))
    outcome = guests.halted_at(vp.run(), guests.trap(VECTOR))
    assert interrupted_rip(vp, outcome.rsp) == guests.CODE + 3


def test_the_vmm_is_told_at_once_if_the_guest_is_ready(vp: HostedVp) -> None:
    guests.start_long(vp, "sti\n nop\n hlt\n nop\n hlt")
    guests.halted_at(vp.run(), guests.CODE + 2)
    give(vp, NOTIFICATIONS, when_interruptible())
    assert deliverable(vp, HvInterruptionType.INTERRUPT) == guests.CODE + 2
    guests.halted_at(vp.run(advance_rip=1), guests.CODE + 4)


def test_a_window_of_a_priority(vp: HostedVp) -> None:
    """CR8 keeps priorities up to its own away."""
    guests.start_long(vp, "mov eax, 5\n mov cr8, rax\n sti\n nop\n hlt\n mov eax, 4\n mov cr8, rax\n nop\n hlt")
    give(vp, NOTIFICATIONS, when_interruptible(5))
    first = guests.halted(vp.run())
    assert first.message is not None
    assert first.message.header.instruction_length >> 4 == 5, "CR8"
    assert pending(vp, NOTIFICATIONS) == when_interruptible(5)
    outcome = vp.run(advance_rip=1)
    guests.message(outcome, HvMessageType.X64_INTERRUPTION_DELIVERABLE)
    assert outcome.rip == first.rip + 1 + length_of("mov eax, 4\n mov cr8, rax")


def test_a_notification_and_an_interrupt_wait_together(vp: HostedVp) -> None:
    guests.start_long(vp, "nop\n sti\n nop\n hlt")
    guests.load(vp, "inc rbx\n iretq", at=guests.CODE + 0x100)
    set_gate(vp, VECTOR, guests.CODE + 0x100)
    give(vp, NOTIFICATIONS, when_interruptible())
    give(vp, EVENT, external_interrupt(VECTOR))
    assert deliverable(vp, HvInterruptionType.INTERRUPT) == guests.CODE + 3
    assert vp.outcome().gps["rbx"] == 1, "the interrupt came first"


# --- exceptions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "vector", "code"),
    [
        (exception(Vector.INVALID_OPCODE), Vector.INVALID_OPCODE, None),
        (exception(Vector.GENERAL_PROTECTION, 0x1234), Vector.GENERAL_PROTECTION, 0x1234),
        (exception(Vector.PAGE_FAULT, 7, parameter=0xFFFF800012345678), Vector.PAGE_FAULT, 7),
        (exception(Vector.DOUBLE_FAULT, 0), Vector.DOUBLE_FAULT, 0),
    ],
)
def test_an_exception(vp: HostedVp, value: int, vector: int, code: int | None) -> None:
    guests.start_long(vp, "hlt")
    give(vp, EVENT, value)
    outcome = guests.halted_at(vp.run(cr2=1), guests.trap(vector))
    frame = outcome.rsp
    if code is not None:
        assert guests.quad(vp, frame) == code
        frame += 8
    assert guests.quad(vp, frame) == guests.CODE
    assert outcome.gps["cr2"] == (0xFFFF800012345678 if vector == Vector.PAGE_FAULT else 1)
    assert pending(vp, EVENT) == 0


@pytest.mark.parametrize(
    ("kind", "vector", "code", "length", "to", "rip"),
    [
        (HvInterruptionType.INTERRUPT, VECTOR, None, 0, VECTOR, 0),
        (HvInterruptionType.NMI, 2, None, 0, 2, 0),
        (HvInterruptionType.EXCEPTION, Vector.GENERAL_PROTECTION, 5, 0, Vector.GENERAL_PROTECTION, 0),
        (HvInterruptionType.SOFTWARE_INTERRUPT, 0x80, None, 2, 0x80, 2),
        (HvInterruptionType.PRIVILEGED_SOFTWARE_EXCEPTION, 1, None, 1, 1, 1),
        (HvInterruptionType.SOFTWARE_EXCEPTION, 3, None, 1, 3, 1),
    ],
    ids=lambda value: value.name if isinstance(value, HvInterruptionType) else None,
)
def test_an_interruption_of_every_type(
    vp: HostedVp, kind: HvInterruptionType, vector: int, code: int | None, length: int, to: int, rip: int
) -> None:
    """Whatever IF is: it is 0 here."""
    guests.start_long(vp, "nop\n nop\n nop\n hlt")
    give(vp, INTERRUPTION, interruption(kind, vector, code, length=length))
    outcome = guests.halted_at(guests.asleep(vp).run(), guests.trap(to))
    frame = outcome.rsp
    if code is not None:
        assert guests.quad(vp, frame) == code
        frame += 8
    assert guests.quad(vp, frame) == guests.CODE + rip
    assert (outcome.guest_entries, pending(vp, INTERRUPTION)) == (1, 0)


# --- delivery that is interrupted -------------------------------------------------------------------------------------


def test_an_event_whose_delivery_faults_is_delivered_later(vp: HostedVp) -> None:
    """The stack is not mapped: a message that says that an interruption is pending; after that it comes once."""
    guests.start_long(vp, "nop\n hlt")
    vp.vmcb.rsp = UNMAPPED + 0x1000
    give(vp, EVENT, exception(Vector.GENERAL_PROTECTION, 0x77))
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.UNMAPPED_GPA).body
    assert body.gpa & ~0xFFF == UNMAPPED
    assert body.header.execution_state & HvExecutionState.INTERRUPTION_PENDING
    expected = interruption(HvInterruptionType.EXCEPTION, Vector.GENERAL_PROTECTION, 0x77)
    assert (pending(vp, INTERRUPTION), pending(vp, EVENT)) == (expected, 0)
    page = vp.free.page()
    vp.map(UNMAPPED, page, 4096)
    after = guests.halted_at(vp.run(), guests.trap(Vector.GENERAL_PROTECTION))
    stack = vp.free.ram.view(page, 4096)
    frame = int(after.rsp - UNMAPPED)
    assert [int.from_bytes(stack[frame + 8 * n : frame + 8 * n + 8], "little") for n in range(2)] == [
        0x77, guests.CODE,
    ]
    assert pending(vp, INTERRUPTION) == 0


@pytest.mark.parametrize("text", ["int 0x80", "int3", "int1"])
def test_an_instruction_whose_interrupt_faults_is_executed_again(vp: HostedVp, text: str) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    vp.vmcb.rsp = UNMAPPED + 0x1000
    guests.message(vp.run(), HvMessageType.UNMAPPED_GPA)
    page = vp.free.page()
    vp.map(UNMAPPED, page, 4096)
    outcome = guests.halted(vp.run())
    assert outcome.rip in (guests.trap(0x80), guests.trap(3), guests.trap(1))
    frame = int(outcome.rsp - UNMAPPED)
    pushed = int.from_bytes(vp.free.ram.view(page, 4096)[frame : frame + 8], "little")
    assert pushed == guests.CODE + length_of(text)


# --- NMI --------------------------------------------------------------------------------------------------------------


def test_an_nmi_masks_further_ones_until_iret(vp: HostedVp) -> None:
    guests.start_long(vp, "nop\n hlt")
    guests.load(vp, "inc rbx\n hlt\n iretq", at=guests.CODE + 0x100)
    set_gate(vp, 2, guests.CODE + 0x100)
    give(vp, INTERRUPTION, interruption(HvInterruptionType.NMI, 2))
    inside = guests.halted(vp.run(rbx=0))
    assert (inside.gps["rbx"], pending(vp, STATE)) == (1, 2)
    give(vp, NOTIFICATIONS, when_nmi_possible())
    outcome = vp.run(advance_rip=1)
    body = guests.message(outcome, HvMessageType.X64_INTERRUPTION_DELIVERABLE).body
    assert (body.deliverable_type, outcome.rip) == (HvInterruptionType.NMI, guests.CODE), "behind the IRET"
    assert outcome.rflags & 1 << 8 == 0
    assert vp.cpu.get_registers(["HvX64RegisterDr6"])["HvX64RegisterDr6"] == 0xFFFF0FF0
    assert (pending(vp, STATE), pending(vp, NOTIFICATIONS)) == (0, 0)
    guests.halted_at(vp.run(), guests.CODE + 1)


def test_without_a_notification_nmis_are_possible_again_after_iret(vp: HostedVp) -> None:
    guests.start_long(vp, "nop\n hlt")
    guests.load(vp, "iretq", at=guests.CODE + 0x100)
    set_gate(vp, 2, guests.CODE + 0x100)
    give(vp, INTERRUPTION, interruption(HvInterruptionType.NMI, 2))
    outcome = guests.halted_at(guests.asleep(vp).run(), guests.CODE + 1)
    assert (outcome.local_exits, pending(vp, STATE)) == (1, 0)


def test_an_nmi_handler_whose_iret_faults_stays_one(vp: HostedVp) -> None:
    """IRET from a stack that is not mapped: a memory message, and no trace of the step; then it goes on."""
    guests.start_long(vp, "nop\n hlt")
    guests.load(vp, "mov rbx, rsp\n mov rsp, rdi\n iretq", at=guests.CODE + 0x100)
    set_gate(vp, 2, guests.CODE + 0x100)
    give(vp, INTERRUPTION, interruption(HvInterruptionType.NMI, 2))
    give(vp, NOTIFICATIONS, when_nmi_possible())
    outcome = vp.run(rdi=UNMAPPED)
    guests.message(outcome, HvMessageType.UNMAPPED_GPA)
    assert (outcome.rflags & 1 << 8, pending(vp, STATE)) == (0, 2)
    page = vp.free.page()
    frame = bytes(vp.memory[outcome.gps["rbx"] : outcome.gps["rbx"] + 40])
    vp.free.ram.write(page, frame)
    vp.map(UNMAPPED, page, 4096)
    after = vp.run()
    guests.message(after, HvMessageType.X64_INTERRUPTION_DELIVERABLE)
    assert after.rip == guests.CODE


def test_the_vmm_is_told_at_once_if_an_nmi_is_possible(vp: HostedVp) -> None:
    guests.start_long(vp, "hlt")
    give(vp, NOTIFICATIONS, when_nmi_possible())
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.X64_INTERRUPTION_DELIVERABLE).body
    assert (body.deliverable_type, outcome.guest_entries) == (HvInterruptionType.NMI, 0)
