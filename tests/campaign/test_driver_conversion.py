"""CPUs between the sidecar and Linux through Linux's own switch, with the driver and without it."""

from collections.abc import Iterator

import pytest

from sidecar.layout import CpuStatus
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.linux_client import complaints, ctl
from tests.support.linux_driver import case, shown, states, status, switch, unload, wait_settled
from tests.support.stock_linux import StockLinux

SMP = 6
OURS = range(1, SMP)
BUSY_HOST_SECONDS = 20


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=SMP) as booted:
        booted.load_driver()
        yield booted


@pytest.fixture(autouse=True)
def everything_is_as_before(session: LinuxSession) -> Iterator[None]:
    yield
    assert states(session) == {0: "removed"} | dict.fromkeys(OURS, "available")
    assert ctl(session, "ping").status == 0
    assert complaints(session) == []


def test_what_linux_gets_and_when(session: LinuxSession) -> None:
    """Claimed, busy, untold and faulted CPUs."""
    result = case(session, "converted")
    assert 0.65 <= result.pop("busy seconds") < BUSY_HOST_SECONDS
    assert session.guest.log().count("Linux cannot have it") == 1
    assert result == {
        "claimed": [0, "removed", "1"],
        "away": {"START": "ENOENT", "STOP": "ENOENT", "RUN": "ENOENT", "CLAIM": "EBUSY", "RESTART": "ENOENT"},
        "back": [0, "available", 0],
        "busy": ["EAGAIN", "async"],
        "untold": ["stopped", 0, "removed", True, 0],
        "still untold": ["EBUSY", "EBUSY", [1], 0],
        "faulted": ["EIO", 0, "removed", 0, "idle", 0],
        "conversions": "3",
    }
    assert "index 1): Linux cannot have it: it is still busy after 700 ms (async)" in session.guest.log()


def test_a_busy_client_does_not_keep_linux_waiting(session: LinuxSession) -> None:
    for cpu in (1, 3):
        assert case(session, "wanted", cpu) == {"online": 0, "client": 7, "offline": 0}


@pytest.mark.parametrize("after", ["workqueue:online", "x86/sidecar:online", "smpboot/threads:online"])
def test_an_online_that_linux_rolls_back(session: LinuxSession, after: str) -> None:
    assert case(session, "rolled_back", 2, after) == {"online": "EAGAIN", "state": "available", "run": 0}
    assert session.online_cpus() == {0}
    switch(session, 2, True)
    switch(session, 2, False)


def test_every_cpu_there_and_back(session: LinuxSession) -> None:
    for cpu in OURS:
        for round_number in range(3 if cpu == 1 else 1):
            before = int(shown(session, cpu, "conversions"))
            switch(session, cpu, True)
            assert shown(session, cpu, "state") == "removed", round_number
            assert status(session, cpu) == CpuStatus.REMOVED
            used = session.guest.run(["taskset", "-c", str(cpu), "cat", "/proc/self/stat"]).check()
            assert used.stdout.split()[38] == str(cpu)
            switch(session, cpu, False)
            assert shown(session, cpu, "conversions") == str(before + 1)


def test_all_at_once_and_broadcasts(session: LinuxSession) -> None:
    for cpu in OURS:
        switch(session, cpu, True)
    assert session.online_cpus() == set(range(SMP))
    for cpu in (2, 4):
        switch(session, cpu, False)
    strays = {cpu: shown(session, cpu, "stray") for cpu in (2, 4)}
    everybody = "echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory"
    session.guest.run(f"for i in 1 2 3 4 5; do {everybody}; done")
    assert ctl(session, "ping", "2").status == 0
    assert {cpu: shown(session, cpu, "stray") for cpu in (2, 4)} == strays
    for cpu in (1, 3, 5):
        switch(session, cpu, False)


def test_unloaded_and_loaded_again(session: LinuxSession) -> None:
    """What Linux has it keeps; what it took and let go of meanwhile comes back."""
    switch(session, 1, True)
    unload(session)
    assert session.online_cpus() == {0, 1}
    switch(session, 2, True)      # without the driver: INIT takes an idle CPU
    switch(session, 3, True)
    switch(session, 3, False)     # left in Linux's play_dead
    assert status(session, 2) == CpuStatus.IDLE
    session.load_driver()
    assert status(session, 2) == CpuStatus.REMOVED
    assert states(session)[1] == states(session)[2] == "removed"
    assert "index 3): does not answer: restarting it" in session.guest.log()
    wait_settled(session)
    switch(session, 1, False)
    switch(session, 2, False)


def test_returned_at_loading(session: LinuxSession) -> None:
    """A CPU that was Linux's when the driver went, and is nobody's when it comes."""
    switch(session, 4, True)
    unload(session)
    switch(session, 4, False)
    assert status(session, 4) == CpuStatus.REMOVED
    session.load_driver()
    wait_settled(session)
    assert "index 4): is back with the sidecar" in session.guest.log()


def test_the_boot_cpu_is_not_ours(session: LinuxSession) -> None:
    with pytest.raises(GuestError):
        session.guest.run("echo 0 > /sys/devices/system/cpu/cpu0/online").check()
