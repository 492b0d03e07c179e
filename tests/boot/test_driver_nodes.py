"""Two nodes, and CPUs that policy leaves to Linux: they come online by themselves, and the response interrupt moves."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.layout import CpuStatus
from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import wait_until
from tests.support.booted import fresh_directory
from tests.support.kernel_log import KernelLog
from tests.support.linux_client import complaints, ctl
from tests.support.linux_driver import CLASS, case, found, response, states, status, switch, unload, used
from tests.support.stock_linux import StockLinux

SMP = 8
LEFT = 2
BASES = {0, 4}
OURS = sorted(set(range(SMP)) - BASES - {LEFT})
SECONDS = 60

TOPOLOGY = re.compile(r"topology_sane|Call Trace:")
"""What Linux says once, when a CPU comes online, of a machine whose NUMA nodes share a socket's cache."""


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, which: Which, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    left = f"sidecar.linux_cpus={LEFT}"
    with stock_linux.guest(fresh_directory(request), smp=SMP, numa=2, which=which, append=left) as booted:
        yield booted


@pytest.fixture(autouse=True)
def the_kernel_is_content(request: pytest.FixtureRequest) -> Iterator[None]:
    if "session" not in request.fixturenames:
        yield
        return
    log = KernelLog(request.getfixturevalue("session"))
    yield
    unexpected = log.complaints()
    if any("topology_sane" in line for line in unexpected):
        unexpected = [line for line in unexpected if not TOPOLOGY.search(line)]
    assert unexpected == []


def wait_online(session: LinuxSession, cpus: set[int], log: KernelLog) -> None:
    def there() -> bool:
        return session.online_cpus() == cpus and "CPUs online in" in log.text

    wait_until(there, seconds=SECONDS, what=f"CPUs {sorted(cpus)} to come online", interval=0.1)


def test_linuxs_cpus_stay_offline_if_that_is_wanted(session: LinuxSession) -> None:
    session.load_driver("online=0")
    assert [response(session, node)[0] for node in (0, 1)] == [0, 0]
    assert ctl(session, "ping").status == 0
    assert session.online_cpus() == {0}
    unload(session)
    assert [response(session, node) for node in (0, 1)] == [(0, 0), (0, 0)]


def test_linuxs_cpus_come_online(session: LinuxSession) -> None:
    log = KernelLog(session)
    session.load_driver()
    wait_online(session, BASES | {LEFT}, log)
    text = log.text
    for cpu in (4, LEFT):
        assert f"sidecar: CPU {cpu} is Linux's: brought online" in text
    assert "sidecar: brought 2 CPUs online in" in text
    assert [response(session, node)[0] for node in (0, 1)] == [0, 4]
    assert states(session) == {cpu: "available" if cpu in OURS else "removed" for cpu in range(SMP)}
    answers = ctl(session, "ping", "--json").data["cpus"]
    assert [one["linux_number"] for one in answers if one["answered"]] == OURS


def interrupts(session: LinuxSession) -> int:
    """Of node 1."""
    return int(session.guest.read(f"{CLASS}/sidecar1/interrupts"))


def test_the_response_interrupt_moves_with_the_base_cpu(session: LinuxSession) -> None:
    """To the first CPU of Linux and back; what runs ends as always."""
    for online, where in ((False, 0), (True, 4)):
        switch(session, 4, online)
        assert response(session, 1)[0] == where
        assert session.guest.read(f"{CLASS}/sidecar1/response_cpu") == f"{where}\n".encode()
        before = interrupts(session)
        assert ctl(session, "ping", "5").status == 0
        assert interrupts(session) > before


def test_commands_while_the_response_interrupt_moves(session: LinuxSession) -> None:
    """No end of a command is lost, whichever CPU is told of it."""
    client = session.guest.start(["sidecarctl", "ping", "5", "6", "7", "--count", "500"])
    moves = 0
    while client.running and moves < 20:
        switch(session, 4, moves % 2 == 1)
        moves += 1
    client.wait(SECONDS).check()
    if 4 not in session.online_cpus():
        switch(session, 4, True)
    assert moves >= 2
    assert response(session, 1)[0] == 4


def test_a_base_cpu_that_cannot_go_keeps_the_interrupt(session: LinuxSession) -> None:
    """Its way offline fails after the interrupt has moved; Linux brings it back, and the interrupt with it."""
    assert case(session, "offline_fails", 4, "workqueue:online") == {"offline": "EAGAIN"}
    assert response(session, 1)[0] == 4
    assert ctl(session, "ping", "5").status == 0


def test_linuxs_own_cpus_are_left_alone(session: LinuxSession) -> None:
    switch(session, LEFT, False)
    assert ctl(session, "ping", str(LEFT)).status != 0
    switch(session, LEFT, True)
    assert session.online_cpus() == BASES | {LEFT}


def test_without_the_driver_linux_switches_base_cpus_too(session: LinuxSession) -> None:
    unload(session)
    for cpu in (4, LEFT):
        switch(session, cpu, False)
    switch(session, 4, True)
    assert used(session, 4)
    log = KernelLog(session)
    session.load_driver()
    wait_online(session, BASES | {LEFT}, log)
    assert response(session, 1)[0] == 4
    assert [status(session, cpu) for cpu in OURS] == [CpuStatus.IDLE] * len(OURS)
    assert ctl(session, "ping", "3", "5").status == 0


def test_a_cpu_alone_in_its_numa_node_is_linuxs(stock_linux: StockLinux, which: Which, run_directory: Path) -> None:
    """Upstream: a node without a CPU for the sidecar hung the start. Here it is none, and somebody onlines its CPU."""
    with stock_linux.guest(run_directory, smp=3, numa=2, which=which) as session:
        alone = [cpu.linux_number for cpu in found(session).cpus if cpu.node is None]
        assert len(found(session).nodes) == 1
        assert len(alone) == 1
        log = KernelLog(session)
        session.load_driver()
        wait_online(session, {0, *alone}, log)
        assert used(session, alone[0])
        assert ctl(session, "ping").status == 0
        assert [line for line in complaints(session) if not TOPOLOGY.search(line)] == []
