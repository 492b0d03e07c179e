"""What a machine does between the runs of its virtual processors: memory, the end, moves."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.client.vmm.answers import Answer
from sidecar.client.vmm.errors import VmError
from sidecar.client.vmm.exits import NotifiedExit
from sidecar.client.vmm.loop import Ended, How
from sidecar.client.vmm.machine import Machine
from sidecar.client.vmm.memory import NotMapped
from sidecar.client.vmm.vp import Vp
from sidecar.layout.run import RunEnd
from sidecar.protocol.errors import ProtocolError
from tests.support import vmm_cpu
from tests.support.vmm_cpu import ScriptedBacking, ScriptedCpu, Step, ends, halt, port
from tests.support.vmm_scripts import Recorder, both, machine_of, run_either


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
