"""Sleep, panic, reboot, kexec, and a Linux whose APICs are in the wrong mode."""

from pathlib import Path

import pytest

from sidecar.layout import CpuStatus, RaiseKind
from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import wait_until
from tests.support.kernel_log import KernelLog
from tests.support.linux_client import complaints, ctl
from tests.support.linux_driver import PATIENT, refusal, response, start_case, status
from tests.support.linux_kexec import kexec_finds_every_cpu
from tests.support.linux_vmm import Counter, Vmm
from tests.support.stock_linux import StockLinux

SECONDS = 60


def test_sleep_is_refused(driven: LinuxSession) -> None:
    kinds = driven.guest.read("/sys/power/state").decode().split()
    assert {"freeze", "disk"} <= set(kinds)
    for kind in kinds:
        log = KernelLog(driven)
        assert driven.guest.run(f"echo {kind} > /sys/power/state").status != 0
        assert "the machine cannot sleep while the sidecar has CPUs" in log.text
    assert ctl(driven, "ping").status == 0


def test_a_panic_ends_the_notification(stock_linux: StockLinux, which: Which, run_directory: Path) -> None:
    """Linux stays where it is; the CPUs of the sidecar are idle or go on, and call nobody."""
    with stock_linux.guest(run_directory, smp=4, which=which, append="panic=0") as session:
        session.load_driver(PATIENT)
        assert response(session)[1] >= 32
        run(session, 3, RaiseKind.WAIT_FOR_STOP)
        session.guest.start("echo c > /proc/sysrq-trigger")
        wait_until(lambda: "Kernel panic" in session.console, seconds=SECONDS, what="the panic")
        wait_until(lambda: response(session) == (0, 0), seconds=SECONDS, what="the end of the notification")
        assert [status(session, cpu) for cpu in (1, 2, 3)] == [CpuStatus.IDLE, CpuStatus.IDLE, CpuStatus.RUN]


@pytest.mark.timeout(300)
def test_a_reboot_with_commands_and_a_guest_running(stock_linux: StockLinux, which: Which, run_directory: Path) -> None:
    """QEMU ends where the machine would start again; its memory is still there to be looked at."""
    with stock_linux.guest(run_directory, smp=5, which=which) as session:
        session.load_driver(PATIENT)
        start_case(session, "until_refused", 4)
        wait_until(lambda: "test: CPU 4 runs" in session.console, seconds=SECONDS, what="a client of CPU 4")
        run(session, 1, RaiseKind.WAIT_FOR_STOP)
        run(session, 2, RaiseKind.SPIN)
        vmm = Vmm(session)
        vmm.claim(3)
        vmm.start_counter(3)
        counter = Counter(session, 3)
        session.guest.start("reboot -f")
        wait_until(lambda: not session.machine.alive, seconds=SECONDS, what="the reboot")
        assert counter.is_forgotten()
        assert response(session) == (0, 0)
        assert [status(session, cpu) for cpu in range(1, 5)] == [
            CpuStatus.IDLE, CpuStatus.STOP, CpuStatus.IDLE, CpuStatus.IDLE,
        ]  # fmt: skip
        assert "index 2): runs a command that does not end: halted by INIT" in session.console
        assert session.console.count("halted by INIT") == 1
        assert "test: CPU 4 is refused: ESHUTDOWN" in session.console


def run(session: LinuxSession, cpu: int, kind: RaiseKind) -> None:
    """A client that runs such a command for as long as it may."""
    command = ["--command", "raise", "--kind", kind.name.lower(), "--seconds", "500"]
    session.guest.start(["sidecarctl", "run", str(cpu), *command])
    wait_until(lambda: status(session, cpu) == CpuStatus.RUN, seconds=SECONDS, what=f"a command on CPU {cpu}")


def test_linux_in_xapic_mode_is_refused_with_the_remedy(
    stock_linux: StockLinux, which: Which, run_directory: Path
) -> None:
    with stock_linux.guest(run_directory, smp=3, which=which, append="nox2apic") as session:
        text = refusal(session)
        assert "Linux runs the APICs in xAPIC mode" in text
        assert "-device intel-iommu,intremap=on,eim=on" in text
        assert complaints(session) == []


@pytest.mark.timeout(300)
def test_after_kexec_the_driver_finds_every_cpu(stock_linux: StockLinux, which: Which, run_directory: Path) -> None:
    kexec_finds_every_cpu(stock_linux, run_directory, which)
