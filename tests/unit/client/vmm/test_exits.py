"""Exits as the command page has them, and what a run takes and leaves."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.client.vmm import exits
from sidecar.client.vmm.exits import (
    CancelledExit,
    CpuidExit,
    ExceptionExit,
    HaltExit,
    InvalidStateExit,
    MemoryExit,
    MsrExit,
    NotifiedExit,
    PortExit,
    TimeLimitExit,
    TripleFaultExit,
    UnsupportedExit,
    WindowExit,
)
from sidecar.client.vmm.registers import Segment, Table, register
from sidecar.client.vmm.state import VpSnapshot
from sidecar.client.vmm.vp import Vp
from sidecar.layout import hv_messages as hv
from sidecar.layout.command import CommandPage
from sidecar.layout.hv import HvInterruptionType
from sidecar.layout.hv_messages import HvMessageType as Type
from sidecar.layout.hv_registers import HvRegisterName as Name
from sidecar.layout.run import RunEnd
from sidecar.protocol.errors import NothingRuns, ProtocolError
from tests.support import vmm_cpu
from tests.support.vmm_cpu import ScriptedBacking, ScriptedCpu, Step, message

CS = Segment(0, 0xFFFFFFFF, 8, 0xA09B)
HEAD = (0x1000, 0x202, CS, 1)
STATE = 0x14  # EFER_LMA, CR0_PE
DS = {"base": 0x10, "limit": 0x20, "selector": 0x30, "attributes": 0x93}


def vp_with(*steps: Step) -> tuple[Vp, ScriptedCpu]:
    cpu = ScriptedCpu(steps)
    cpu.claim()
    return Vp(ScriptedBacking([cpu]), cpu, 0), cpu  # type: ignore[arg-type]


EVERY: list[tuple[Step, exits.Exit]] = [
    (
        message(hv.IoPortMessage, Type.X64_IO_PORT_INTERCEPT, port=0x3F8, access_info=2 | 8 | 16, rax=0x41, ds=DS,
                instruction_byte_count=2, instruction_bytes=b"\x66\x6f".ljust(16, b"?"),
                head={"access_type": 1, "instruction_length": 0x52}),
        PortExit(0x1000, 0x202, CS, 2, 1, STATE, 5, 0x3F8, 2, True, True, 0x41, b"\x66\x6f",
                 Segment(0x10, 0x20, 0x30, 0x93), Segment(0, 0, 0, 0)),
    ),
    (
        message(hv.MsrMessage, Type.X64_MSR_INTERCEPT, msr=0xC0000080, rdx=0xF_00000001, rax=0xF_00000002),
        MsrExit(*HEAD, 0, STATE, 0, 0xC0000080, 0x1_00000002),
    ),
    (
        message(hv.CpuidMessage, Type.X64_CPUID_INTERCEPT, rax=0xB, rcx=1, rdx=7, rbx=7, default_rax=1, default_rcx=2,
                default_rdx=3, default_rbx=4),
        CpuidExit(*HEAD, 0, STATE, 0, 0xB, 1, (1, 4, 2, 3)),
    ),
    (
        message(hv.MemoryMessage, Type.UNMAPPED_GPA, gpa=0xFEE00030, gva=5, instruction_byte_count=1,
                instruction_bytes=b"\xa4" * 16, head={"access_type": 1}),
        MemoryExit(*HEAD, 1, STATE, 0, 0xFEE00030, None, False, b"\xa4"),
    ),
    (
        message(hv.MemoryMessage, Type.GPA_INTERCEPT, gpa=0x1000, gva=0x2000, memory_access_info=1),
        MemoryExit(*HEAD, 0, STATE, 0, 0x1000, 0x2000, True, b""),
    ),
    (
        message(hv.ExceptionMessage, Type.X64_EXCEPTION_INTERCEPT, vector=14, exception_info=1, error_code=6,
                exception_parameter=0xDEAD, registers=[0] * 16),
        ExceptionExit(*HEAD, 0, STATE, 0, 14, 6, 0xDEAD, False, b""),
    ),
    (
        message(hv.ExceptionMessage, Type.X64_EXCEPTION_INTERCEPT, vector=3, exception_info=2, registers=[0] * 16),
        ExceptionExit(*HEAD, 0, STATE, 0, 3, None, 0, True, b""),
    ),
    (message(hv.HaltMessage, Type.X64_HALT), HaltExit(*HEAD, 0, STATE, 0)),
    (
        message(hv.UnrecoverableExceptionMessage, Type.UNRECOVERABLE_EXCEPTION),
        TripleFaultExit(*HEAD, 0, STATE, 0),
    ),
    (
        message(hv.InterruptionDeliverableMessage, Type.X64_INTERRUPTION_DELIVERABLE,
                deliverable_type=HvInterruptionType.NMI),
        WindowExit(*HEAD, 0, STATE, 0, True),
    ),
    (
        message(hv.InvalidVpRegisterMessage, Type.INVALID_VP_REGISTER_VALUE, rule=7, value=0x11),
        InvalidStateExit(0x1000, 7, 0x11),
    ),
    (
        message(hv.UnsupportedFeatureMessage, Type.UNSUPPORTED_FEATURE, feature_code=1, feature_parameter=0x8D),
        UnsupportedExit(0x1000, 0x8D),
    ),
    (vmm_cpu.ends(RunEnd.CANCELLED, rip=5), CancelledExit(5)),
    (vmm_cpu.ends(RunEnd.NOTIFIED, rip=5, notifications=0x81), NotifiedExit(5, 0x81)),
]  # fmt: skip


@pytest.mark.parametrize(("step", "expected"), EVERY, ids=[type(exit).__name__ for _, exit in EVERY])
def test_every_exit(step: Step, expected: exits.Exit) -> None:
    vp, _ = vp_with(step)
    assert vp.run() == expected
    assert (expected.reason, bool(expected.rip)) == (exits.REASONS[type(expected)], True)


def test_every_message_of_the_layout_is_decoded() -> None:
    never = {Type.NONE}
    assert set(exits._DECODERS) == set(Type) - never


def test_a_message_that_nobody_knows() -> None:
    vp, _ = vp_with(message(hv.HaltMessage, Type.NONE))
    with pytest.raises(ProtocolError, match="the intercept message has type 0x0"):
        vp.run()


def test_a_run_that_ended_with_nothing() -> None:
    vp, _ = vp_with(vmm_cpu.ends(RunEnd.NONE))
    with pytest.raises(ProtocolError, match="a run ended with 0, expected one of"):
        vp.run()


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_inputs_of_a_run() -> None:
    vp, cpu = vp_with(vmm_cpu.halt(), vmm_cpu.halt())
    vp.exception_exits, vp.cpuid_exits = 1 << 14 | 1 << 6, True
    vp.set(rax=0x1234)
    vp.advance_rip(2)
    vp.advance_rip(3)
    vp.run(seconds=0.25)
    vp.exception_exits, vp.cpuid_exits = 0, False
    vp.run()
    first, second = cpu.runs
    assert 0.2e9 < first.time_limit <= 0.25e9
    assert (first.flags, first.exceptions, first.advance, first.rax) == (1, 1 << 14 | 1 << 6, 5, 0x1234)
    assert (second.flags, second.exceptions, second.advance, second.time_limit) == (0, 0, 0, 1_000_000_000)


def test_rip_is_set_where_it_cannot_be_advanced_so_far() -> None:
    vp, cpu = vp_with()
    cpu.registers[vmm_cpu.RIP] = 0xFFFF
    vp.advance_rip(12)
    vp.advance_rip(12)
    assert cpu.registers[vmm_cpu.RIP] == 0xFFFF + 12
    assert vp.advance == 0


def test_a_time_slice_is_renewed_until_the_time_is_over() -> None:
    vp, cpu = vp_with(*[vmm_cpu.ends(RunEnd.TIME_LIMIT)] * 3, vmm_cpu.halt())
    assert isinstance(vp.run(), HaltExit)
    assert len(cpu.runs) == 4
    vp, cpu = vp_with(*[vmm_cpu.ends(RunEnd.TIME_LIMIT)] * 10_000)
    assert isinstance(vp.run(seconds=0.001), TimeLimitExit)


def test_bits_that_came_with_another_exit_are_told_next_and_once() -> None:
    together = message(hv.HaltMessage, Type.X64_HALT, notifications=0x5)
    vp, cpu = vp_with(together, vmm_cpu.halt(), vmm_cpu.ends(RunEnd.NOTIFIED, notifications=2))
    assert isinstance(vp.run(), HaltExit)
    assert vp.run() == NotifiedExit(0x1000, 5)
    assert len(cpu.runs) == 1
    assert isinstance(vp.run(), HaltExit)
    assert vp.run() == NotifiedExit(0x1000, 2)


def test_start_and_finish() -> None:
    vp, cpu = vp_with(vmm_cpu.waits, vmm_cpu.halt())
    assert vp.start() is None
    assert vp.running
    assert vp.stop()
    assert isinstance(vp.finish(), CancelledExit)
    assert not vp.running
    with pytest.raises(NothingRuns, match="no run was started"):
        vp.finish()
    assert vp.start(seconds=0.5) is None
    assert isinstance(vp.finish(), HaltExit)
    assert cpu.runs[1].time_limit == 500_000_000


# --- registers --------------------------------------------------------------------------------------------------------


def test_names_of_registers() -> None:
    assert register("rip") is register("HvX64RegisterRip") is register("RIP")
    assert register("PendingEvent0").number == Name.HvRegisterPendingEvent0
    assert register(0x20010) == register("rip")
    with pytest.raises(ValueError, match="no register 'eip'"):
        register("eip")


def test_registers_in_the_page_and_in_the_cpu() -> None:
    vp, cpu = vp_with()
    segment, table = Segment(0x10000, 0xFFFF, 0x1000, 0x93), Table(0x500, 0x17)
    vp.set({"rsp": 0x8000, "HvX64RegisterR9": 9}, cr2=0xBAD, cs=segment, gdtr=table, xmm3=1 << 100, fpmmx1=0x3FFF << 64)
    assert set(cpu.registers) == {0x20004, 0x60001, 0x70001}
    gps = int(CommandPage.cpu_context.gps)
    assert (bytes(cpu.memory[gps + 4 * 8 : gps + 5 * 8]), cpu.memory[gps + 72]) == ((0xBAD).to_bytes(8, "little"), 9)
    fx_state = int(CommandPage.cpu_context.fx_state)
    assert cpu.memory[fx_state + 160 + 48 : fx_state + 160 + 64] == (1 << 100).to_bytes(16, "little")
    names = ("r9", "rsp", "cs", "gdtr", "xmm3", "cr2", "fpmmx1")
    assert vp.get(*names) == (9, 0x8000, segment, table, 1 << 100, 0xBAD, 0x3FFF << 64)
    assert Segment.of(int(segment)) == segment
    assert vp.rsp == vp.general(4) == 0x8000


def test_a_snapshot_is_the_whole_state() -> None:
    vp, cpu = vp_with(message(hv.HaltMessage, Type.X64_HALT, notifications=8))
    vp.run()
    values: dict[str | int, Any] = {entry.value: number + 1 for number, entry in enumerate(Name)
                                    if 0x20000 <= entry.value < 0x30000 or entry.value >= 0x40000}  # fmt: skip
    cpu.registers |= {number: value for number, value in values.items() if isinstance(number, int)}
    vp.set(values)
    vp.set(xmm7=77)
    vp.advance_rip(3)
    vp.interrupt(0x31)
    vp.nmi()
    cpu.xsave = bytes(512) + b"\7" + bytes(1000) + b"AVX" + bytes(2580)
    saved = VpSnapshot.unpack(vp.save().pack())
    assert saved.registers["HvX64RegisterRip"] == values[Name.HvX64RegisterRip] + 3
    other, far = vp_with()
    far.registers[Name.HvX64RegisterMsrMtrrCap] = values[Name.HvX64RegisterMsrMtrrCap]  # read-only
    other.restore(saved)
    assert other.save() == saved
    assert far.xsave == cpu.xsave
    assert int(far.registers[Name.HvX64RegisterCs]) == values[Name.HvX64RegisterCs]
    assert not any(Name.HvX64RegisterMsrMtrrCap in given for given in far.sets)
    assert other.get("xmm7", "rbx") == (77, values[Name.HvX64RegisterRbx])
    assert other.run() == NotifiedExit(other.rip, 8)


def test_what_is_no_snapshot() -> None:
    for data in (b"{}", b"[]", b'{"registers": {"a": 1}, "fx_state": "", "xsave": ""}'):
        with pytest.raises(ValueError, match="this is no saved virtual processor"):
            VpSnapshot.unpack(data)


# --- events -----------------------------------------------------------------------------------------------------------

PENDING, EVENT, DELIVERABILITY = (
    int(name) for name in (Name.HvRegisterPendingInterruption, Name.HvRegisterPendingEvent0,
                           Name.HvX64RegisterDeliverabilityNotifications)
)  # fmt: skip


def test_an_exception_is_pending_at_once() -> None:
    vp, cpu = vp_with()
    vp.fault(14, error_code=6, address=0xFFFF_8000_0000_0123)
    vp.fault(6)
    assert cpu.sets == [
        {EVENT: 1 | 1 << 8 | 14 << 16 | 6 << 32 | 0xFFFF_8000_0000_0123 << 64}, {EVENT: 1 | 6 << 16},
    ]  # fmt: skip


def test_an_interrupt_waits_until_the_guest_takes_it() -> None:
    window = message(hv.InterruptionDeliverableMessage, Type.X64_INTERRUPTION_DELIVERABLE)
    vp, cpu = vp_with(vmm_cpu.ends(RunEnd.CANCELLED), window, vmm_cpu.halt())
    vp.interrupt(0x40)
    vp.interrupt(0x50)
    vp.interrupt(0x40)
    vp.run()
    vp.run()
    vp.run()
    assert cpu.sets == [{DELIVERABILITY: 2}, {PENDING: 1 | 0x50 << 16, DELIVERABILITY: 2}]
    assert vp.events.waiting() == ([0x40], False)


def test_an_open_guest_gets_its_interrupt_without_a_window() -> None:
    vp, cpu = vp_with(vmm_cpu.port(0x10), vmm_cpu.port(0x10, head={"execution_state": 1 << 12}), vmm_cpu.halt())
    vp.run()
    vp.interrupt(0x40)
    vp.run()
    assert cpu.sets == [{PENDING: 1 | 0x40 << 16}]
    vp.interrupt(0x41)
    vp.run()
    assert cpu.sets[1:] == [{DELIVERABILITY: 2}]


def test_an_nmi() -> None:
    window = message(hv.InterruptionDeliverableMessage, Type.X64_INTERRUPTION_DELIVERABLE,
                     deliverable_type=HvInterruptionType.NMI)  # fmt: skip
    vp, cpu = vp_with(window, vmm_cpu.halt())
    vp.nmi()
    vp.run()
    vp.run()
    assert cpu.sets == [{DELIVERABILITY: 1}, {PENDING: 1 | 2 << 1 | 2 << 16}]


def test_vectors_of_exceptions_are_no_interrupts() -> None:
    vp, _ = vp_with()
    with pytest.raises(ValueError, match="a vector of 16 to 255, not 8"):
        vp.interrupt(8)
