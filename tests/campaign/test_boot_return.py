"""CPUs that come and go for a long time, all at once, beside one that works and beside startups nobody asked for."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.protocol.commands import Cpu, raise_request
from sidecar.protocol.errors import CpuFaulted, NothingRuns
from sidecar.qemu.session import Session
from tests.support.booted import most_arrivals, send_startup, wait_parked

ROUNDS = 250
STRIKES = 20_000


def come_and_go(cpu: Cpu) -> None:
    """Every way out of the sidecar and back, in random order."""
    choice = random.Random(cpu.number)
    arrivals, ordered = int(cpu.pages.diagnostic.boot.arrivals), int(cpu.pages.privileged.restart_count)
    for turn in range(1, ROUNDS + 1):
        way = choice.choice(("remove", "restart", "restart a run", "fault"))
        if way == "remove":
            cpu.remove()
            cpu.give_back()
        elif way == "restart a run":
            run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
            cpu.restart()
            with pytest.raises(NothingRuns):
                run.wait()
        else:
            if way == "fault":
                with pytest.raises(CpuFaulted):
                    cpu.raise_fault(RaiseKind.PAGE_FAULT, 0x1000)
            cpu.restart()
        cpu.none()
        assert cpu.status == CpuStatus.IDLE
        assert turn <= cpu.pages.diagnostic.boot.arrivals - arrivals <= cpu.pages.privileged.restart_count - ordered


def test_all_cpus_but_one_come_and_go(run_directory: Path) -> None:
    with Session(smp=16, tests=True, directory=run_directory) as session:
        stays, *go = session.cpus.values()
        with ThreadPoolExecutor(len(go)) as pool:
            busy = [pool.submit(come_and_go, cpu) for cpu in go]
            while not all(one.done() for one in busy):
                stays.none()
            for one in busy:
                one.result()
        assert stays.pages.diagnostic.boot.arrivals <= most_arrivals(session)


def test_startups_that_nobody_asked_for(run_directory: Path) -> None:
    choice = random.Random(64)
    with Session(smp=64, directory=run_directory) as session:
        sidecars = session.found.sidecar_cpus
        for _ in range(STRIKES // len(sidecars)):
            send_startup(session, choice.sample(sidecars, choice.randint(1, len(sidecars))))
        session.backing.drain(60)
        wait_parked(session)
        for cpu in session.cpus.values():
            cpu.none()
            assert cpu.pages.diagnostic.fault.count == 0
