"""Stock Linux without the sidecar: it reaches user space, and the agent runs commands there.

What depends on the kernel is in tests/campaign for the other one.
"""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.qemu.linux.agent_client import GuestError, Result
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.waiting import WaitedInVain
from tests.support import linux_guest
from tests.support.booted import fresh_directory
from tests.support.stock_linux import StockLinux

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with linux_guest.plain(stock_linux, "stable", fresh_directory(request)) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: LinuxSession) -> Path:
    return session.machine.directory


def test_it_is_the_stock_kernel_on_one_cpu(session: LinuxSession) -> None:
    linux_guest.check_kernel(session)


def test_the_timeline_is_in_order(session: LinuxSession) -> None:
    assert [stamp.what for stamp in session.timeline] == ["QEMU start", "Linux", "user space"]
    times = [stamp.seconds for stamp in session.timeline]
    assert times == sorted(times)
    assert times[-1] == session.user_space_seconds


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


def test_the_programs_are_linked(session: LinuxSession) -> None:
    """Of busybox, and kmod's where both have one."""
    programs = session.guest.run("for name in sh modprobe dmesg; do readlink -f $(which $name); done")
    assert programs.stdout.split() == [
        "/usr/bin/busybox",
        "/usr/bin/kmod",
        "/usr/bin/busybox",
    ]


def test_modules_load(session: LinuxSession) -> None:
    linux_guest.check_modules(session)


def test_the_console_has_linuxs_words(session: LinuxSession) -> None:
    assert f"Linux version {session.kernel.version}" in session.console
    assert session.machine.sidecar_log == ""


def test_a_panic_ends_the_machine_and_every_command(session: LinuxSession) -> None:
    """The last test: the machine is gone then."""
    command = session.guest.start("sleep 1000")
    session.guest.start("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")
    with pytest.raises(MachineDied, match="exit status 0: Kernel panic - not syncing: sysrq triggered crash\n"):
        command.wait(60)
    with pytest.raises(MachineDied):
        session.guest.run("true")
