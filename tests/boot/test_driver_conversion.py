"""CPUs between the sidecar and Linux through Linux's own switch."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sidecar.layout import PAGE_SIZE, CpuStatus
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.sizes import MIB
from sidecar.qemu.waiting import wait_until
from tests.support.gdb import Gdb
from tests.support.kernel_log import KernelLog
from tests.support.linux_client import ctl
from tests.support.linux_driver import PARAMETERS, case, set_status, shown, states, status, switch, used
from tests.support.shared_linux import AS_BOOTED, OURS, SMP, there_and_back

BUSY_HOST_SECONDS = 50
SECONDS = 60
ROUNDS = 10

TRAMPOLINE = b"\xfa\x0f\x09\xea"
"""CLI, WBINVD, far JMP. Ref: Linux, arch/x86/realmode/rm/trampoline_64.S."""

HALT = b"\xfa\xf4\xeb\xfd"
"""CLI, HLT, and once more."""


def test_what_linux_gets_and_when(driven: LinuxSession) -> None:
    """Claimed, busy, untold and faulted CPUs."""
    log = KernelLog(driven)
    result = case(driven, "converted")
    assert 0.65 <= result.pop("busy seconds") < BUSY_HOST_SECONDS
    assert result == {
        "claimed": [0, "removed", "1"],
        "away": {"START": "ENOENT", "STOP": "ENOENT", "RUN": "ENOENT", "CLAIM": "EBUSY", "RESTART": "ENOENT"},
        "back": [0, "available", 0],
        "told": ["ESTALE", 0],
        "busy": ["EAGAIN", "async", "run"],
        "untold": ["stopped", 0, "removed", True, 0],
        "still untold": ["EBUSY", "EBUSY", [1], "ESTALE", 0],
        "faulted": ["EIO", 0, "removed", 0, "idle", 0, 0],
        "conversions": 3,
    }
    text = log.text
    assert text.count("Linux cannot have it") == 1
    assert "index 1): Linux cannot have it: it is still busy after 700 ms (async)" in text


def test_an_online_waits_for_a_running_command(driven: LinuxSession) -> None:
    """Until it is stopped, or the CPU restarted; another command is not begun before."""
    assert case(driven, "waited_for") == {
        "start": [0, 0],
        "meanwhile": [{}, "async", 1],
        "then": [0, "removed", [1], "async"],
        "back": [0, "ESTALE", 0],
        "restart meanwhile": ["EBUSY", 0],
        "then 2": [0, "removed", "EAGAIN", 0],
        "restarted": [0, 0],
    }


@pytest.mark.parametrize("cpu", [1, 3])
def test_a_busy_client_does_not_keep_linux_waiting(driven: LinuxSession, cpu: int) -> None:
    assert case(driven, "wanted", cpu) == {"online": 0, "client": 7, "offline": 0}


@pytest.mark.parametrize("where", ["cpu:bringup", "workqueue:online", "x86/sidecar:online", "smpboot/threads:online"])
def test_an_online_that_linux_rolls_back(driven: LinuxSession, where: str) -> None:
    """Before INIT, or after Linux has had the CPU: it is back with the sidecar, its pages cleared, the claim kept."""
    assert case(driven, "rolled_back", 2, where) == {
        "online": "EAGAIN", "state": "available", "run": ["ESTALE", 0], "counted": [1, 1], "page": 0,
    }  # fmt: skip
    assert driven.online_cpus() == {0}


def test_a_cpu_that_does_not_come_up_for_linux(driven: LinuxSession) -> None:
    """Linux waits ten seconds for it and gives up; it is back with the sidecar, and the next online succeeds."""
    with changed_code(driven, linux_trampoline(driven), HALT):
        assert case(driven, "refused_once", 5) == {"online": "EIO"}
    assert states(driven) == AS_BOOTED
    assert ctl(driven, "ping", "5").status == 0
    switch(driven, 5, True)
    assert used(driven, 5)
    switch(driven, 5, False)


def linux_trampoline(session: LinuxSession) -> int:
    """The page below 1 MiB in which Linux's CPUs start."""
    low = session.machine.ram.read(0, MIB)
    (found,) = [pa for pa in range(0, MIB, PAGE_SIZE) if low[pa:].startswith(TRAMPOLINE)]
    return found


@contextmanager
def changed_code(session: LinuxSession, pa: int, data: bytes) -> Iterator[None]:
    """Other instructions there, for a while."""
    kept = session.machine.ram.read(pa, len(data))
    socket = session.machine.directory / "gdb"
    socket.unlink(missing_ok=True)
    session.machine.hmp(f"gdbserver unix:{socket},server=on,wait=off")
    try:
        with Gdb(socket) as gdb:
            gdb.write_physical(pa, data)
        yield
        with Gdb(socket) as gdb:
            gdb.write_physical(pa, kept)
    finally:
        session.machine.hmp("gdbserver none")


def test_an_offline_that_linux_rolls_back(driven: LinuxSession) -> None:
    assert case(driven, "not_given_back", 2, "workqueue:online") == {
        "online": 0, "offline": ["EAGAIN", "removed", "removed"], "then": [0, "available", 0],
    }  # fmt: skip


def test_a_removal_is_waited_for_and_no_longer(driven: LinuxSession) -> None:
    """Upstream waited for the wrong value: not at all for a slow CPU, for ever for a fast one.

    A CPU that spins is made to look idle, so that it does not leave when it is asked to; we answer for it.
    """
    spin(driven, 6)
    online = driven.guest.start("echo 1 > /sys/devices/system/cpu/cpu6/online")
    wait_until(lambda: status(driven, 6) == CpuStatus.REMOVE, seconds=SECONDS, what="REMOVE")
    with pytest.raises(TimeoutError):
        online.wait(1)
    assert (shown(driven, 6, "state"), driven.online_cpus()) == ("sync", {0})
    set_status(driven, 6, CpuStatus.REMOVED)
    online.wait(SECONDS).check()
    assert driven.online_cpus() == {0, 6}
    switch(driven, 6, False)
    assert ctl(driven, "ping", "6").status == 0


def test_a_cpu_that_does_not_leave_is_restarted(driven: LinuxSession) -> None:
    spin(driven, 6)
    log = KernelLog(driven)
    driven.guest.run(f"echo 300 > {PARAMETERS}/timeout_ms").check()
    assert case(driven, "refused_once", 6) == {"online": "ETIMEDOUT"}
    assert "index 6): did not end its removal within 300 ms, its status is remove" in log.text
    assert states(driven) == AS_BOOTED
    assert ctl(driven, "ping", "6").status == 0


def spin(session: LinuxSession, cpu: int) -> None:
    """The CPU spins and hears nothing, and for the driver it is idle."""
    command = ["--command", "raise", "--kind", "spin", "--seconds", "500"]
    client = session.guest.start(["sidecarctl", "run", str(cpu), *command])
    wait_until(lambda: status(session, cpu) == CpuStatus.RUN, seconds=SECONDS, what="the command")
    set_status(session, cpu, CpuStatus.IDLE)
    assert ctl(session, "ping", "1").status == 0  # its interrupt has the driver look at all CPUs
    client.wait(SECONDS)
    assert shown(session, cpu, "state") == "available"


@pytest.mark.timeout(300)
def test_every_cpu_there_and_back_beside_commands(driven: LinuxSession) -> None:
    there_and_back(driven, rounds=ROUNDS, seconds=250)


def test_broadcasts_disturb_nobody(driven: LinuxSession) -> None:
    """Once all CPUs have been online Linux would send to all but itself, those that have returned included."""
    for cpu in OURS:
        switch(driven, cpu, True)
    assert driven.online_cpus() == set(range(SMP))
    away = (2, 4)
    for cpu in away:
        switch(driven, cpu, False)
    before = {cpu: (shown(driven, cpu, "stray"), shown(driven, cpu, "requests")) for cpu in away}
    patched = "for on in 1 0 1 0 1 0; do echo $on > /proc/sys/kernel/sched_schedstats; done"
    everybody = "echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory"
    calls = interrupts(driven, "Function call")
    driven.guest.run(f"{patched}; {everybody}").check()
    assert interrupts(driven, "Function call") >= calls + 6 * (SMP - len(away) - 1)
    assert {cpu: (shown(driven, cpu, "stray"), shown(driven, cpu, "requests")) for cpu in away} == before
    assert ctl(driven, "ping", "2", "4").status == 0
    for cpu in set(OURS) - set(away):
        switch(driven, cpu, False)


def interrupts(session: LinuxSession, name: str) -> int:
    """How many interrupts of that name Linux's CPUs have had."""
    line = session.guest.run(f"grep '{name}' /proc/interrupts").check().stdout
    return sum(int(word) for word in line.split() if word.isdigit())


def test_the_boot_cpu_stays(driven: LinuxSession) -> None:
    with pytest.raises(GuestError):
        driven.guest.run("echo 0 > /sys/devices/system/cpu/cpu0/online").check()
