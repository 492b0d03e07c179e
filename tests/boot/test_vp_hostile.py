"""Guests that do whatever they can: random code from random legal states. The sidecar, its CPU and the others live on.

Each seed is one guest: its registers and mode are drawn, its memory is filled with code made of pieces that matter
(I/O, MSRs, control registers, SVM, descriptor tables, exceptions) and of random bytes, and it runs until a time limit
while the VMM answers every exit at random. Canaries beside the guest's memory, the sidecar's image and another guest
survive. SIDECAR_SEEDS changes how many, SIDECAR_SEED where they begin.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.layout import CpuStatus
from sidecar.layout.run import RunEnd, RunFlags
from sidecar.protocol.vp_events import exception, external_interrupt, when_interruptible
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from tests.support import cpus, guests, hostile

SEEDS = int(os.environ.get("SIDECAR_SEEDS", "200"))
FIRST = int(os.environ.get("SIDECAR_SEED", "0"))
IMAGE_BYTES = 0x8000
"""Headers, code and read-only data of the sidecar."""

RUNS = 12
"""Runs of one guest."""


@pytest.fixture(scope="module")
def run_directory(request: pytest.FixtureRequest) -> Path:
    return cpus.module_directory(request)


@pytest.fixture(scope="module")
def machine(run_directory: Path) -> Iterator[Session]:
    with Session(smp=3, tests=True, directory=run_directory) as session:
        yield session


@pytest.fixture(scope="module")
def neighbour(machine: Session) -> Iterator[HostedVp]:
    """Another guest, which counts all the time."""
    with guests.virtual_processor(machine, 2) as vp:
        guests.start_long(vp, f"mov edi, {guests.DATA}\n again: inc qword ptr [rdi]\n cpuid\n jmp again")
        run = vp.start()
        yield vp
        assert run.stop()
        run.wait(seconds=cpus.SECONDS)
        assert vp.outcome().end is RunEnd.CANCELLED


def test_guests_that_do_whatever_they_can(machine: Session, neighbour: HostedVp) -> None:
    before, count = cpus.faults(machine.cpus[1]), guests.quad(neighbour, guests.DATA)
    image = machine.machine.ram.read(machine.found.image_pa, IMAGE_BYTES)
    ends = dict.fromkeys(RunEnd, 0)
    for seed in range(FIRST, FIRST + SEEDS):
        with guests.virtual_processor(machine, 1, memory_bytes=hostile.MEMORY_BYTES) as vp:
            try:
                for end in attack(machine, vp, random.Random(seed)):
                    ends[end] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error
    assert cpus.faults(machine.cpus[1]) == before
    assert machine.machine.ram.read(machine.found.image_pa, IMAGE_BYTES) == image
    assert guests.quad(neighbour, guests.DATA) > count
    for cpu in (1, 2):
        assert machine.cpus[cpu].status in (CpuStatus.IDLE, CpuStatus.RUN)
    assert all(ends[end] for end in (RunEnd.INTERCEPT, RunEnd.TIME_LIMIT, RunEnd.NOTIFIED)), ends


def attack(machine: Session, vp: HostedVp, rng: random.Random) -> Iterator[RunEnd]:
    """One guest, to its end; yields how each run ended."""
    canary = hostile.Canary(vp, rng)
    hostile.fill(vp, rng)
    guests.prepare(vp)
    hostile.set_state(vp, rng)
    advance = 0
    for _ in range(RUNS):
        give_something(vp, rng)
        if rng.random() < 0.2:
            vp.ring(1)
        outcome = vp.run(
            time_limit=machine.found.tsc_khz * rng.choice((1, 2, 5)),
            flags=rng.choice((0, RunFlags.CPUID_EXITS)),
            exception_intercepts=rng.choice((0, 0, rng.getrandbits(32), 0xFFFFFFFF)),
            advance_rip=advance,
            rax=rng.getrandbits(64),
        )
        yield outcome.end
        advance = rng.choice((0, 1, 2, 15))
        if outcome.message is not None and hasattr(outcome.message.body, "header"):
            advance = outcome.message.instruction_length or advance
        if rng.random() < 0.1:
            hostile.set_state(vp, rng)
    canary.check()
    assert machine.cpus[1].status == CpuStatus.IDLE


def give_something(vp: HostedVp, rng: random.Random) -> None:
    """An event or a wish for a window, sometimes."""
    choice = rng.random()
    registers = {}
    if choice < 0.15:
        registers = {"HvRegisterPendingEvent0": external_interrupt(rng.randrange(32, 256))}
    elif choice < 0.25:
        vector = rng.choice((0, 1, 3, 4, 6, 8, 13, 14))
        code = rng.getrandbits(16) if vector in (8, 13, 14) else None
        registers = {"HvRegisterPendingEvent0": exception(vector, code, parameter=rng.getrandbits(64))}
    elif choice < 0.4:
        registers = {"HvX64RegisterDeliverabilityNotifications": when_interruptible(rng.randrange(16))}
    if registers:
        vp.cpu.set_registers(registers)
