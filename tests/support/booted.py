"""A booted machine in a test: where its files go, which routine an address is in, a CPU sent through the trampoline."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from sidecar.builder.asm import where_is
from sidecar.builder.image import kernel
from sidecar.kernel.fan_out import ATTEMPTS
from sidecar.layout import IMAGE_VA, PAGE_SIZE, BootPhase, TrampolinePage
from sidecar.layout.x86 import Icr
from sidecar.protocol.machine import Cpu
from sidecar.qemu.registers import CpuRegisters
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from sidecar.shim.call import START_TIMEOUT_MS

TESTS = Path(__file__).resolve().parent.parent
RUN_DIRECTORIES = TESTS.parent / "build" / "tests"
ARRIVE_SECONDS = 20


def fresh_directory(request: pytest.FixtureRequest, name: str = "machine") -> Path:
    """An empty directory for a machine that several tests of a module share, kept after them."""
    path = request.path.relative_to(TESTS).with_suffix("")
    directory = RUN_DIRECTORIES / path / re.sub(r"[^\w.-]+", "-", name)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def routine_at(va: int) -> str:
    """The kernel's routine at a virtual address; another text for an address outside of all."""
    return where_is(kernel().linked, va - IMAGE_VA).partition("+")[0]


def transition_root(session: Session) -> int:
    """Physical address of the page tables on which CPUs arrive."""
    page = TrampolinePage.parse(session.machine.read_memory(session.found.trampoline_pa, PAGE_SIZE))
    return int(page.transition_cr3)


def send_startup(session: Session, cpus: Iterable[Cpu]) -> None:
    """INIT to all of the CPUs, then STARTUP to all of them, whatever their status is."""
    chosen = list(cpus)
    for cpu in chosen:
        session.backing.send(cpu.apic_id << 32 | Icr.INIT)
    for cpu in chosen:
        session.backing.send(cpu.apic_id << 32 | Icr.STARTUP | session.found.trampoline_pa // PAGE_SIZE)


def wait_turned_away(session: Session, cpu: int) -> CpuRegisters:
    """Waits until a CPU has come through the trampoline and halts on the transition tables; its registers then."""
    root = transition_root(session)

    def look() -> CpuRegisters | None:
        registers = session.machine.registers(cpu)
        here = registers.halted and registers.cr3 == root and routine_at(registers.rip) == "halt_forever"
        return registers if here else None

    return wait_until(look, seconds=ARRIVE_SECONDS, what=f"CPU {cpu} to halt in halt_forever on the transition tables")


def wait_parked(session: Session) -> dict[int, CpuRegisters]:
    """Waits until every CPU that the sidecar started halts in its park loop; their registers, by Linux number."""

    def look() -> dict[int, CpuRegisters] | None:
        seen = session.machine.all_registers()
        parked = {number: seen[number] for number in session.cpus}
        return parked if all(one.halted and routine_at(one.rip) == "park" for one in parked.values()) else None

    return wait_until(look, seconds=ARRIVE_SECONDS, what="all sidecar CPUs to halt in their park loops")


def most_arrivals(session: Session) -> int:
    """How often a CPU may have come through the trampoline at boot.

    Once, unless a busy host let an attempt pass without an arrival: then those on their way are started again.
    """
    found = session.found
    quick = found.all_idle_tsc - found.first_init_tsc < START_TIMEOUT_MS * found.tsc_khz
    return 1 if quick else ATTEMPTS


def stamps(session: Session, cpu: int) -> dict[BootPhase, int]:
    """The TSC at each phase of the CPU's last arrival."""
    boot = session.driver.pages(cpu).diagnostic.boot
    return {phase: int(boot.stamps[phase]) for phase in BootPhase}
