"""VMMs that do anything with the driver's calls get errors only, and leave nothing behind when they are killed."""

from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_client import program
from tests.support.linux_driver import states
from tests.support.linux_vmm import pins
from tests.support.shared_linux import AS_BOOTED, OURS

ROUNDS = 8
SECONDS = 100.0
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SUCCEED = ("map", "unmap", "claim", "create", "destroy", "start", "ring", "bind", "command", "open_vm", "close_vm")
ERRORS = {
    "EAGAIN", "EBADF", "EBUSY", "EEXIST", "EFAULT", "EINVAL", "EIO", "ENOENT", "ENOMEM", "ENOTTY", "EPERM",
}  # fmt: skip
"""Those of docs/driver.md, but for the ones of a CPU that does not listen and of a machine without SVM."""


def test_random_calls_of_processes_that_are_killed(driven: LinuxSession) -> None:
    before, boot_id = pins(driven), driven.guest.read(BOOT_ID)
    heard = program(driven, "vm_hostile.py", str(ROUNDS), "1", seconds=SECONDS)
    outcomes = {line.split()[1] for line in heard}
    assert outcomes - {"OK"} <= ERRORS
    assert {line.split()[0] for line in heard if line.endswith(" OK")} >= set(SUCCEED)
    assert sum(heard.values()) > 100 * ROUNDS
    assert pins(driven) == before
    assert driven.guest.read(BOOT_ID) == boot_id
    assert states(driven) == AS_BOOTED
    assert driven.guest.run(["sidecarctl", "ping", *map(str, OURS)]).status == 0
