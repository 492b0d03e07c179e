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
from sidecar.layout.run import RunEnd
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from tests.support import cpus, guests, hostile

SEEDS = int(os.environ.get("SIDECAR_SEEDS", "200"))
FIRST = int(os.environ.get("SIDECAR_SEED", "0"))
IMAGE_BYTES = 0x8000
"""Headers, code and read-only data of the sidecar."""


@pytest.fixture
def machine(run_directory: Path) -> Iterator[Session]:
    """Not the one that others share: every seed takes some of its RAM, and SIDECAR_SEEDS may be large."""
    with Session(smp=3, directory=run_directory) as session:
        yield session


@pytest.fixture
def neighbour(machine: Session) -> Iterator[HostedVp]:
    """Another guest, which counts all the time."""
    with guests.virtual_processor(machine, 2) as vp:
        guests.start_long(vp, f"mov edi, {guests.DATA}\n again: inc qword ptr [rdi]\n cpuid\n jmp again")
        run = vp.start()
        yield vp
        assert run.stop()
        run.wait(seconds=cpus.SECONDS)
        assert vp.outcome().end is RunEnd.CANCELLED


@pytest.mark.timeout(1200)
def test_guests_that_do_whatever_they_can(machine: Session, neighbour: HostedVp) -> None:
    before, count = cpus.faults(machine.cpus[1]), guests.quad(neighbour, guests.DATA)
    image = machine.machine.ram.read(machine.found.image_pa, IMAGE_BYTES)
    ends = dict.fromkeys(RunEnd, 0)
    for seed in range(FIRST, FIRST + SEEDS):
        with guests.virtual_processor(machine, 1, memory_bytes=hostile.MEMORY_BYTES) as vp:
            try:
                for end in hostile.attack(machine, vp, random.Random(seed)):
                    ends[end] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error
    assert cpus.faults(machine.cpus[1]) == before
    assert machine.machine.ram.read(machine.found.image_pa, IMAGE_BYTES) == image
    assert guests.quad(neighbour, guests.DATA) > count
    for cpu in (1, 2):
        assert machine.cpus[cpu].status in (CpuStatus.IDLE, CpuStatus.RUN)
    assert all(ends[end] for end in (RunEnd.INTERCEPT, RunEnd.TIME_LIMIT, RunEnd.NOTIFIED)), ends
