"""Where the sidecar cannot be used, Linux boots with all CPUs, on both kernels, and the reason is in the log."""

from pathlib import Path

import pytest

from sidecar.qemu.linux.kernels import WHICH, Which
from sidecar.qemu.linux_report import report
from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_client import complaints
from tests.support.stock_linux import StockLinux

FALL_BACKS = {
    "one CPU": (1, "", (), "the machine has one CPU"),
    "switched off": (4, "sidecar=off", (), "sidecar=off on the command line"),
    "all CPUs left to Linux": (4, "sidecar.linux_cpus=1-3", (), "no node has a CPU for the sidecar"),
    "no topology leaf": (4, "", ("-cpu", "max,level=10"),
                         "the CPUs do not tell their x2APIC id (CPUID leaf 0xB)"),
}  # fmt: skip
"""(CPUs, command line, further QEMU arguments, reason)"""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("name", FALL_BACKS)
def test_linux_has_all_cpus(stock_linux: StockLinux, run_directory: Path, name: str, which: Which) -> None:
    smp, append, extra, reason = FALL_BACKS[name]
    with LinuxSession(
        kernel=stock_linux.kernels[which], driver=stock_linux.drivers[which], smp=smp, append=append, extra=extra,
        directory=run_directory,
    ) as session:  # fmt: skip
        assert session.fallback == reason
        assert session.found is None
        assert f"shim: not using the sidecar: {reason}" in session.console
        assert session.online_cpus() == set(range(smp))
        assert session.guest.run("test -e /sys/firmware/acpi/tables/SDCR").status != 0
        assert session.guest.run("modprobe sidecar").status != 0
        assert "no SDCR" in session.guest.log()
        told = report(session)
        assert told.ok
        assert [(cpu.owner, cpu.state) for cpu in told.cpus] == [("linux", "online")] * smp
        assert complaints(session) == []
