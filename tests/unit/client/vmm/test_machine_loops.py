"""The loops of a machine, that blocks or runs under asyncio; the guests are scripts."""

from __future__ import annotations

import threading
from typing import Any

from sidecar.client.vmm.answers import Answer, Stop
from sidecar.client.vmm.exits import HaltExit, NotifiedExit, WindowExit
from sidecar.client.vmm.loop import Ended, How
from sidecar.layout import hv_messages as hv
from sidecar.layout.hv_messages import HvMessageType as Type
from sidecar.layout.hv_registers import HvRegisterName as Name
from sidecar.layout.run import RunEnd
from tests.support import vmm_cpu
from tests.support.vmm_cpu import halt, message, port
from tests.support.vmm_scripts import Recorder, both, machine_of, run_either


def test_the_time_is_over() -> None:
    machine, _ = machine_of([vmm_cpu.ends(RunEnd.TIME_LIMIT)] * 100_000)
    assert machine.run(seconds=0.01) == Ended(How.TIME)


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
