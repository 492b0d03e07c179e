"""/dev/sidecarN as docs/driver.md has it: every call with wrong input, two files, faults, time-outs, killed clients."""

from collections.abc import Iterator

import pytest

from sidecar.layout.ioctl import Ioctl
from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.linux_client import complaints
from tests.support.linux_driver import case, shown
from tests.support.stock_linux import StockLinux

SMP = 6
BUSY_HOST_SECONDS = 20
COMMANDS = [what.name for what in Ioctl if what is not Ioctl.INFO]


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=SMP) as booted:
        booted.load_driver()
        yield booted


@pytest.fixture(autouse=True)
def the_kernel_is_content(session: LinuxSession) -> Iterator[None]:
    yield
    assert complaints(session) == []


def test_wrong_input_gets_the_documented_errno(session: LinuxSession) -> None:
    assert case(session, "errors") == {
        "ioctls": {
            name: {"of another node": "EINVAL", "negative": "EINVAL", "the base CPU": "ENOENT"} for name in COMMANDS
        },
        "64-bit CPU": "EINVAL",
        "unknown ioctl": ["ENOTTY"] * 4,
        "INFO to nowhere": "EFAULT",
        "INFO": [0, SMP, 8192],
        "RELEASE unclaimed": "EPERM",
        "STOP of nothing": 0,
        "short read": ["EINVAL", "EINVAL"],
        "read of nothing": "EAGAIN",
        "write": "EINVAL",
        "seek": "ESPIPE",
        "pread": "ESPIPE",
        "mmap": {
            "beyond": "EINVAL", "over the end": "EINVAL", "unclaimed": "EACCES", "base CPU": "EACCES",
            "claimed": [0, 0], "half": 0, "claimed and not": "EACCES", "private": "EINVAL", "executable": "EPERM",
            "read only": 0,
        },
        "CLAIM twice": "EBUSY",
        "read to nowhere": [-1, "EFAULT", [1], 0],
    }


def test_two_files_cannot_hold_one_cpu(session: LinuxSession) -> None:
    """Nor see what the other has left in its pages."""
    assert case(session, "two_files") == {
        "claim": 0,
        "other": {name: "EPERM" if name == "RELEASE" else "EBUSY" for name in COMMANDS},
        "other maps": "EACCES",
        "inherited": "SIGSEGV",
        "release": 0,
        "other then": [0, 0, 0],
        "stamped": True,
        "after release": "EFAULT",
    }


def test_the_whole_region_may_be_mapped_as_upstreams_client_does(session: LinuxSession) -> None:
    assert case(session, "whole_region") == {
        "claimed before": ["0", "0"],
        "claimed by touch": ["1", "0"],
        "run": [0, 7],
        "unmapped START claims": [0, "1", [2]],
        "other": ["EBUSY", 0],
        "base CPU": "SIGBUS",
        "another's": "SIGBUS",
        "own": "lived",
        "still mapped": "1",
        "after close": ["0", "0", 0],
    }


def test_start_stop_read_and_poll(session: LinuxSession) -> None:
    """No end is told of a run that has not ended, and every end once."""
    assert case(session, "started") == {
        "start": [0, 0, 0],
        "ended": [1, 2, 3],
        "then": ["EAGAIN", False],
        "run": [0, "EBUSY", "EBUSY", "EBUSY", "async", "run", False, "EBUSY"],
        "stop": [1, True, False, "stopped"],
        "untold": ["EBUSY", "EBUSY", "EBUSY", 0],
        "told": ["EAGAIN", [1], "EAGAIN", 0],
        "restart": [0, 0, "EAGAIN", 0],
    }


def test_a_fault_is_eio_and_a_line_in_the_log(session: LinuxSession) -> None:
    result = case(session, "faults")
    line = result["shown"].pop()
    assert result == {
        "run": "EIO", "status": "faulted", "state": "available", "again": ["EIO", "EIO"], "shown": ["1"],
        "restart": [0, 0, "idle", "2"], "started": [0, True, [2], "faulted"], "left behind": ["EIO", 0, 0],
    }
    assert line.startswith("#PF (vector 14), error code 0x0, rip image+0x")
    assert line.endswith(", cr2 0x4242, in command 0x100")
    log = session.guest.log()
    assert log.count(f"sidecar: CPU 2 (APIC id 0x2, node 0, index 2): {line}; it is faulted until it is restarted") == 1
    assert log.count("index 2): #UD (vector 6)") == 1


def test_a_command_that_does_not_end(session: LinuxSession) -> None:
    """RUN gives up, a closed file too; the CPU is restarted before anybody else can have it."""
    result = case(session, "late")
    assert 0.25 <= result.pop("seconds") < BUSY_HOST_SECONDS
    assert 0.25 <= result.pop("closing seconds") < BUSY_HOST_SECONDS
    assert result == {"run": "ETIMEDOUT", "after": ["available", "1", 0], "closed": [0, "2"]}
    log = session.guest.log()
    end = "within 300 ms, its status is run, its last command 0x100: restarting it"
    assert f"CPU 3 (APIC id 0x3, node 0, index 3): did not end a command {end}" in log
    assert "index 3): did not end a command whose file was closed within 300 ms, its status is stop" in log
    assert log.count("index 3): was restarted") == 2


def test_a_signal_ends_a_run_early(session: LinuxSession) -> None:
    result = case(session, "signalled")
    assert 0.25 <= result.pop("seconds") < 5  # the driver's bound, at which it would be restarted
    assert result == {"run": 0, "caught": 1, "then": 0}


def test_killed_clients_leave_cpus_that_answer(session: LinuxSession) -> None:
    timeouts = [shown(session, cpu, "timeouts") for cpu in (1, 2, 3)]
    assert case(session, "killed", 30) == {"answers": ["0"], "timeouts": timeouts}


def test_races_lose_and_repeat_nothing(session: LinuxSession) -> None:
    """START, STOP, RUN and read on all CPUs at once, each answer with its command's number."""
    result = case(session, "races", 5)
    assert result["wrong"] == [0] * (SMP - 1)
    assert result["commands"] > 100 * (SMP - 1)


@pytest.mark.parametrize("text", ["9", "600001", "-1", "soon"])
def test_a_bound_that_is_none(session: LinuxSession, text: str) -> None:
    parameter = "/sys/module/sidecar/parameters/timeout_ms"
    assert session.guest.run(f"echo {text} > {parameter}").status != 0
    assert session.guest.read(parameter).strip() == b"5000"


def test_the_driver_stays_while_a_file_is_open(session: LinuxSession) -> None:
    assert session.guest.run("exec 3<>/dev/sidecar0; rmmod sidecar").status != 0
    assert session.guest.run("stat -c %a /dev/sidecar0").stdout.strip() == "600"
