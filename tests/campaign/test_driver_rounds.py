"""The driver for a long time, on both kernels: commands on all CPUs at once, conversion rounds beside them, hotplug."""

import time
from collections.abc import Iterator

import pytest

from sidecar.qemu.linux.kernels import WHICH
from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.kernel_log import KernelLog
from tests.support.linux_client import ctl
from tests.support.linux_driver import PARAMETERS, PATIENT, case, switch, unload, wait_settled
from tests.support.shared_linux import OURS, SMP, there_and_back
from tests.support.stock_linux import StockLinux

ROUNDS = 100
RACE_SECONDS = 120
LONG = 3400


@pytest.fixture(scope="module", params=WHICH)
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request, request.param), smp=SMP, which=request.param) as booted:
        booted.load_driver(PATIENT)
        yield booted


@pytest.fixture(autouse=True)
def the_kernel_is_content(session: LinuxSession) -> Iterator[None]:
    log = KernelLog(session)
    yield
    assert log.complaints() == []


def test_commands_on_all_cpus_at_once(session: LinuxSession) -> None:
    result = case(session, "races", RACE_SECONDS, *OURS, seconds=LONG)
    assert result["wrong"] == [0] * len(OURS)
    assert sum(result["commands"]) > 5_000


def test_whoever_looks_for_the_other_before_it_sleeps(session: LinuxSession) -> None:
    rounds = 5_000
    result = case(session, "polls", rounds, seconds=LONG)
    assert [(way["wrong"], way["commands"], way["timeouts"]) for way in result.values()] == [([], rounds, 0)] * 4
    assert result["both"]["requests"] < rounds
    look = f"for name in poll_us halt_poll_us; do echo {{}} > {PARAMETERS}/$name; done"
    session.guest.run(look.format(300)).check()
    result = case(session, "races", RACE_SECONDS // 2, *OURS, seconds=LONG)
    session.guest.run(look.format(0)).check()
    assert result["wrong"] == [0] * len(OURS)


def test_clients_killed_at_any_moment(session: LinuxSession) -> None:
    assert case(session, "killed", 1000, seconds=LONG) == {"answers": ["0"], "timed out": False}


def test_every_cpu_there_and_back(session: LinuxSession) -> None:
    there_and_back(session, rounds=ROUNDS, seconds=LONG)


def test_loaded_and_unloaded_beside_hotplug(session: LinuxSession) -> None:
    """Whoever has the CPU when the driver comes or goes."""
    toggle = "echo 1 > /sys/devices/system/cpu/cpu4/online; echo 0 > /sys/devices/system/cpu/cpu4/online"
    hotplug = session.guest.start(f"while :; do {toggle}; done 2>/dev/null")
    for _ in range(30):
        session.guest.run(f"rmmod sidecar && modprobe sidecar {PATIENT}").check()
        time.sleep(0.1)
    hotplug.kill()
    hotplug.wait(60)
    if 4 in session.online_cpus():
        switch(session, 4, False)
    unload(session)
    session.load_driver(PATIENT)
    wait_settled(session)
    assert ctl(session, "ping").status == 0
