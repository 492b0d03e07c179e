"""How a run ends, who may end it and when: exits, STOP, doorbells, the time limit, and all of them at once."""

import random
import time

import pytest

from sidecar.layout import REQUEST_VECTOR, CpuStatus
from sidecar.layout.run import RunEnd
from sidecar.layout.x86 import Icr
from sidecar.protocol.commands import Cpu
from sidecar.protocol.recovery import interrupt
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support import cpus, guests, vp_races

SPIN = "again:  inc rax\n jmp again"
CANCELS, DOORBELLS = 2000, 8000


def test_a_doorbell_before_the_first_entry(vp: HostedVp) -> None:
    vp.memory[guests.RESET_VECTOR] = 0xF4
    vp.ring(0x8000000000000001)
    vp.ring(2)
    outcome = vp.run()
    assert (outcome.end, outcome.guest_entries, outcome.notifications) == (RunEnd.NOTIFIED, 0, 0x8000000000000003)
    assert (outcome.exit_code, outcome.rip) == (0, 0xFFF0)
    assert vp.privileged.doorbell == 0
    assert guests.halted(vp.run()).notifications == 0


def test_a_stop_before_the_first_entry(hosted: Session, vp: HostedVp) -> None:
    vp.memory[guests.RESET_VECTOR] = 0xF4
    with cpus.paused(hosted):
        run = vp.start()
        assert run.stop()
    run.wait(seconds=cpus.SECONDS)
    outcome = vp.outcome()
    assert (outcome.end, outcome.guest_entries, outcome.message) == (RunEnd.CANCELLED, 0, None)
    guests.halted(vp.run())


@pytest.mark.parametrize("before", ["cli", "sti"])
def test_a_guest_that_spins_is_cancelled_and_goes_on(vp: HostedVp, before: str) -> None:
    guests.start_long(vp, f"{before}\n{guests.COUNT}")
    last = 0
    for _ in range(5):
        run = vp.start()
        guests.wait_for_guest(vp, guests.DATA, last)
        assert run.stop()
        run.wait(seconds=cpus.SECONDS)
        outcome = vp.outcome()
        assert (outcome.end, outcome.message, outcome.gps["rdi"]) == (RunEnd.CANCELLED, None, guests.DATA)
        assert outcome.rip in range(guests.CODE + 1, guests.CODE + 12)
        last = guests.quad(vp, guests.DATA)
        time.sleep(0.01)
        assert guests.quad(vp, guests.DATA) == last, "it still runs"


def test_a_doorbell_while_the_guest_spins(vp: HostedVp) -> None:
    guests.start_long(vp, f"cli\n{guests.COUNT}")
    for bit in (0, 5, 63):
        run = vp.start()
        guests.wait_for_guest(vp, guests.DATA, guests.quad(vp, guests.DATA))
        vp.ring(1 << bit)
        run.wait(seconds=cpus.SECONDS)
        assert (vp.outcome().end, vp.outcome().notifications) == (RunEnd.NOTIFIED, 1 << bit)


def wait_for_request(cpu: Cpu, before: int) -> None:
    wait_until(lambda: cpus.counters(cpu)["requests"] > before, seconds=cpus.SECONDS, what="a request to be taken")


def test_requests_without_a_cause_end_nothing(hosted: Session, vp: HostedVp) -> None:
    guests.start_long(vp, guests.COUNT)
    run = vp.start()
    guests.wait_for_guest(vp, guests.DATA)
    for _ in range(20):
        before = cpus.counters(vp.cpu)["requests"]
        interrupt(hosted.backing, vp.cpu.numbers, Icr.FIXED, REQUEST_VECTOR)
        wait_for_request(vp.cpu, before)
    interrupt(hosted.backing, vp.cpu.numbers, Icr.FIXED, 0x99)
    wait_until(lambda: cpus.stray(vp.cpu).get(0x99, 0) > 0, seconds=cpus.SECONDS, what="a stray interrupt")
    assert vp.cpu.status == CpuStatus.RUN
    assert run.stop()
    run.wait(seconds=cpus.SECONDS)
    outcome = vp.outcome()
    assert outcome.end is RunEnd.CANCELLED
    assert outcome.guest_entries >= outcome.local_exits >= 20


def test_a_time_limit(hosted: Session, vp: HostedVp) -> None:
    guests.start_long(vp, guests.COUNT)
    ticks = hosted.found.tsc_khz * 20
    before = cpus.counters(vp.cpu)["timer"]
    for _ in range(3):
        outcome = vp.run(time_limit=ticks)
        assert (outcome.end, outcome.message) == (RunEnd.TIME_LIMIT, None)
        spent = vp.cpu.ticks()
        assert spent.end - spent.start >= ticks
    assert cpus.counters(vp.cpu)["timer"] >= before + 3
    outcome = vp.run(time_limit=1)
    assert (outcome.end, outcome.guest_entries) == (RunEnd.TIME_LIMIT, 0)


def test_a_time_limit_that_is_not_reached(hosted: Session, vp: HostedVp) -> None:
    guests.start_long(vp, "hlt")
    for limit in (hosted.found.tsc_khz * 60_000, (1 << 64) - 1):
        guests.halted(vp.run(time_limit=limit))
    cpus.wait_asleep(hosted)


# --- races ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_cancels_race_the_guest(vp: HostedVp) -> None:
    vp_races.race_cancels(vp, CANCELS, random.Random(1))


@pytest.mark.timeout(600)
def test_doorbells_race_exits(vp: HostedVp) -> None:
    vp_races.race_doorbells(vp, DOORBELLS, random.Random(2))
