"""Sleep, panic, reboot, and a Linux whose APICs are in the wrong mode."""

from pathlib import Path

import pytest

from sidecar.layout import CpuStatus, RaiseKind
from sidecar.qemu.waiting import wait_until
from tests.support.linux_client import complaints, ctl
from tests.support.linux_driver import refusal, response, status
from tests.support.linux_kexec import kexec_finds_every_cpu
from tests.support.stock_linux import StockLinux

DEAD_SECONDS = 30


def test_sleep_is_refused(stock_linux: StockLinux, run_directory: Path) -> None:
    with stock_linux.guest(run_directory, smp=3) as session:
        session.load_driver()
        kinds = session.guest.read("/sys/power/state").decode().split()
        assert "freeze" in kinds
        for kind in kinds:
            assert session.guest.run(f"echo {kind} > /sys/power/state").status != 0
        assert session.guest.log().count("the machine cannot sleep while the sidecar has CPUs") == len(kinds)
        assert ctl(session, "ping").status == 0
        assert complaints(session) == []


def test_a_panic_ends_the_notification(stock_linux: StockLinux, run_directory: Path) -> None:
    """Linux stays where it is; the CPUs of the sidecar are idle and call nobody."""
    with stock_linux.guest(run_directory, smp=3, append="panic=0") as session:
        session.load_driver()
        assert response(session)[1] >= 32
        session.guest.start("echo c > /proc/sysrq-trigger")
        wait_until(lambda: "Kernel panic" in session.console, seconds=DEAD_SECONDS, what="the panic")
        wait_until(lambda: response(session) == (0, 0), seconds=DEAD_SECONDS, what="the end of the notification")
        assert [status(session, cpu) for cpu in (1, 2)] == [CpuStatus.IDLE, CpuStatus.IDLE]


@pytest.mark.parametrize("kind", [RaiseKind.WAIT_FOR_STOP, RaiseKind.SPIN])
def test_a_reboot_with_a_command_running(stock_linux: StockLinux, run_directory: Path, kind: RaiseKind) -> None:
    """QEMU ends where the machine would start again; its memory is still there to be looked at."""
    with stock_linux.guest(run_directory, smp=3) as session:
        session.load_driver()
        command = ["--command", "raise", "--kind", kind.name.lower(), "--seconds", "500"]
        session.guest.start(["sidecarctl", "run", "1", *command])
        wait_until(lambda: status(session, 1) == CpuStatus.RUN, seconds=DEAD_SECONDS, what="the command")
        session.guest.start("echo 1 > /proc/sys/kernel/sysrq; reboot -f")
        wait_until(lambda: not session.machine.alive, seconds=DEAD_SECONDS, what="the reboot")
        assert response(session) == (0, 0)
        assert status(session, 2) == CpuStatus.IDLE
        assert status(session, 1) == (CpuStatus.IDLE if kind is RaiseKind.WAIT_FOR_STOP else CpuStatus.STOP)
        spins = "index 1): runs a command that does not end: halted by INIT" in session.console
        assert spins == (kind is RaiseKind.SPIN)


def test_linux_in_xapic_mode_is_refused_with_the_remedy(stock_linux: StockLinux, run_directory: Path) -> None:
    with stock_linux.guest(run_directory, smp=3, append="nox2apic") as session:
        text = refusal(session)
        assert "Linux runs the APICs in xAPIC mode" in text
        assert "-device intel-iommu,intremap=on,eim=on" in text
        assert complaints(session) == []


def test_after_kexec_the_driver_finds_every_cpu(stock_linux: StockLinux, run_directory: Path) -> None:
    kexec_finds_every_cpu(stock_linux, run_directory, "stable")
