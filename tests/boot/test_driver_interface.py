"""/dev/sidecarN as docs/driver.md has it: every call with wrong input, two files, started runs, counters."""

from sidecar.layout import DiagnosticPage, LogRing
from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_driver import CLASS, case
from tests.support.shared_linux import SMP

CPU_CALLS = ("START", "STOP", "RUN", "CLAIM", "RELEASE", "RESTART")


def test_wrong_input_gets_the_documented_errno(driven: LinuxSession) -> None:
    wrong = {"of another node": "EINVAL", "negative": "EINVAL", "base CPU": "ENOENT", "64 bits": "EINVAL"}
    assert case(driven, "errors") == {
        "ioctls": dict.fromkeys(CPU_CALLS, wrong),
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
        "CLAIM": [0, "EBUSY"],
        "read to nowhere": [-1, "EFAULT", [1], 0],
        "interrupted read": [-1, "EINTR"],
    }


def test_wrong_mappings_get_the_documented_errno(driven: LinuxSession) -> None:
    assert case(driven, "mappings") == {
        "beyond": "EINVAL", "over the end": "EINVAL", "unclaimed": "EACCES", "base CPU": "EACCES",
        "claimed": [0, 0], "half": 0, "claimed and not": "EACCES", "private": "EINVAL", "executable": "EPERM",
        "read only": 0, "made executable": "EACCES", "grown": "EFAULT", "kept by children": "EINVAL",
        "dumped": "EINVAL",
    }  # fmt: skip


def test_two_files_cannot_hold_one_cpu(driven: LinuxSession) -> None:
    """Nor see what the other has left in its pages."""
    assert case(driven, "two_files") == {
        "claim": 0,
        "other": {name: "EPERM" if name == "RELEASE" else "EBUSY" for name in CPU_CALLS},
        "other maps": "EACCES",
        "inherited": "SIGSEGV",
        "release": 0,
        "other then": [0, 0, 0],
        "stamped": True,
        "after release": "EFAULT",
    }


def test_the_whole_region_may_be_mapped_as_upstreams_client_does(driven: LinuxSession) -> None:
    assert case(driven, "whole_region") == {
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


def test_start_stop_read_and_poll(driven: LinuxSession) -> None:
    """No end is told of a run that has not ended, and every end once."""
    assert case(driven, "started") == {
        "start": [0, 0, 0],
        "ended": [1, 2, 3],
        "then": ["EAGAIN", False],
        "run": [0, "EBUSY", "EBUSY", "EBUSY", "async", "run", False, "EBUSY"],
        "stop": [1, True, False, "stopped"],
        "untold": ["EBUSY", "EBUSY", "EBUSY", 0],
        "told": ["EAGAIN", [1], "EAGAIN", 0],
        "restart": [0, 0, "EAGAIN", 0],
    }


def test_what_others_get_while_one_waits_in_run(driven: LinuxSession) -> None:
    assert case(driven, "contended") == {
        "others": dict.fromkeys(("RUN", "START", "RESTART", "RELEASE", "CLAIM"), "EBUSY"),
        "state": "sync", "stop": 1, "run": [0], "read": "EAGAIN",
    }  # fmt: skip


def test_nothing_disturbs_the_neighbours(driven: LinuxSession) -> None:
    """Upstream: disabling one virtual processor disabled what another had deferred."""
    assert case(driven, "neighbours") == {
        "start": [0, 0, 0], "stop": [1, True, [1], 0], "still": ["async", "run", False],
        "end": [1, True, [2], "EAGAIN"],
    }  # fmt: skip


def test_a_signal_ends_a_run_early(driven: LinuxSession) -> None:
    result = case(driven, "signalled")
    assert 0.25 <= result.pop("seconds") < 50  # the driver's bound is 60
    assert result == {"run": 0, "caught": True, "then": 0}


def test_what_the_counters_count(driven: LinuxSession) -> None:
    result = case(driven, "counted")
    for _, moved in result.values():
        moved.pop("requests", None)  # one for each, unless the CPU was awake
    assert result == {
        "empty": [0, {"commands": 1}],
        "refused": [0, {"commands": 1, "errors": 1}],
        "stray": [0, {"commands": 2, "stray": 1}],
        "fault": ["EIO", {"commands": 1, "faults": 1}],
        "restart": [0, {"restarts": 1, "arrivals": 1}],
    }


def test_what_the_cpu_has_written(driven: LinuxSession) -> None:
    """The pages as the sidecar keeps them, for root alone."""
    folder = f"{CLASS}/sidecar0/cpu3"
    page = DiagnosticPage.parse(driven.guest.read(f"{folder}/diagnostic"))
    assert (page.boot.linux_number, page.boot.apic_id) == (3, 3)
    log = LogRing.parse(driven.guest.read(f"{folder}/log"))
    assert f"APIC id 3: arrival {page.boot.arrivals}" in log.text[: log.written].decode().splitlines()[-1]
    modes = driven.guest.run(f"stat -c %a {folder}/diagnostic {folder}/log {folder}/state").stdout.split()
    assert modes == ["400", "400", "444"]
    assert driven.guest.read(f"{CLASS}/sidecar0/abi_hash").decode().startswith("0x")
