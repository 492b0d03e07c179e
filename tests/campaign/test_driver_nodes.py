"""Two nodes, and CPUs that policy leaves to Linux: they come online by themselves, and the response interrupt moves."""

import time
from collections.abc import Iterator

import pytest

from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.linux_client import complaints, ctl
from tests.support.linux_driver import CLASS, response, states, switch, unload
from tests.support.stock_linux import StockLinux

SMP = 8
LEFT = 2
BASES = {0, 4}
ONLINE_SECONDS = 60


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=SMP, numa=2, append=f"sidecar.linux_cpus={LEFT}") as booted:
        yield booted


@pytest.fixture(autouse=True)
def the_kernel_is_content(session: LinuxSession) -> Iterator[None]:
    """But for what it says of a machine whose nodes share one socket's cache."""
    yield
    log = complaints(session)
    if any("topology_sane" in line for line in log):
        log = [line for line in log if "topology_sane" not in line and not line.endswith("Call Trace:")]
    assert log == []


def wait_online(session: LinuxSession, cpus: set[int]) -> None:
    deadline = time.monotonic() + ONLINE_SECONDS
    while session.online_cpus() != cpus or "CPUs online in" not in session.guest.log():
        assert time.monotonic() < deadline, session.guest.log()[-2000:]
        time.sleep(0.1)


def test_linuxs_cpus_stay_offline_if_that_is_wanted(session: LinuxSession) -> None:
    session.load_driver("online=0")
    time.sleep(0.5)
    assert session.online_cpus() == {0}
    assert [response(session, node)[0] for node in (0, 1)] == [0, 0]
    assert ctl(session, "ping").status == 0
    unload(session)
    assert [response(session, node) for node in (0, 1)] == [(0, 0), (0, 0)]


def test_linuxs_cpus_come_online(session: LinuxSession) -> None:
    session.load_driver()
    wait_online(session, BASES | {LEFT})
    log = session.guest.log()
    for cpu in (4, LEFT):
        assert f"sidecar: CPU {cpu} is Linux's: brought online" in log
    assert "sidecar: brought 2 CPUs online in" in log
    assert [response(session, node)[0] for node in (0, 1)] == [0, 4]
    assert states(session) == {cpu: "removed" if cpu in BASES | {LEFT} else "available" for cpu in range(SMP)}
    assert ctl(session, "ping").status == 0


def test_the_response_interrupt_moves_with_the_base_cpu(session: LinuxSession) -> None:
    def interrupts() -> int:
        return int(session.guest.read(f"{CLASS}/sidecar1/interrupts"))

    for _ in range(3):
        switch(session, 4, False)
        assert response(session, 1)[0] in (0, LEFT)
        before = interrupts()
        assert ctl(session, "ping", "5").status == 0
        assert interrupts() > before
        switch(session, 4, True)
        assert response(session, 1)[0] == 4
        assert session.guest.read(f"{CLASS}/sidecar1/response_cpu").strip() == b"4"
        before = interrupts()
        assert ctl(session, "ping", "5", "6").status == 0
        assert interrupts() > before


def test_it_also_leaves_a_cpu_that_stood_in(session: LinuxSession) -> None:
    switch(session, 4, False)
    stood_in = response(session, 1)[0]
    if stood_in == LEFT:
        switch(session, LEFT, False)
        assert response(session, 1)[0] == 0
        switch(session, LEFT, True)
    assert ctl(session, "ping", "5").status == 0
    switch(session, 4, True)


def test_linuxs_own_cpus_are_left_alone(session: LinuxSession) -> None:
    switch(session, LEFT, False)
    assert ctl(session, "ping", str(LEFT)).status != 0
    switch(session, LEFT, True)
    assert session.online_cpus() == BASES | {LEFT}
