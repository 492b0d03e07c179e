"""How a machine with Linux ends: by the guest's panic, and in an orderly way."""

from pathlib import Path

import pytest

from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.machine import MachineDied
from tests.support.stock_linux import StockLinux

pytestmark = pytest.mark.timeout(300)


def test_a_guest_that_panics_ends_the_machine(stock_linux: StockLinux, run_directory: Path) -> None:
    with LinuxSession(kernel=stock_linux.kernels["stable"], smp=1, baseline="one", directory=run_directory) as session:
        command = session.guest.start("sleep 1000")
        session.guest.start("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")
        with pytest.raises(MachineDied, match="exit status 0: Kernel panic - not syncing: sysrq triggered crash\n"):
            command.wait(60)
        with pytest.raises(MachineDied):
            session.guest.run("true")


def test_power_off(stock_linux: StockLinux, run_directory: Path) -> None:
    with LinuxSession(kernel=stock_linux.kernels["stable"], smp=2, baseline="all", directory=run_directory) as session:
        assert session.online_cpus() == {0, 1}
        session.guest.power_off()
        assert session.machine.process.exit_status == 0
