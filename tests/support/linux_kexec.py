"""The same Linux once more by kexec, beside a sidecar that knows nothing of it."""

from pathlib import Path

from sidecar.layout import PAGE_SIZE, CpuStatus, DiagnosticPage, PrivatePage
from sidecar.layout.x86 import Efer
from sidecar.protocol.recorder import Event, events
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux.initramfs import initramfs
from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux.userland import guest_root
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import WaitedInVain, wait_until
from tests.support.linux_client import complaints, ctl
from tests.support.linux_driver import PATIENT, found, response, states, status, switch, wait_settled
from tests.support.linux_vmm import Counter, Vmm
from tests.support.program_server import PROGRAMS
from tests.support.stock_linux import StockLinux

SMP = 5
BOOT_SECONDS = 120
AGENT_SECONDS = 60


def kexec_finds_every_cpu(stock_linux: StockLinux, directory: Path, which: Which) -> None:
    """Before: one CPU is Linux's, one has been, one runs a command, one a guest. Afterwards all are the sidecar's.

    Those that were idle in the end go on as they were, without a new arrival.
    """
    kernel, driver = stock_linux.kernels[which], stock_linux.drivers[which]
    files = {"kernel": kernel.image.read_bytes(), "initramfs": initramfs(kernel, guest=guest_root(), driver=driver)}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    copies = [directory / name for name in files]
    with LinuxSession(
        kernel=kernel, smp=SMP, driver=driver, copy_in=copies, append="sidecar.tests", directory=directory / "machine"
    ) as session:
        session.load_driver(PATIENT)
        switch(session, 1, True)
        switch(session, 2, True)
        switch(session, 2, False)
        session.guest.put(PROGRAMS / "kexec.py", "/root/kexec.py")
        session.guest.start(["sidecarctl", "run", "3", "--command", "raise", "--kind", "spin", "--seconds", "500"])
        wait_until(lambda: states(session)[3] != "available", seconds=AGENT_SECONDS, what="the command")
        vmm = Vmm(session)
        vmm.claim(4)
        vmm.start_counter(4)
        counter = Counter(session, 4)
        before = {cpu: diagnostic(session, cpu) for cpu in range(1, SMP)}
        session.guest.start(["python3", "/root/kexec.py"])
        last = counter.wait_forgotten()
        assert status(session, 4) == CpuStatus.IDLE
        wait_until(lambda: user_spaces(session) == 2, seconds=BOOT_SECONDS, what="the second Linux", interval=0.1)
        assert response(session) == (0, 0)
        assert counter.stands_still_since(last)
        registers = session.machine.registers(4)
        assert (registers.halted, registers.efer & Efer.SVME) == (True, 0)
        wait_until(lambda: answers(session), seconds=AGENT_SECONDS, what="the second agent", interval=0.5)
        assert session.online_cpus() == {0}
        session.load_driver(PATIENT)
        wait_settled(session)
        assert states(session) == {0: "removed"} | dict.fromkeys(range(1, SMP), "available")
        after = {cpu: diagnostic(session, cpu) for cpu in range(1, SMP)}
        assert [arrivals(after[cpu]) - arrivals(before[cpu]) for cpu in range(1, SMP)] == [1, 0, 1, 0]
        assert all(goes_on(before[cpu], after[cpu]) for cpu in range(1, SMP))
        assert ctl(session, "ping").status == 0
        with Vmm(session) as vmm:
            vmm.claim(4)
            vmm.start_counter(4)
        switch(session, 4, True)
        switch(session, 4, False)
        assert complaints(session) == []


def user_spaces(session: LinuxSession) -> int:
    """How often /init has run."""
    session.machine.check()
    return session.console.count("guest: time")


def answers(session: LinuxSession) -> bool:
    try:
        return session.guest.run("test $(cut -d. -f1 /proc/uptime) -lt 1000", 5).status == 0
    except (WaitedInVain, GuestError):  # sent to the first agent
        return False


def diagnostic(session: LinuxSession, cpu: int) -> bytes:
    where = found(session)
    return session.machine.ram.read(where.private_page_pa(where.cpu(cpu), PrivatePage.DIAGNOSTIC), PAGE_SIZE)


def arrivals(page: bytes) -> int:
    return int(DiagnosticPage.parse(page).boot.arrivals)


def goes_on(before: bytes, after: bytes) -> bool:
    """The later recorder has what the earlier one had last, and more."""
    earlier, later = events(before), {one.number: one for one in events(after)}
    kept: list[Event] = [one for one in earlier if one.number in later]
    return bool(kept) and all(later[one.number] == one for one in kept) and max(later) > earlier[-1].number
