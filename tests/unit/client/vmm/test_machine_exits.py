"""Who is asked about an exit, and what the virtual processor gets of the answer; the guests are scripts."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.client.vmm.answers import Answer, Fault, Stop
from sidecar.client.vmm.exits import CpuidExit, ExceptionExit
from sidecar.client.vmm.loop import Ended, How
from sidecar.layout import hv_messages as hv
from sidecar.layout.hv_messages import HvMessageType as Type
from sidecar.layout.hv_registers import HvRegisterName as Name
from sidecar.layout.run import RunEnd
from tests.support import vmm_cpu
from tests.support.vmm_cpu import Step, halt, message, port
from tests.support.vmm_guest import MemoryDevice
from tests.support.vmm_scripts import Recorder, code, cpuid, machine_of, msr

EVENT = int(Name.HvRegisterPendingEvent0)
GP = 1 | 1 << 8 | 13 << 16


def test_ports() -> None:
    device, wide = Recorder(None, 0x1234), Recorder(7, 8)
    machine, (cpu,) = machine_of([
        port(0x3F9, value=0x141, length=2), port(0x3FC, 2, write=False, value=0xAAAA_5555, length=1),
        port(0x501, 4, write=False, value=0xFFFF_FFFF_0000_0000), port(0x600, 2, write=False), port(0x600, write=True),
        port(0x502, 4, value=0x44332211), halt(),
    ])  # fmt: skip
    machine.ports.add(range(0x3F8, 0x400), device)
    machine.ports.add(range(0x502, 0x504), wide)
    assert machine.run(seconds=60).how is How.HALTED
    assert device.seen == [(1, 1, 0x41), (4, 2)]
    assert wide.seen == [(0, 1), (1, 1), (0, 1, 0x11), (1, 1, 0x22)]
    assert [run.advance for run in cpu.runs] == [0, 2, 1, 1, 1, 1, 1]
    assert [run.rax & 0xFFFFFFFF for run in cpu.runs[2:5]] == [0x1234, 0xFF0807FF, 0xFF08FFFF]
    assert machine.unclaimed["port"] == {0x501: 1, 0x504: 2, 0x505: 1, 0x600: 2} | {}


def test_a_string_instruction_reads_the_guests_memory() -> None:
    device = Recorder()
    outs: dict[str, Any] = {"access_info": 1 | 8 | 16} | code(b"\xf3\x6e")
    machine, (cpu,) = machine_of([port(0xE9, value=0, length=2, **outs), halt()], memory=0x3000)
    machine.ports.add(range(0xE9, 0xEA), device)
    machine.memory.write(0x1FFE, b"abcd")
    machine.vps[0].set(rcx=4, rsi=0x1FFE)
    machine.run(seconds=60)
    assert bytes(value for _, _, value in device.seen) == b"abcd"
    assert machine.vps[0].get("rcx", "rsi") == (0, 0x2002)
    assert cpu.translated == [0x1000, 0x2000]
    assert cpu.runs[1].advance == 2


def test_a_device_in_memory() -> None:
    mov = code(b"\x89\x08")  # [rax], ecx
    machine, (cpu,) = machine_of([message(hv.MemoryMessage, Type.UNMAPPED_GPA, gpa=0xD0000010, **mov), halt()])
    device = MemoryDevice(bytes(64))
    machine.devices.add(range(0xD0000000, 0xD0000040), device)
    machine.vps[0].set(rax=0xD0000010, rcx=0x11223344)
    machine.run(seconds=60)
    assert device.seen == [(True, 0x10, 4, 0x11223344)]
    assert (cpu.runs[1].advance, cpu.translated) == (2, [])


def test_msrs() -> None:
    known = Recorder(0x1_00000002, None, Fault(13, 0))
    machine, (cpu,) = machine_of([
        msr(0x9F, write=False), msr(0x9E, write=True, value=0x5_00000006), msr(0x9F, write=True, value=1),
        msr(0x1234, write=False), halt(),
    ])  # fmt: skip
    machine.msrs.add(range(0x9E, 0xA0), known)
    machine.run(seconds=60)
    assert known.seen == [(1, 8), (0, 8, 0x5_00000006), (1, 8, 1)]
    assert [run.advance for run in cpu.runs] == [0, 2, 2, 0, 0]
    assert cpu.runs[1].rax == 2
    assert machine.vps[0].get("rdx") == (1,)
    assert cpu.sets == [{EVENT: GP}, {EVENT: GP}]
    assert machine.unclaimed["MSR"] == {0x1234: 1}


def test_cpuid() -> None:
    machine, (cpu,) = machine_of([cpuid(0x40000000), cpuid(1), halt()])

    def answer(exit: CpuidExit) -> tuple[int, int, int, int]:
        return exit.default[0] + 10, 20, 30, 40

    machine.cpuid.add(range(0x40000000, 0x40000100), answer)
    machine.run(seconds=60)
    assert (cpu.runs[1].rax, cpu.runs[1].advance) == (11, 2)
    assert machine.vps[0].get("rax", "rbx", "rcx", "rdx") == (1, 4, 2, 3)


def test_an_exception_is_delivered_unless_somebody_wants_it() -> None:
    step = message(hv.ExceptionMessage, Type.X64_EXCEPTION_INTERCEPT, vector=14, exception_info=1, error_code=2,
                   exception_parameter=0x5000, registers=[0] * 16)  # fmt: skip
    machine, (cpu,) = machine_of([step, step, halt()])
    machine.vps[0].exception_exits = 1 << 14
    seen: list[ExceptionExit] = []

    def second(vp: object, exit: ExceptionExit) -> Answer:
        seen.append(exit)
        return Fault(13, 0)

    assert machine.handle(machine.vps[0], machine.vps[0].run()) is None
    machine.on(ExceptionExit, second)
    machine.run(seconds=60)
    assert cpu.sets == [{EVENT: 1 | 1 << 8 | 14 << 16 | 2 << 32 | 0x5000 << 64}, {EVENT: GP}]
    assert [exit.parameter for exit in seen] == [0x5000]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (message(hv.UnrecoverableExceptionMessage, Type.UNRECOVERABLE_EXCEPTION), "ended in triple fault at rip 0x10"),
        (message(hv.InvalidVpRegisterMessage, Type.INVALID_VP_REGISTER_VALUE, rule=3), "invalid state rule 3"),
        (message(hv.UnsupportedFeatureMessage, Type.UNSUPPORTED_FEATURE, feature_parameter=0x8D), "unsupported 0x8d"),
        (message(hv.MemoryMessage, Type.UNMAPPED_GPA, gpa=0x123, **code(b"\x0f\x0b")),
         "an access to 0x123: 'ud2' at 0x1000 is not emulated"),
        (vmm_cpu.ends(RunEnd.CANCELLED), "was stopped"),
    ],
)  # fmt: skip
def test_what_ends_a_machine(step: Step, words: str) -> None:
    machine, _ = machine_of([step])
    ended = machine.run(seconds=60)
    assert (ended.how, ended.stop and ended.stop.status) == (How.STOPPED, 126)
    assert ended.stop is not None
    assert words in ended.stop.why


def test_a_stopped_machine_goes_on_where_it_stands() -> None:
    machine, (cpu,) = machine_of([port(0xF4, value=5, length=1), halt()])
    machine.ports.add(range(0xF4, 0xF8), Recorder(Stop(11, "enough")))
    assert machine.run(seconds=60) == Ended(How.STOPPED, Stop(11, "enough"))
    assert machine.run(seconds=60) == Ended(How.HALTED)
    assert [run.advance for run in cpu.runs] == [0, 1]
