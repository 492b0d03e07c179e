"""What must come of an NMI in each part of a CPU's life; see `windows`. `every` takes each n-th instruction only."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

from sidecar.layout import REQUEST_VECTOR, CpuStatus, RaiseKind
from sidecar.layout.x86 import Icr, Vector
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CommandTimeout, CpuFaulted, CpuLost, SidecarCommandError
from sidecar.protocol.slot import DriverState
from sidecar.qemu.waiting import wait_until
from tests.support import cpus, malformed
from tests.support.windows import Windows, instructions, windows

Check: TypeAlias = Callable[[Path, int], None]
HELD_SECONDS = 1.0
REGISTER_INSTRUCTIONS = 60
LOOKING_TICKS = 1 << 20


def while_a_fault_is_reported(directory: Path, every: int) -> None:
    """The fault is reported as if there had been no NMI, and the driver is told."""
    with windows(directory) as machine:
        reached = 0
        for address in instructions("fault_entry", "raise_attention")[::every]:
            before, count = responses(machine), cpus.faults(machine.cpu)
            if machine.stop_at(address, fault(machine)):
                machine.send(Icr.NMI)
                machine.let_go()
                reached += 1
            cpus.assert_halted_in(machine.session, machine.cpu, "halt_forever")
            record = cpus.wait_faulted(machine.cpu)
            assert (record.vector, record.nested) == (Vector.INVALID_OPCODE, False), hex(address)
            assert cpus.line_at(record.rip).routine == "raise_invalid_opcode"
            assert record.count == count + 1
            assert responses(machine) == before + 1, hex(address)
            back(machine)
        assert reached > 80 // every


def during_a_command(directory: Path, every: int) -> None:
    """The CPU faults there and then; the driver is told once for this, and once for the command if that had ended."""
    routines = ("park", "request", "execute", "finish", "raise_attention")
    with windows(directory) as machine:
        assert nmis(machine, instructions(*routines)[::every], command) > 50 // every


def while_it_looks_for_a_command(directory: Path, every: int) -> None:
    """The same after a command, with a CPU that looks for the next one before it halts."""
    with windows(directory) as machine:
        machine.cpu.pages.privileged.halt_poll = LOOKING_TICKS
        assert nmis(machine, instructions("halt_poll")[::every], command) > 15 // every


def asked_while_it_looks(directory: Path, every: int) -> None:
    """A command that comes between any two instructions of a CPU on its way to HLT is executed, once.

    It comes as from the driver: RUN, and a request unless the CPU says that it looks itself.
    """
    with windows(directory) as machine:
        spared = set()
        end = next(at for at in instructions("finish") if "cmpxchg" in cpus.line_at(at).source)
        machine.cpu.pages.privileged.halt_poll = LOOKING_TICKS
        for address in instructions("halt_poll", "park")[::every]:
            assert machine.stop_at(end, command(machine))
            if machine.go_to(address):
                before = cpus.counters(machine.cpu)["commands"]
                assert machine.cpu.status == CpuStatus.IDLE
                malformed.force(machine.cpu, CpuStatus.RUN)
                spared.add(polling := bool(machine.cpu.pages.privileged.polling))
                if not polling:
                    machine.send(Icr.FIXED, REQUEST_VECTOR)
                machine.let_go()
                cpus.wait_status(machine.cpu, CpuStatus.IDLE)
                assert cpus.counters(machine.cpu)["commands"] == before + 1, hex(address)
            cpus.wait_asleep(machine.session)
        assert spared == {False, True}


def during_register_commands(directory: Path) -> None:
    """The same where a command sets registers, and answers with an error."""
    routines = ("get_vp_registers", "find_register", "locate_register", "write_register", "command_error")
    with windows(directory) as machine:
        assert nmis(machine, instructions(*routines), registers) > REGISTER_INSTRUCTIONS


def nmis(machine: Windows, addresses: list[int], action: Callable[[Windows], Callable[[], None]]) -> int:
    """An NMI at each of them that the action reaches; how many these are."""
    reached = 0
    for address in addresses:
        count, before = cpus.faults(machine.cpu), responses(machine)
        if machine.stop_at(address, action(machine)):
            ended = machine.cpu.status == CpuStatus.IDLE
            machine.send(Icr.NMI)
            machine.let_go()
            reached += 1
            record = cpus.wait_faulted(machine.cpu)
            assert (record.vector, record.rip, record.count) == (Vector.NMI, address, count + 1)
            assert before + 1 <= responses(machine) <= before + 1 + ended, hex(address)
        back(machine)
    return reached


def during_a_removal(directory: Path, every: int) -> None:
    """Until the status is REMOVED it is a fault like any other; afterwards it is nothing, and the driver is told."""
    with windows(directory) as machine:
        seen = set()
        for address in instructions("remove", "raise_attention", "halt_forever")[:: min(every, 2)]:
            count, before = cpus.faults(machine.cpu), responses(machine)
            if machine.stop_at(address, machine.cpu.remove):
                removed = machine.cpu.status == CpuStatus.REMOVED
                machine.send(Icr.NMI)
                machine.let_go()
                seen.add(removed)
                assert cpus.faults(machine.cpu) == count + (not removed)
                wait_for_responses(machine, before + 1, hex(address))
            assert (machine.cpu.status, machine.cpu.state) == (CpuStatus.REMOVED, DriverState.REMOVED)
            back(machine)
        assert seen == {False, True}


def during_an_arrival(directory: Path, every: int) -> None:
    """From the moment the CPU has its descriptors: the arrival ends in FAULTED, and the driver tries once more.

    When the status is IDLE already, the driver may have seen that, and has a CPU that faults as any idle one would.
    """
    routines = ("prepare_cpu", "scrub_state", "enable_x2apic", "reset_vp", "reset_pages", "finish")
    with windows(directory) as machine:
        reached = 0
        for address in instructions(*routines)[::every]:
            count, arrivals = cpus.faults(machine.cpu), cpus.arrivals(machine.cpu)
            if machine.stop_at(address, machine.cpu.restart):
                outcomes = {(CpuStatus.IDLE, arrivals + 2)}
                if machine.cpu.status == CpuStatus.IDLE:
                    outcomes.add((CpuStatus.FAULTED, arrivals + 1))
                machine.send(Icr.NMI)
                machine.let_go()
                cpus.wait_asleep(machine.session)
                assert cpus.faults(machine.cpu) == count + 1
                assert (machine.cpu.status, cpus.arrivals(machine.cpu)) in outcomes
                reached += 1
            back(machine)
        assert reached > 80 // every


CHECKS: tuple[Check, ...] = (
    while_a_fault_is_reported, during_a_command, while_it_looks_for_a_command, during_a_removal, during_an_arrival,
)  # fmt: skip


def held_in_a_transition(directory: Path) -> None:
    """A CPU stands still right before, or right after, it changes its status: the driver and the others do not.

    Before, it is lost until it goes on; after, it has done what it was told. INIT that came in between is the first it
    takes when it goes on, so it touches nothing any more. A restart heals it.
    """
    with windows(directory) as machine:
        seen = set()
        for routine, act in TRANSITIONS:
            code = instructions(routine)
            change = next(number for number, at in enumerate(code) if "cmpxchg" in cpus.line_at(at).source)
            for later in (False, True):
                action = partial(act, machine.cpu)
                assert machine.stop_at(code[change + later], partial(give_up, action)), (routine, later)
                machine.hold()
                cpus.assert_answers(machine.session.cpus[2])
                seen.add((routine, later, machine.cpu.state is DriverState.LOST))
                machine.end_hold()
                back(machine)
        assert seen == {(routine, later, not later) for routine, _ in TRANSITIONS for later in (False, True)}


def give_up(action: Callable[[], object]) -> None:
    with contextlib.suppress(CommandTimeout, CpuFaulted, CpuLost):
        action()


TRANSITIONS: tuple[tuple[str, Callable[[Cpu], object]], ...] = (
    ("finish", lambda cpu: cpu.none(seconds=HELD_SECONDS)),
    ("finish", lambda cpu: cpu.restart()),
    ("fault_entry", lambda cpu: cpu.raise_fault(RaiseKind.INVALID_OPCODE, seconds=HELD_SECONDS)),
    ("remove", lambda cpu: cpu.remove()),
)
"""A routine that changes the status, and who has the CPU get there: a command, an arrival, a fault, a removal."""


def removal_taken_back(directory: Path) -> None:
    """The status changes while the CPU is about to give itself up: it stays, and takes requests again."""
    with windows(directory) as machine:
        address = next(at for at in instructions("remove") if "cmpxchg" in cpus.line_at(at).source)

        def ask() -> None:
            malformed.force(machine.cpu, CpuStatus.REMOVE)
            malformed.request(machine.session, machine.cpu)

        assert machine.stop_at(address, ask)
        malformed.force(machine.cpu, CpuStatus.IDLE)
        machine.let_go()
        cpus.assert_halted_in(machine.session, machine.cpu, "park")
        cpus.assert_answers(machine.cpu)


def fault(machine: Windows) -> Callable[[], None]:
    """The action that makes the CPU fault."""

    def act() -> None:
        try:
            machine.cpu.raise_fault(RaiseKind.INVALID_OPCODE, seconds=cpus.SECONDS)
        except CpuFaulted:
            return

    return act


def command(machine: Windows) -> Callable[[], None]:
    """The action that runs a command to its end, or to the fault that ends it."""

    def act() -> None:
        try:
            machine.cpu.none(seconds=cpus.SECONDS)
        except CpuFaulted:
            return

    return act


def registers(machine: Windows) -> Callable[[], None]:
    """The action that sets registers, the last to what it cannot be: one command."""
    values = {"HvX64RegisterDr0": 3, "HvX64RegisterMsrMtrrDefType": 0xC06, "HvX64RegisterDr7": 1 << 40}

    def act() -> None:
        with contextlib.suppress(CpuFaulted, SidecarCommandError):
            machine.cpu.set_registers(values, seconds=cpus.SECONDS)

    return act


def wait_for_responses(machine: Windows, count: int, where: str) -> None:
    """A busy host may be late with the last one."""
    wait_until(
        lambda: responses(machine) == count, seconds=cpus.SECONDS, what=f"{count} response interrupts, at {where}"
    )


def responses(machine: Windows) -> int:
    return cpus.settled_responses(machine.session)


def back(machine: Windows) -> None:
    cpus.tidy(machine.session)
    machine.cpu = machine.session.cpus[machine.cpu.number]
    cpus.assert_answers(machine.session.cpus[2])
