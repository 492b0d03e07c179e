"""Linux after Linux by kexec beside one sidecar, whose CPUs are left in every state: the next driver re-attaches them.

Those that were fit for it go on as they are: no new arrival, and their recorder goes on where it was. The others are
restarted once. Then every CPU answers, and goes to Linux and back.
"""

from collections.abc import Iterator

import pytest

from sidecar.layout import CpuStatus
from sidecar.protocol.recorder import events
from sidecar.qemu.linux.initramfs import initramfs
from sidecar.qemu.linux.kernels import WHICH
from sidecar.qemu.linux.userland import guest_root
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import wait_until
from tests.support.booted import fresh_directory
from tests.support.linux_client import complaints
from tests.support.linux_driver import PATIENT, response, states, status, switch, used, wait_settled
from tests.support.linux_kexec import answers, arrivals, diagnostic, goes_on, user_spaces
from tests.support.program_server import PROGRAMS
from tests.support.stock_linux import StockLinux

ROUNDS = 3
SMP = 7
IDLE, FAULTED, STOPPED, ENDLESS, LINUXS, RETURNED = OURS = range(1, SMP)
RESTARTED = (ENDLESS, LINUXS)
LEFT = {
    IDLE: CpuStatus.IDLE, FAULTED: CpuStatus.FAULTED, STOPPED: CpuStatus.IDLE, ENDLESS: CpuStatus.STOP,
    LINUXS: CpuStatus.REMOVED, RETURNED: CpuStatus.IDLE,
}  # fmt: skip
BOOT_SECONDS = 300
SECONDS = 120

AGAIN = "cd / && (cat root/first && printf 'root/kernel\\nroot/first\\n' | cpio -o -H newc) > /root/initramfs"
"""The next Linux has in /root what the one after it needs."""


@pytest.fixture(scope="module", params=WHICH)
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    kernel, driver = stock_linux.kernels[request.param], stock_linux.drivers[request.param]
    directory = fresh_directory(request, request.param)
    files = {"kernel": kernel.image.read_bytes(), "first": initramfs(kernel, guest=guest_root(), driver=driver)}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    with LinuxSession(
        kernel=kernel, smp=SMP, driver=driver, copy_in=[directory / name for name in files], append="sidecar.tests",
        directory=directory / "machine",
    ) as booted:  # fmt: skip
        booted.load_driver(PATIENT)
        wait_settled(booted)
        yield booted


def raise_on(session: LinuxSession, cpu: int, kind: str) -> None:
    """A client, which has the CPU do this."""
    session.guest.start(["sidecarctl", "run", str(cpu), "--command", "raise", "--kind", kind, "--seconds", "500"])
    wanted = (CpuStatus.FAULTED,) if kind == "invalid_opcode" else (CpuStatus.RUN,)
    wait_until(lambda: status(session, cpu) in wanted, seconds=SECONDS, what=f"{kind} on CPU {cpu}", interval=0.1)


def leave_in_every_state(session: LinuxSession) -> None:
    raise_on(session, FAULTED, "invalid_opcode")
    raise_on(session, STOPPED, "wait_for_stop")
    raise_on(session, ENDLESS, "spin")
    switch(session, LINUXS, True)
    switch(session, RETURNED, True)
    switch(session, RETURNED, False)


def kexec(session: LinuxSession) -> None:
    """To the next Linux's agent."""
    before = user_spaces(session)
    session.guest.put(PROGRAMS / "kexec.py", "/root/kexec.py")
    session.guest.run(AGAIN, SECONDS).check()
    session.guest.start(["python3", "/root/kexec.py"])
    wait_until(lambda: user_spaces(session) > before, seconds=BOOT_SECONDS, what="the next Linux", interval=0.1)
    assert response(session) == (0, 0)
    wait_until(lambda: answers(session), seconds=SECONDS, what="the next agent", interval=0.5)


def every_cpu_is_usable(session: LinuxSession) -> None:
    session.guest.run("sidecarctl ping", SECONDS).check()
    for cpu in OURS:
        switch(session, cpu, True)
        assert used(session, cpu)
        switch(session, cpu, False)
    assert states(session) == {0: "removed"} | dict.fromkeys(OURS, "available")
    assert [status(session, cpu) for cpu in OURS] == [CpuStatus.IDLE] * len(OURS)
    assert complaints(session) == []


@pytest.mark.timeout(3400)
@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
def test_the_next_driver_re_attaches_every_cpu(session: LinuxSession, number: int) -> None:
    session.guest.run("sidecarctl ping", SECONDS).check()
    leave_in_every_state(session)
    before = {cpu: diagnostic(session, cpu) for cpu in OURS}
    kexec(session)
    assert user_spaces(session) == number + 1
    assert session.online_cpus() == {0}
    assert {cpu: status(session, cpu) for cpu in OURS} == LEFT

    session.load_driver(PATIENT)
    wait_settled(session)
    assert states(session) == {0: "removed"} | dict.fromkeys(OURS, "available")
    after = {cpu: diagnostic(session, cpu) for cpu in OURS}
    came = {cpu: arrivals(after[cpu]) - arrivals(before[cpu]) for cpu in OURS}
    assert came == {cpu: int(cpu in RESTARTED) for cpu in OURS}
    assert {cpu for cpu in OURS if goes_on(before[cpu], after[cpu])} == set(OURS) - {FAULTED}
    assert events(after[FAULTED]) == events(before[FAULTED])
    assert f"CPU {FAULTED} (APIC id 0x{FAULTED:x}, node 0, index {FAULTED}): #UD" in session.guest.log()
    session.guest.run(f"sidecarctl restart {FAULTED}", SECONDS).check()
    assert goes_on(after[FAULTED], diagnostic(session, FAULTED))
    every_cpu_is_usable(session)
