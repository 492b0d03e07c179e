"""`sidecar boot` with Linux as a user calls it: the report, a command's status, a shell, a guest that ends.

What is slower, and how the tool ends when a guest does so otherwise, is in tests/campaign.
"""

import json
from pathlib import Path

import pytest

from sidecar.__main__ import main
from tests.support.linux_cli import SHELL, Shell
from tests.support.stock_linux import StockLinux

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("stock_linux")]
Capture = pytest.CaptureFixture[str]


def boot(capfd: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit status and both outputs."""
    status = main(["boot", *arguments])
    out, err = capfd.readouterr()
    return status, out, err


def test_the_report_of_a_machine_with_the_sidecar(capfd: Capture) -> None:
    status, out, error = boot(capfd, "--smp", "4", "--json")
    assert status == 0, error
    told = json.loads(out)
    assert (told["mode"], told["backing"], told["fallback"], told["problems"], told["ok"]) == (
        "sidecar", "driver", None, [], True,
    )
    assert [(cpu["linux"], cpu["owner"], cpu["state"], cpu["answered"]) for cpu in told["cpus"]] == [
        (0, "linux", "online", None),
        *((number, "sidecar", "idle", True) for number in (1, 2, 3)),
    ]
    assert [stamp["what"] for stamp in told["timeline"]] == [
        "QEMU start", "shim", "sidecar", "first INIT", "all CPUs idle", "Linux", "user space",
    ]  # fmt: skip
    times = [stamp["seconds"] for stamp in told["timeline"]]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(told["user_space_seconds"], abs=0.001)
    assert "sidecar: Linux is up" in error


def test_a_kernel_of_the_users_without_headers(capfd: Capture, stock_linux: StockLinux) -> None:
    """Without a driver the guest commands its CPUs by /dev/mem; the CPUs that are Linux's are online all the same."""
    image = stock_linux.kernels["stable"].image
    status, out, error = boot(
        capfd, "--smp", "4", "--kernel", str(image), "--append", "sidecar.linux_cpus=2 quiet", "--json"
    )
    assert status == 0, error
    told = json.loads(out)
    assert (told["backing"], told["kernel"]) == ("no-module", stock_linux.kernels["stable"].version)
    assert [(cpu["owner"], cpu["state"]) for cpu in told["cpus"]] == [
        ("linux", "online"), ("sidecar", "idle"), ("linux", "online"), ("sidecar", "idle"),
    ]  # fmt: skip


def test_a_baseline_is_compared_with_the_sidecar(capfd: Capture) -> None:
    """The same machine was booted beside the sidecar above, or some other time."""
    status, out, error = boot(capfd, "--smp", "4", "--baseline", "one")
    assert status == 0, error
    first, *table, last = out.splitlines()
    assert first.endswith("on 4 CPUs (tcg) without the sidecar: baseline one")
    assert sum("online" in line for line in table) == 1
    assert sum("offline" in line for line in table) == 3
    assert last.startswith("QEMU start to user space: ")


def test_where_the_sidecar_cannot_be_used_linux_has_all_cpus(capfd: Capture) -> None:
    status, out, error = boot(capfd, "--smp", "3", "--append", "sidecar=off", "--exec",
                              "cat /sys/devices/system/cpu/online; cat /proc/cmdline; ls /dev/sidecar0")  # fmt: skip
    assert status == 1, error
    online, words = out.splitlines()
    assert online == "0-2"
    assert "maxcpus" not in words
    assert "sidecar" not in words
    assert "ls: /dev/sidecar0: No such file or directory" in error
    assert "sidecar: the shim did not use the sidecar: sidecar=off on the command line" in error


def test_exec_streams_and_exits_with_the_status(capfd: Capture, tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.write_text("content\n")
    status, out, error = boot(capfd, "--smp", "2", "--copy-in", str(file), "--append", "word=1", "--exec",
                              "cat /root/a-file; cat /proc/cmdline; sidecarctl list; echo err >&2; exit 7")  # fmt: skip
    assert status == 7
    assert out.startswith("content\n")
    assert {"word=1", "maxcpus=1", "no_ipi_broadcast=1", "by way of: driver"} <= {*out.split(), *out.splitlines()}
    assert "err" in error.splitlines()


def test_a_guest_that_panics_ends_the_command(capfd: Capture) -> None:
    status, _, error = boot(capfd, "--smp", "2", "--exec", "echo c > /proc/sysrq-trigger; sleep 1000")
    assert status == 1
    assert "QEMU ended with exit status 0: Kernel panic - not syncing: sysrq triggered crash" in error


def test_a_shell_on_a_terminal() -> None:
    """Ctrl-C ends the guest's sleep, and nothing of ours."""
    with Shell(SHELL, "--smp", "2") as shell:
        shell.type(b"tty; echo $((6 * 7)); sleep 1000\r")
        assert b"\n/dev/ttyS0\r" in shell.read_until(b"\n42\r")
        shell.type(b"\x03")
        shell.read_until(b"sidecar:~# ")
        shell.type(b"exit 5\r")
        assert shell.wait() == 5
