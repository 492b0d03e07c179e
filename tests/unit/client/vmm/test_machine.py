"""What a machine does between the runs of its virtual processors, and its loops; the guests are scripts."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import Any

import pytest

from sidecar.client.vmm.answers import Answer, Fault, Stop
from sidecar.client.vmm.errors import VmError
from sidecar.client.vmm.exits import CpuidExit, ExceptionExit, HaltExit, NotifiedExit, WindowExit
from sidecar.client.vmm.ledger import Ledger, summarize
from sidecar.client.vmm.loop import Ended, How
from sidecar.client.vmm.machine import Machine
from sidecar.client.vmm.memory import NotMapped
from sidecar.client.vmm.vp import Vp
from sidecar.errors import UserError
from sidecar.layout import hv_messages as hv
from sidecar.layout.hv_messages import HvMessageType as Type
from sidecar.layout.hv_registers import HvRegisterName as Name
from sidecar.layout.run import RunEnd
from sidecar.protocol.errors import ProtocolError
from tests.support import vmm_cpu
from tests.support.vmm_cpu import ScriptedBacking, ScriptedCpu, Step, ends, halt, message, port
from tests.support.vmm_guest import MemoryDevice

EVENT = int(Name.HvRegisterPendingEvent0)
GP = 1 | 1 << 8 | 13 << 16


class Recorder:
    """A device that answers from a list, and remembers."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.seen = list(answers), list[tuple[Any, ...]]()

    def read(self, offset: int, size: int) -> Answer:
        self.seen.append((offset, size))
        return self.answers.pop(0)

    def write(self, offset: int, size: int, value: int) -> Answer:
        self.seen.append((offset, size, value))
        return self.answers.pop(0) if self.answers else None


def machine_of(*scripts: list[Step], memory: int = 0, **more: Any) -> tuple[Machine, list[ScriptedCpu]]:
    cpus = [ScriptedCpu(steps, number=number + 1) for number, steps in enumerate(scripts)]
    backing: Any = ScriptedBacking(cpus)
    machine = Machine(backing, memory=memory, **more)
    for cpu in cpus:
        machine.add_vp(cpu.number)
    return machine, cpus


def code(data: bytes) -> dict[str, Any]:
    """The instruction's fields of a message."""
    return {"instruction_bytes": data.ljust(16, b"\0"), "instruction_byte_count": len(data)}


def cpuid(leaf: int) -> Step:
    return message(hv.CpuidMessage, Type.X64_CPUID_INTERCEPT, rax=leaf, default_rax=1, default_rcx=2, default_rdx=3,
                   default_rbx=4, head={"instruction_length": 2})  # fmt: skip


def msr(number: int, *, write: bool, value: int = 0) -> Step:
    head = {"access_type": int(write), "instruction_length": 2}
    low, high = value & 0xFFFFFFFF, value >> 32
    return message(hv.MsrMessage, Type.X64_MSR_INTERCEPT, head=head, msr=number, rdx=high, rax=low)


# --- memory and virtual processors -----------------------------------------------------------------------------------


def test_memory_is_mapped_and_given_back() -> None:
    machine, _ = machine_of(memory=0x4000)
    machine.map(0x10000, 0x1000)[:2] = b"hi"
    backing: Any = machine.backing
    assert {gpa: size for gpa, (size, _) in backing.mapped.items()} == {0: 0x4000, 0x10000: 0x1000}
    assert machine.memory.read(0x10000, 3) == b"hi\0"
    machine.unmap(0x10000)
    with pytest.raises(NotMapped, match="0x10000 is not mapped"):
        machine.memory.read(0xFFFF + 1, 1)
    assert list(backing.mapped) == [0]


@pytest.mark.parametrize(
    ("gpa", "size", "words"),
    [
        (0x3000, 0x2000, "overlaps that at 0x0 to 0x4000"),
        (0x10001, 0x1000, "must be multiples of 0x1000"),
        (0x10000, 0, "must be multiples"),
    ],
)
def test_memory_that_cannot_be_mapped(gpa: int, size: int, words: str) -> None:
    machine, _ = machine_of(memory=0x4000)
    with pytest.raises(ValueError, match=words):
        machine.map(gpa, size)


def test_closing_takes_everything_back() -> None:
    machine, (first, second) = machine_of([vmm_cpu.waits], [], memory=0x1000)
    backing: Any = machine.backing
    assert (backing.created, first.claimed) == ([1, 2], True)
    machine.vps[0].start()
    machine.close()
    assert (backing.created, backing.closed, first.claimed, second.claimed) == ([], True, False, False)


# --- exits -----------------------------------------------------------------------------------------------------------


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


# --- loops -----------------------------------------------------------------------------------------------------------


def test_the_time_is_over() -> None:
    machine, _ = machine_of([vmm_cpu.ends(RunEnd.TIME_LIMIT)] * 100_000)
    assert machine.run(seconds=0.01) == Ended(How.TIME)


def run_either(machine: Machine, kind: str, seconds: float = 60) -> Ended:
    return machine.run(seconds=seconds) if kind == "blocking" else asyncio.run(machine.run_async(seconds=seconds))


both = pytest.mark.parametrize("kind", ["blocking", "asyncio"])


@both
def test_several_virtual_processors(kind: str) -> None:
    scripts = [[port(0x10, value=vp * 10 + n) for n in range(5)] + [halt()] for vp in range(3)]
    machine, cpus = machine_of(*scripts)
    device = Recorder()
    machine.ports.add(range(0x10, 0x11), device)
    assert run_either(machine, kind) == Ended(How.HALTED)
    for vp in range(3):
        assert [value for _, _, value in device.seen if value // 10 == vp] == [vp * 10 + n for n in range(5)]
    assert [len(cpu.runs) for cpu in cpus] == [6, 6, 6]


@both
def test_a_stop_stops_all_and_loses_no_exit(kind: str) -> None:
    machine, cpus = machine_of([port(0xF4, value=1), halt()], [vmm_cpu.waits, halt()])
    machine.ports.add(range(0xF4, 0xF8), Recorder(Stop(3, "enough")))
    assert run_either(machine, kind) == Ended(How.STOPPED, Stop(3, "enough"))
    assert not any(vp.running for vp in machine.vps)
    assert run_either(machine, kind) == Ended(How.HALTED)
    assert sum(len(cpu.runs) for cpu in cpus) in (3, 4)


@both
def test_one_virtual_processor_wakes_another(kind: str) -> None:
    machine, cpus = machine_of([port(0x10), port(0x10), halt()], [halt(on=True), halt()])
    calls = []

    class Doorbell(Recorder):
        def write(self, offset: int, size: int, value: int) -> Answer:
            calls.append(value)
            if len(calls) == 2:
                machine.vps[1].interrupt(0x40)
            return None

    machine.ports.add(range(0x10, 0x11), Doorbell())
    assert run_either(machine, kind) == Ended(How.HALTED)
    delivered = [given.get(Name.HvRegisterPendingInterruption) for given in cpus[1].sets]
    assert [value for value in delivered if value is not None] == [1 | 0x40 << 16]
    assert [run.advance for run in cpus[1].runs] == [0, 1]


@both
def test_a_notification_from_another_thread_wakes_a_halted_one(kind: str) -> None:
    machine, (cpu,) = machine_of([halt(on=True), vmm_cpu.ends(RunEnd.NOTIFIED, notifications=4), halt()])

    def notified(vp: Any, exit: NotifiedExit) -> Answer:
        return Stop(exit.bits, "bits")

    machine.on(NotifiedExit, notified)
    timer = threading.Timer(0.1, lambda: machine.vps[0].notify(4))
    timer.start()
    assert run_either(machine, kind) == Ended(How.STOPPED, Stop(4, "bits"))
    timer.join()
    backing: Any = machine.backing
    assert backing.rung == [(1, 4)]
    assert cpu.runs[1].advance == 0


@both
def test_a_handler_of_hlt_decides(kind: str) -> None:
    machine, (cpu,) = machine_of([halt(on=True), halt()])

    def over(vp: Any, exit: HaltExit) -> Answer:
        vp.advance_rip(exit.length)
        return None if len(cpu.runs) == 1 else Stop(0, "twice")

    machine.on(HaltExit, over)
    assert run_either(machine, kind) == Ended(How.STOPPED, Stop(0, "twice"))


def test_threads_of_their_own() -> None:
    """Handlers run one at a time, whoever calls."""
    machine, _ = machine_of(*[[port(0x10) for _ in range(200)] for _ in range(3)])
    inside, most = [0], [0]

    class Alone(Recorder):
        def write(self, offset: int, size: int, value: int) -> Answer:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1
            return super().write(offset, size, value)

    device = Alone()
    machine.ports.add(range(0x10, 0x11), device)

    def serve(vp: Any) -> None:
        for _ in range(200):
            assert machine.handle(vp, vp.run()) is None

    threads = [threading.Thread(target=serve, args=(vp,)) for vp in machine.vps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(device.seen), most[0]) == (600, 1)


@both
def test_an_interrupt_window_is_nobodys_business(kind: str) -> None:
    window = message(hv.InterruptionDeliverableMessage, Type.X64_INTERRUPTION_DELIVERABLE)
    machine, _ = machine_of([window, halt()])
    machine.vps[0].interrupt(0x30)
    assert run_either(machine, kind) == Ended(How.HALTED)
    assert WindowExit is not None


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_a_ledger_and_its_summary() -> None:
    file = io.StringIO()
    ledger = Ledger(file, tsc_khz=1_000_000)
    machine, _ = machine_of([port(0x3F8), port(0x3F8), port(0x60, write=False), halt()], ledger=ledger)
    machine.run(seconds=60)
    text = file.getvalue()
    assert len(text.splitlines()) == 5
    summary = summarize(text.splitlines(keepends=True))
    assert (summary.exits, summary.entries) == (4, 4)
    found = summary.as_dict()["rows"]
    assert [(row["reason"], row["detail"], row["count"]) for row in found] == [
        ("port", "out 0x3f8 1", 2), ("port", "in 0x60 1", 1), ("halt", "", 1),
    ]  # fmt: skip
    assert (found[0]["sidecar_us"], found[0]["guest_us"], found[0]["rips"]) == (4.0, 0.0, {"0x1000": 2})
    assert found[0]["vmm_us"] > 0
    assert summarize((text + '{"vp": 0, "rea').splitlines(keepends=True)).exits == 4


@pytest.mark.parametrize("text", ["", "{}\n", "hello\n", '{"format": "sidecar exits 1"}\nhello\n'])
def test_what_is_no_ledger(text: str) -> None:
    with pytest.raises(UserError, match="this is no ledger of exits"):
        summarize(text.splitlines(keepends=True))


# --- moved ------------------------------------------------------------------------------------------------------------


def moving(*steps: Step) -> tuple[Machine, Vp, list[ScriptedCpu]]:
    """A virtual processor on the first of two CPUs."""
    cpus = [ScriptedCpu(steps), ScriptedCpu([ends(RunEnd.TIME_LIMIT)], number=2)]
    machine = Machine(ScriptedBacking(cpus))
    return machine, machine.add_vp(1), cpus


def test_a_virtual_processor_is_moved_with_what_waits_for_it() -> None:
    machine, vp, (before, after) = moving()
    vp.set(cr3=0x5000, rbx=7)
    vp.advance_rip(3)
    vp.interrupt(0x31)
    vp.notify(4)
    machine.move_vp(vp, 2)
    assert (vp.cpu.number, machine.vps, vp.get("cr3", "rbx", "rip")) == (2, [vp], (0x5000, 7, 3))
    assert vp.events.waiting() == ([0x31], False)
    backing: Any = machine.backing
    assert (backing.created, before.claimed, after.claimed) == ([2], False, True)
    vp.notify(8)
    assert (before.doorbell, after.doorbell) == (0, 8)
    assert vp.run() == NotifiedExit(3, 4)


@both
def test_a_handler_moves_the_virtual_processor_that_has_exited(kind: str) -> None:
    """Also beside another one; its exit is handled as it was, on the new CPU."""
    cpus = [ScriptedCpu([port(0x10, write=False, length=2)]), ScriptedCpu([halt()], number=2),
            ScriptedCpu([halt()], number=3)]  # fmt: skip
    machine = Machine(ScriptedBacking(cpus))
    vp, _ = machine.add_vp(1), machine.add_vp(3)

    class Moves(Recorder):
        def read(self, offset: int, size: int) -> Answer:
            machine.move_vp(vp, 2)
            return super().read(offset, size)

    machine.ports.add(range(0x10, 0x11), Moves(0x42))
    assert run_either(machine, kind) == Ended(How.HALTED)
    assert (vp.cpu.number, cpus[1].runs[0].rax & 0xFF, cpus[1].runs[0].advance) == (2, 0x42, 2)


def test_a_virtual_processor_that_cannot_be_moved_stays() -> None:
    machine, vp, (before, after) = moving(vmm_cpu.waits)
    vp.set(cr3=0x5000)

    def refuse(values: object) -> None:
        raise ProtocolError("no such register")

    after.set_registers = refuse  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match="no such register"):
        machine.move_vp(vp, 2)
    backing: Any = machine.backing
    assert (vp.cpu.number, vp.get("cr3"), backing.created) == (1, (0x5000,), [1])
    assert (before.claimed, after.claimed) == (True, False)
    vp.start()
    with pytest.raises(VmError, match=r"virtual processor 0 on CPU 1 .* runs: it can be moved when it stands still"):
        machine.move_vp(vp, 2)
    assert after.claimed is False
    vp.stop()
    vp.finish()
