"""Cancels and doorbells that race a guest's entries and exits: none may be lost, none invented.

The pause before each grows and shrinks through what an entry takes, so that all moments are met.
"""

import random
import time

from sidecar.layout import CpuStatus
from sidecar.layout.run import RunEnd
from sidecar.qemu.hosted_vp import HostedVp
from tests.support import cpus, guests

MASK_64 = (1 << 64) - 1
COUNTS = f"mov edi, {guests.DATA}\n again: inc qword ptr [rdi]\n inc rbx\n jmp again"
HALTS = "again: inc rbx\n hlt\n jmp again"
MOST_SECONDS = 150e-6


def wait_busily(rng: random.Random) -> None:
    """A sleep would be far too coarse."""
    end = time.perf_counter() + rng.random() * MOST_SECONDS
    while time.perf_counter() < end:
        time.sleep(0)


def race_cancels(vp: HostedVp, count: int, rng: random.Random) -> None:
    """A guest that counts in memory and in a register: after each cancel both agree, so it stood between two turns."""
    guests.start_long(vp, COUNTS)
    entered = 0
    for _ in range(count):
        run = vp.start()
        wait_busily(rng)
        assert run.stop()
        run.wait(seconds=cpus.SECONDS)
        outcome = vp.outcome()
        assert (outcome.end, outcome.message, outcome.notifications) == (RunEnd.CANCELLED, None, 0)
        assert vp.cpu.status == CpuStatus.IDLE
        ahead = guests.quad(vp, guests.DATA) - outcome.gps["rbx"]
        assert ahead in (0, 1), "a turn was lost or made twice"
        entered += bool(outcome.guest_entries)
    assert entered > 0


def race_doorbells(vp: HostedVp, count: int, rng: random.Random) -> None:
    """A guest that halts all the time, and a bit at any moment: each comes out once, and no exit is lost beside it."""
    guests.start_long(vp, HALTS)
    advance = halts = 0
    for turn in range(count):
        run = vp.start(advance_rip=advance)
        wait_busily(rng)
        bit = 1 << turn % 64
        vp.ring(bit)
        run.wait(seconds=cpus.SECONDS)
        outcome = vp.outcome()
        assert outcome.end in (RunEnd.INTERCEPT, RunEnd.NOTIFIED)
        advance = int(outcome.end is RunEnd.INTERCEPT)
        halts += advance
        assert outcome.notifications in (0, bit)
        if not outcome.notifications:
            outcome = vp.run(advance_rip=advance)
            assert (outcome.end, outcome.guest_entries, outcome.notifications) == (RunEnd.NOTIFIED, 0, bit)
            advance = 0
    guests.halted(vp.run(advance_rip=advance))
    assert vp.outcome().gps["rbx"] == halts + 1
