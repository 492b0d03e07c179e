"""A guest through the driver: memory of this process that the driver pins, and virtual processors on claimed CPUs.

Ref: docs/driver.md, "Virtual processors", for the calls and their errno; layout/ioctl.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.client.device_runner import DeviceRunner
from sidecar.client.vmm.errors import VmError
from sidecar.client.vmm.waiting import DeviceWaiter
from sidecar.layout.address_map import SharedPage
from sidecar.layout.ioctl import Doorbell, GuestRights, MemoryMap, MemoryUnmap, VmIoctl, VpCreate, VpIoctl
from sidecar.layout.schema import PAGE_SIZE
from sidecar.protocol.typed import TypedCpu

if TYPE_CHECKING:
    from sidecar.client.ends import Ends

LARGE_PAGE = 2 << 20
Call = Callable[[int, int, int | bytes], int | bytes]


def system_call(file: int, request: int, argument: int | bytes) -> int | bytes:
    """ioctl(2). Raises OSError."""
    return fcntl.ioctl(file, request, argument)


WORDS = {
    errno.EOPNOTSUPP: "the processor has no SVM with nested paging, or the memory cannot be pinned for long",
    errno.ENOTTY: "this driver knows no virtual processors",
    errno.EEXIST: "there is one already",
    errno.EIO: "the CPU is faulted or lost",
    errno.ENOMEM: "there is not enough memory, or RLIMIT_MEMLOCK is too low (ulimit -l)",
    errno.ETIMEDOUT: "a CPU did not take note in time, and is lost until it is restarted",
    errno.EBUSY: "a run is not over",
}


class DeviceVm:
    """A VmBacking. Closing it ends the guest's memory; the runner stays its attachment's."""

    def __init__(
        self, runner: DeviceRunner, *, tsc_khz: int, slice_seconds: float, ends: Callable[[], Ends],
        call: Call = system_call,
    ) -> None:
        self.tsc_khz, self.slice_seconds = tsc_khz, slice_seconds
        self._runner, self._ends, self._call = runner, ends, call
        first = next(iter(runner.notices.values())).node
        self._vm = int(self._ask("a guest", first.fileno(), VpIoctl.VM_CREATE, 0))
        self._maps: list[mmap.mmap] = []

    def cpu(self, number: int) -> TypedCpu:
        return TypedCpu(self._runner, number)

    def page(self, cpu: TypedCpu) -> memoryview:
        return self._runner.open_page(cpu.number, cpu)

    def register_page(self, cpu: TypedCpu) -> memoryview:
        start = SharedPage.REGISTER * PAGE_SIZE
        return self.page(cpu)[start : start + PAGE_SIZE]

    def allocate(self, size: int) -> memoryview:
        """Aligned so that large pages fit, where the guest's address does too."""
        memory = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without transparent huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        start = -address_of(memoryview(memory)) % LARGE_PAGE
        self._maps.append(memory)
        return memoryview(memory)[start : start + size]

    def map(self, gpa: int, memory: memoryview, rights: GuestRights) -> None:
        argument = MemoryMap.build(gpa=gpa, size=len(memory), user_address=address_of(memory), rights=int(rights))
        self._ask(f"{len(memory):#x} bytes at {gpa:#x}", self._vm, VmIoctl.MAP, argument)

    def unmap(self, gpa: int, size: int) -> None:
        self._ask(f"{size:#x} bytes at {gpa:#x}", self._vm, VmIoctl.UNMAP, MemoryUnmap.build(gpa=gpa, size=size))

    def create_vp(self, cpu: TypedCpu) -> None:
        argument = VpCreate.build(cpu=cpu.number, vm_fd=self._vm)
        self._ask(str(cpu.numbers), self._file(cpu), VpIoctl.VP_CREATE, argument)

    def destroy_vp(self, cpu: TypedCpu) -> None:
        self._ask(str(cpu.numbers), self._file(cpu), VpIoctl.VP_DESTROY, cpu.number)

    def ring(self, cpu: TypedCpu, bits: int) -> None:
        argument = Doorbell.build(cpu=cpu.number, bits=bits)
        self._ask(str(cpu.numbers), self._file(cpu), VpIoctl.DOORBELL, argument)

    def waiter(self) -> DeviceWaiter:
        return DeviceWaiter(self._runner)

    def ends(self) -> Ends:
        return self._ends()

    def close(self) -> None:
        if self._vm >= 0:
            os.close(self._vm)
            self._vm = -1

    def _file(self, cpu: TypedCpu) -> int:
        return self._runner.notices[cpu.numbers.node].node.fileno()

    def _ask(self, what: str, file: int, request: VpIoctl | VmIoctl, argument: int | bytes) -> int | bytes:
        try:
            return self._call(file, request, argument)
        except OSError as error:
            why = WORDS.get(error.errno or 0) or os.strerror(error.errno or 0)
            raise VmError(f"{what}: the driver refused {request.name}: {why}") from error


def address_of(memory: memoryview) -> int:
    """Where writable memory is in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
