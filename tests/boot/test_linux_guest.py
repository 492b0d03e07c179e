"""Stock Linux without the sidecar: it reaches user space, and the agent runs commands there."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.qemu.linux.agent_client import GuestError, Result
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import WaitedInVain
from tests.support.booted import fresh_directory
from tests.support.stock_linux import StockLinux, hello_module

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=["stable", "backports"])
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    kernel = stock_linux.kernels[request.param]
    directory = fresh_directory(request, request.param)
    driver = hello_module(kernel, directory / "module")
    tool = directory / "tool.sh"
    tool.write_text("#!/bin/sh\necho copied in\n")
    tool.chmod(0o755)
    with LinuxSession(
        kernel=kernel, smp=2, baseline="one", driver=driver, copy_in=[tool], directory=directory
    ) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: LinuxSession) -> Path:
    return session.machine.directory


def test_it_is_the_stock_kernel_on_one_cpu(session: LinuxSession) -> None:
    assert session.guest.run("uname -r").stdout.strip() == session.kernel.version
    assert session.online_cpus() == {0}
    assert session.guest.read("/sys/devices/system/cpu/present").strip() == b"0-1"
    assert session.found is None
    assert session.fallback is None


def test_the_timeline_is_in_order(session: LinuxSession) -> None:
    assert [stamp.what for stamp in session.timeline] == ["QEMU start", "Linux", "user space"]
    times = [stamp.seconds for stamp in session.timeline]
    assert times == sorted(times)
    assert times[-1] == session.user_space_seconds


def test_linux_is_in_x2apic_mode(session: LinuxSession) -> None:
    """What the sidecar's driver needs, and the machine's IOMMU is there for."""
    assert "Enabled IRQ remapping in x2apic mode" in session.guest.log()


def test_status_and_both_outputs(session: LinuxSession) -> None:
    assert session.guest.run("echo out; echo err >&2; exit 3") == Result(3, "out\n", "err\n")
    assert session.guest.run("kill -15 $$").status == -15
    with pytest.raises(GuestError, match="no-such-program: No such file or directory"):
        session.guest.run(["no-such-program"])


def test_a_large_output_is_whole(session: LinuxSession) -> None:
    result = session.guest.run("seq 1 20000", timeout=120)
    assert result.stdout == "".join(f"{number}\n" for number in range(1, 20001))


def test_commands_run_at_the_same_time(session: LinuxSession) -> None:
    session.guest.run("mkfifo /tmp/fifo").check()
    reader = session.guest.start(["cat", "/tmp/fifo"])
    writer = session.guest.start("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done > /tmp/fifo")
    assert writer.wait().status == 0
    assert reader.wait().stdout == "1\n2\n3\n4\n5\n"


def test_many_threads_ask(session: LinuxSession) -> None:
    statuses: dict[int, int] = {}

    def ask(number: int) -> None:
        statuses[number] = session.guest.run(f"seq 1 200; exit {number}").status

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == {number: number for number in range(6)}


def test_a_command_that_takes_too_long_is_killed(session: LinuxSession) -> None:
    started = time.monotonic()
    with pytest.raises(WaitedInVain, match="for the guest's command 'sleep 1000' to end"):
        session.guest.run("sleep 1000", timeout=1)
    assert time.monotonic() - started < 30
    assert "sleep 1000" not in session.guest.run(["ps"]).stdout


def test_files_go_in_and_come_back(session: LinuxSession) -> None:
    data = os.urandom(40_000)
    session.guest.put(data, "/tmp/file", mode=0o755)
    assert session.guest.run("sha256sum /tmp/file").stdout.split()[0] == hashlib.sha256(data).hexdigest()
    assert session.guest.read("/tmp/file") == data
    assert session.guest.run("/root/tool.sh").stdout == "copied in\n"


def test_python_and_what_the_client_needs_are_there(session: LinuxSession) -> None:
    names = "asyncio, ctypes, mmap, struct, sys, capstone, construct, sidecar.layout, sidecar.protocol"
    code = f"import {names}; print(sys.version)"
    result = session.guest.run(["python3", "-c", code], timeout=120)
    assert result.stdout.startswith("3."), result.stderr


def test_the_programs_are_linked(session: LinuxSession) -> None:
    """Of busybox, and kmod's where both have one."""
    programs = session.guest.run("for name in sh modprobe dmesg; do readlink -f $(which $name); done")
    assert programs.stdout.split() == [
        "/usr/bin/busybox",
        "/usr/bin/kmod",
        "/usr/bin/busybox",
    ]


@pytest.mark.parametrize("module", ["msr", "kvm_amd"])
def test_stock_modules_load(session: LinuxSession, module: str) -> None:
    session.guest.run(["modprobe", module]).check()
    assert module in [line.split()[0] for line in session.guest.read("/proc/modules").decode().splitlines()]


def test_a_module_of_ours_loads(session: LinuxSession) -> None:
    session.load_driver()
    session.guest.run(["rmmod", "hello"]).check()
    assert "hello: here" in session.guest.log()
    assert "hello: gone" in session.guest.log()


def test_the_console_has_linuxs_words(session: LinuxSession) -> None:
    assert f"Linux version {session.kernel.version}" in session.console
    assert session.machine.sidecar_log == ""
