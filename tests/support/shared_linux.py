"""One machine with Linux in it for many tests, each of which finds it as the first one did."""

from pathlib import Path

from sidecar.layout import CpuStatus
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_driver import CLASS, PARAMETERS, case, states, status, switch, unload, wait_settled
from tests.support.shared_machine import SharedMachine
from tests.support.stock_linux import StockLinux

SMP = 8
OURS = range(1, SMP)
AS_BOOTED = {0: "removed"} | dict.fromkeys(OURS, "available")
PATIENCE_MS = 60_000
"""The driver's bound for what happens at once on a host that is not busy."""


class SharedLinux(SharedMachine[LinuxSession]):
    """Of SMP CPUs, with the kernel `which` and the driver built for it."""

    unusable = (*SharedMachine.unusable, GuestError)

    def __init__(self, stock_linux: StockLinux, which: Which, directory: Path) -> None:
        super().__init__(directory)
        self._which: Which = which
        self._stock_linux = stock_linux

    def driven(self) -> LinuxSession:
        """The machine with the driver loaded and patient, and with all CPUs but the first for commands."""
        return self._prepared(drive)

    def bare(self) -> LinuxSession:
        """The same, and then the driver unloaded."""
        return self._prepared(bare)

    def _boot(self, directory: Path) -> LinuxSession:
        return self._stock_linux.guest(directory, smp=SMP, which=self._which)


def drive(session: LinuxSession) -> None:
    """Raises GuestError if the driver cannot be loaded, or unloaded, or a CPU does not come back."""
    if session.guest.run(f"test -d {CLASS}").status != 0:
        session.load_driver()
        wait_settled(session)
    if states(session) != AS_BOOTED:
        for cpu in session.online_cpus() - {0}:
            switch(session, cpu, False)
        unload(session)
        session.load_driver()
        wait_settled(session)
        if (found := states(session)) != AS_BOOTED:
            raise GuestError(f"the CPUs are not as booted: {found}")
    session.guest.run(f"echo {PATIENCE_MS} > {PARAMETERS}/timeout_ms").check()


def bare(session: LinuxSession) -> None:
    drive(session)
    unload(session)


def there_and_back(session: LinuxSession, *, rounds: int, seconds: float) -> None:
    """CPU after CPU goes to Linux, is used and returns, `rounds` times, while clients command all of them."""
    result = case(session, "there_and_back", rounds, *OURS, seconds=seconds)
    assert result["failed"] == []
    assert result["conversions"] == [rounds] * len(OURS)
    assert result["wrong"] == [0] * len(OURS)
    assert min(result["commands"]) >= rounds
    assert sum(result["away"]) > 0
    assert sum(result["told"]) > 0
    assert states(session) == AS_BOOTED
    assert [status(session, cpu) for cpu in OURS] == [CpuStatus.IDLE] * len(OURS)
