"""Two processes, one CPU: who is refused what, and when a claim ends. Prints what happened as JSON."""

import fcntl
import json
import mmap
import os
import signal
import struct
from collections.abc import Callable

from sidecar.client import CpuBusy, Sidecar
from sidecar.client.device import SHARED_BYTES
from sidecar.layout import RaiseKind, SidecarCommand
from sidecar.layout.ioctl import Ioctl
from sidecar.protocol.commands import raise_request


def in_child(work: Callable[[], None]) -> tuple[int, int]:
    """A process that does `work` and then waits to be told to end: its id, and the pipe to close for that."""
    told, tell = os.pipe()
    ready, signal_ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        work()
        os.write(signal_ready, b"!")
        os.read(told, 1)
        os._exit(0)
    os.close(told)
    os.read(ready, 1)
    return child, tell


def refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except (CpuBusy, OSError) as error:
        return error.strerror or "" if isinstance(error, OSError) else str(error)
    return "nothing was refused"


def holds() -> None:
    held.append(Sidecar.open("driver"))
    cpu = held[0].cpu(1)
    cpu.claim()
    cpu.set_registers({"HvX64RegisterDr0": 1})


def spins() -> None:
    holds()
    held[0].cpu(1).start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))


def touches_after_release() -> int:
    """A raw mapping whose claim has ended: SIGBUS, of which the child dies."""
    child = os.fork()
    if child == 0:
        with open("/dev/sidecar0", "r+b", buffering=0) as file:
            fcntl.ioctl(file, Ioctl.CLAIM, 1)
            pages = mmap.mmap(file.fileno(), SHARED_BYTES, offset=SHARED_BYTES)
            struct.unpack_from("<I", pages, 0)
            fcntl.ioctl(file, Ioctl.RELEASE, 1)
            struct.unpack_from("<I", pages, 0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def foreign_page() -> None:
    with open("/dev/sidecar0", "r+b", buffering=0) as file:
        mmap.mmap(file.fileno(), SHARED_BYTES, offset=SHARED_BYTES)


held: list[Sidecar] = []
"""In a child: what it keeps open."""

result: dict[str, object] = {}
child, tell = in_child(holds)
with Sidecar.open("driver") as sidecar:
    cpu = sidecar.cpu(1)
    result["busy"] = refusal(cpu.none)
    result["busy restart"] = refusal(cpu.restart)
    result["foreign page"] = refusal(foreign_page)
    sidecar.cpu(2).none()
    result["other"] = True
    os.close(tell)
    os.waitpid(child, 0)
    cpu.none()
    result["after the end of the block"] = True
    child, tell = in_child(spins)
    assert refusal(cpu.none) == result["busy"]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    cpu.none()
    result["after a kill"] = True
result["after a claim was lost"] = touches_after_release()
print(json.dumps(result))
