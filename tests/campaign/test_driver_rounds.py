"""The driver for a long time, on both kernels: commands on all CPUs at once, conversion rounds beside them, kexec."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.layout import CpuStatus
from sidecar.qemu.linux.kernels import WHICH, Which
from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.linux_client import complaints, ctl
from tests.support.linux_driver import case, shown, states, status, switch
from tests.support.linux_kexec import kexec_finds_every_cpu
from tests.support.stock_linux import StockLinux

SMP = 8
OURS = range(1, SMP)
ROUNDS = 100
RACE_SECONDS = 120


@pytest.fixture(scope="module", params=WHICH)
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request, request.param), smp=SMP, which=request.param) as booted:
        booted.load_driver()
        yield booted


def test_commands_on_all_cpus_at_once(session: LinuxSession) -> None:
    result = case(session, "races", RACE_SECONDS, seconds=3 * RACE_SECONDS)
    assert result["wrong"] == [0] * (SMP - 1)
    assert result["commands"] > 10_000
    assert complaints(session) == []


def test_clients_killed_at_any_moment(session: LinuxSession) -> None:
    before = [shown(session, cpu, "timeouts") for cpu in (1, 2, 3)]
    assert case(session, "killed", 1000, seconds=900) == {"answers": ["0"], "timeouts": before}


def test_every_cpu_there_and_back(session: LinuxSession) -> None:
    """One CPU after the other goes to Linux, is used, and returns; two others run commands all the time."""
    cpus = [cpu for cpu in OURS if cpu > 2]
    for number in range(ROUNDS):
        load = [session.guest.start(["sidecarctl", "ping", str(cpu), "--count", "50"]) for cpu in (1, 2)]
        for cpu in cpus:
            switch(session, cpu, True)
            used = session.guest.run(["taskset", "-c", str(cpu), "cat", "/proc/self/stat"]).check()
            assert used.stdout.split()[38] == str(cpu)
        for cpu in cpus:
            switch(session, cpu, False)
            assert status(session, cpu) == CpuStatus.IDLE, number
        assert [command.wait(120).status for command in load] == [0, 0]
    assert states(session) == {0: "removed"} | dict.fromkeys(OURS, "available")
    assert {int(shown(session, cpu, "conversions")) for cpu in cpus} == {ROUNDS}
    assert ctl(session, "ping").status == 0
    assert complaints(session) == []


def test_loaded_and_unloaded_beside_hotplug(session: LinuxSession) -> None:
    """Whoever has the CPU when the driver comes or goes."""
    toggle = "echo 1 > /sys/devices/system/cpu/cpu4/online; echo 0 > /sys/devices/system/cpu/cpu4/online"
    hotplug = session.guest.start(f"while :; do {toggle}; done")
    for _ in range(30):
        session.guest.run("rmmod sidecar && modprobe sidecar").check()
        time.sleep(0.1)
    hotplug.kill()
    hotplug.wait(60)
    if 4 in session.online_cpus():
        switch(session, 4, False)
    session.guest.run("sleep 3")
    assert ctl(session, "ping").status == 0
    assert complaints(session) == []


@pytest.mark.parametrize("which", WHICH)
def test_kexec(stock_linux: StockLinux, run_directory: Path, which: Which) -> None:
    kexec_finds_every_cpu(stock_linux, run_directory, which)
