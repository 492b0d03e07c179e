"""`sidecar boot` with Linux: kernels and headers of the user's, and guests that end in every way they can."""

import json
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.qemu.linux.initramfs import initramfs
from sidecar.qemu.linux.kernels import WHICH, Which
from sidecar.qemu.linux.userland import guest_root
from tests.support.linux_cli import SHELL, Shell
from tests.support.program_server import PROGRAMS
from tests.support.stock_linux import StockLinux

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("stock_linux")]
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("which", WHICH)
def test_a_kernel_of_the_users_with_headers(stock_linux: StockLinux, which: Which, capfd: Capture) -> None:
    kernel = stock_linux.kernels[which]
    assert main(["boot", "--smp", "2", "--kernel", str(kernel.image), "--headers", str(kernel.headers), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["backing"], told["kernel"]) == ("driver", kernel.version)


def test_the_kernel_of_the_backports_by_name(stock_linux: StockLinux, capfd: Capture) -> None:
    assert main(["boot", "--smp", "2", "--kernel", "backports", "--exec", "uname -r"]) == 0
    assert capfd.readouterr().out.strip() == stock_linux.kernels["backports"].version


@pytest.mark.parametrize(("smp", "numa"), [(3, 1), (6, 2)])
def test_a_baseline_has_all_cpus(capfd: Capture, smp: int, numa: int) -> None:
    assert main(["boot", "--smp", str(smp), "--numa", str(numa), "--baseline", "all"]) == 0
    assert capfd.readouterr().out.count("  online") == smp


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("reboot -f; sleep 1000", "QEMU ended with exit status 0: the guest rebooted, which ends the machine"),
        ("poweroff -f; sleep 1000", "QEMU ended with exit status 0: the guest powered off"),
        ("echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger; sleep 1000",
         "the guest's agent does not answer any more: it was asked 100 s ago"),
    ],
)  # fmt: skip
def test_a_guest_that_ends_under_its_command(capfd: Capture, command: str, sentence: str) -> None:
    """The last one panics and stands still."""
    assert main(["boot", "--smp", "3", "--exec", command]) == 1
    assert sentence in capfd.readouterr().err


def test_kexec_under_a_command(stock_linux: StockLinux, capfd: Capture, tmp_path: Path) -> None:
    """The second Linux's agent says that whatever ran before is gone."""
    kernel = stock_linux.kernels["stable"]
    (tmp_path / "kernel").write_bytes(kernel.image.read_bytes())
    (tmp_path / "initramfs").write_bytes(initramfs(kernel, guest=guest_root()))
    files = (tmp_path / "kernel", tmp_path / "initramfs", PROGRAMS / "kexec.py")
    copies = [word for file in files for word in ("--copy-in", str(file))]
    assert main(["boot", "--smp", "3", *copies, "--exec", "python3 /root/kexec.py && sleep 1000"]) == 1
    assert "the guest's agent has started anew, and the command is gone" in capfd.readouterr().err


@pytest.mark.parametrize(("keys", "status"), [(b"\x1d", 0), (b"poweroff -f\r", 0), (b"reboot -f\r", 0)])
def test_ways_out_of_a_shell(keys: bytes, status: int) -> None:
    """Ctrl-] and the guest's own end."""
    with Shell(SHELL, "--smp", "2") as shell:
        shell.type(keys)
        assert shell.wait() == status


def test_a_shell_in_a_guest_that_panics() -> None:
    with Shell(SHELL, "--smp", "2") as shell:
        shell.type(b"echo c > /proc/sysrq-trigger\r")
        shell.read_until(b"sidecar: QEMU ended with exit status 0: Kernel panic")
        assert shell.wait() == 1
