"""What the boot tests ask of the CPUs of a running machine: their counters, where they are, whether they live."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.builder import image
from sidecar.builder.asm import Linked, LinkedLine
from sidecar.layout import IMAGE_VA, REQUEST_VECTOR, CommandPage, CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.x86 import Fcw, Icr, Mxcsr
from sidecar.protocol.commands import Cpu, Run
from sidecar.protocol.errors import CpuFaulted
from sidecar.protocol.fault import Fault
from sidecar.protocol.requests import raise_request
from sidecar.protocol.slot import DriverState
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until

SECONDS = 5.0
"""Far more than any answer takes; less than the time-out of a test."""

NO_APIC_ID = 0xABCDEF
"""No CPU of any test machine has it."""

ROOT = Path(__file__).resolve().parents[2]
COUNTERS = ("commands", "requests", "spurious", "errors", "removals", "timer")


RESET_CONTEXT = {
    int(CommandPage.cpu_context.gps) + 8 * 2: 0,
    int(CommandPage.cpu_context.fx_state): Fcw.INITIAL,
    int(CommandPage.cpu_context.fx_state) + 24: Mxcsr.RESET,
}
"""What a new virtual processor's registers are, where not 0: RDX, the processor's signature; FCW; MXCSR."""


# --- machines that several tests share --------------------------------------------------------------------------------


def module_directory(request: pytest.FixtureRequest) -> Path:
    """An empty directory for the machine of a test module, kept after it; see `run_directory` in tests/conftest.py."""
    directory = ROOT / "build" / "tests" / request.path.relative_to(ROOT / "tests").with_suffix("") / "machine"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def tidy(session: Session) -> None:
    """Makes the machine fit for the next test: whoever is not idle comes back through the trampoline.

    The Cpu objects are new ones, in case a test that failed has left a run in the old ones.
    """
    assert session.machine.alive
    session.cpus = {number: Cpu(session.driver, number) for number in session.cpus}
    for cpu in session.cpus.values():
        if cpu.state is not DriverState.AVAIL or cpu.status != CpuStatus.IDLE:
            bring_back(cpu)


def bring_back(cpu: Cpu) -> None:
    """Restart, or return of a removed CPU; it is idle and answers afterwards."""
    if cpu.state is DriverState.REMOVED:
        cpu.give_back()
    else:
        cpu.restart()
    assert_answers(cpu)


def settle(session: Session) -> None:
    """Until no interrupt is pending anywhere: those who send sleep, and everybody has been awake since and sleeps."""
    wait_asleep(session)
    for cpu in session.cpus.values():
        assert_answers(cpu)
    wait_asleep(session)


def wait_asleep(session: Session) -> None:
    wait_until(
        lambda: all(session.machine.registers(number).halted for number in session.cpus),
        seconds=SECONDS, what="every CPU to sleep",
    )


# --- one CPU ----------------------------------------------------------------------------------------------------------


def assert_answers(cpu: Cpu) -> None:
    cpu.none(seconds=SECONDS)
    assert (cpu.status, cpu.state) == (CpuStatus.IDLE, DriverState.AVAIL)


def others(session: Session, cpu: Cpu) -> list[Cpu]:
    return [other for other in session.cpus.values() if other.number != cpu.number]


def wait_status(cpu: Cpu, *statuses: CpuStatus) -> None:
    names = " or ".join(status.name for status in statuses)
    wait_until(lambda: cpu.status in statuses, seconds=SECONDS, what=f"{cpu} to be {names}")


def counters(cpu: Cpu) -> dict[str, int]:
    """The counters as they are now, without `stray`."""
    page = cpu.pages.diagnostic.counters
    return {name: int(getattr(page, name)) for name in COUNTERS}


def stray(cpu: Cpu) -> dict[int, int]:
    """How many stray interrupts there were, by vector, those without any left out."""
    counts = [int(count) for count in cpu.pages.diagnostic.counters.stray]
    return {vector: count for vector, count in enumerate(counts) if count}


def arrivals(cpu: Cpu) -> int:
    return int(cpu.pages.diagnostic.boot.arrivals)


def faults(cpu: Cpu) -> int:
    """How many faults the CPU has had since boot."""
    fault = cpu.driver.fault(cpu.number)
    return fault.count if fault else 0


def sentence(cpu: Cpu) -> str:
    """The error in the command page, which must be a proper one."""
    page = cpu.pages.command
    length = int(page.error.length)
    text = bytes(page.error.text)[:length].decode("utf-8")
    assert page.has_error == 1
    assert text
    assert text.isprintable()
    return text


def log(cpu: Cpu) -> list[str]:
    """The lines in the CPU's log ring, oldest first."""
    ring = cpu.pages.log.snapshot()
    written, text = int(ring.written), bytes(ring.text)
    if written > len(text):
        start = written % len(text)
        text = text[start:] + text[:start]
    else:
        text = text[:written]
    return text.decode("utf-8").splitlines()


def wait_log(cpu: Cpu, line: str) -> None:
    wait_until(lambda: line in log(cpu), seconds=SECONDS, what=f"{line!r} in the log of {cpu}")


# --- interrupts and faults --------------------------------------------------------------------------------------------


def interrupt(session: Session, cpu: Cpu, kind: Icr, vector: int = 0) -> None:
    """Has the boot CPU send one interrupt; it has left for the CPU when this returns."""
    session.backing.send(cpu.numbers.apic_id << 32 | kind | vector)
    session.backing.drain(SECONDS)


def settled_responses(session: Session) -> int:
    """The response interrupts that the boot CPU has counted, when no more are under way.

    CPUs that sleep have sent all of theirs; an errand that does nothing makes the boot CPU take them.
    """
    wait_asleep(session)
    session.backing.send(NO_APIC_ID << 32 | Icr.FIXED | REQUEST_VECTOR)
    session.backing.drain(SECONDS)
    return int(session.backing.relay.responses)


def start_raise(cpu: Cpu, kind: RaiseKind, argument: int = 0) -> Run:
    return cpu.start(SidecarCommand.RAISE, raise_request(kind, argument))


def start_endless(session: Session, cpu: Cpu, kind: RaiseKind) -> Run:
    """A run of SPIN or WAIT_FOR_STOP that has got to its loop."""
    run = start_raise(cpu, kind)
    routine = f"raise_{kind.name.lower()}"
    wait_until(lambda: routine_of(session, cpu) == routine, seconds=SECONDS, what=f"{cpu} to get to {routine}")
    return run


def fault_of(cpu: Cpu, kind: RaiseKind, argument: int = 0) -> Fault:
    """The fault that RAISE of this kind gives."""
    with pytest.raises(CpuFaulted) as caught:
        cpu.raise_fault(kind, argument, seconds=SECONDS)
    return caught.value.fault


def wait_faulted(cpu: Cpu) -> Fault:
    """The fault of a CPU that becomes FAULTED by itself."""
    wait_status(cpu, CpuStatus.FAULTED)
    fault = cpu.driver.fault(cpu.number)
    assert fault is not None
    return fault


# --- where it was -----------------------------------------------------------------------------------------------------


def kernel_code() -> Linked:
    return image.kernel().linked


def offset(address: int) -> int:
    """Where in the image a running CPU's address is."""
    return address - IMAGE_VA


def line_at(rip: int) -> LinkedLine:
    """The kernel's line with the instruction at an address of a running CPU."""
    line = _find(lambda line: line.vaddr == offset(rip))
    assert line is not None, f"no instruction of the kernel begins at {rip:#x}"
    return line


def line_before(rip: int) -> LinkedLine:
    """The line whose instruction ends there: what a trap has executed."""
    line = _find(lambda line: line.vaddr + line.size == offset(rip))
    assert line is not None, f"no instruction of the kernel ends at {rip:#x}"
    return line


def _find(fits: Callable[[LinkedLine], bool]) -> LinkedLine | None:
    return next((line for line in kernel_code().lines if line.is_instruction and fits(line)), None)


def instruction(line: LinkedLine) -> str:
    """A line's source without its label, one space between the words."""
    return " ".join(re.sub(r"^\s*[.\w]+:", "", line.source).split())


def routine_of(session: Session, cpu: Cpu) -> str:
    """QEMU's own view: the routine that the CPU is in, for a moment in which nothing moves."""
    with paused(session):
        return line_at(session.machine.registers(cpu.number).rip).routine


def assert_halted_in(session: Session, cpu: Cpu, routine: str) -> None:
    """QEMU's own view: the CPU sleeps in this routine of the kernel."""

    def halted() -> bool:
        seen = session.machine.registers(cpu.number)
        line = _find(lambda line: line.vaddr + line.size == offset(seen.rip))
        return seen.halted and line is not None and line.routine == routine

    wait_until(halted, seconds=SECONDS, what=f"{cpu} to halt in {routine}")


@contextmanager
def paused(session: Session) -> Iterator[None]:
    """No CPU executes anything within."""
    session.machine.stop()
    try:
        yield
    finally:
        session.machine.cont()


def shared_bytes(cpu: Cpu) -> bytes:
    """The command page without what every arrival stamps into it."""
    page = bytearray(cpu.driver.command_memory(cpu.number))
    start, end = int(CommandPage.abi_version), int(CommandPage.sequence)
    page[start:end] = bytes(end - start)
    for offset, value in RESET_CONTEXT.items():
        found = int.from_bytes(page[offset : offset + 4], "little")
        assert found == value if value else found, f"reset value of the context at {offset:#x}: {found:#x}"
        page[offset : offset + 4] = bytes(4)
    return bytes(page)
