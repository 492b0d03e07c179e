"""What a Machine stands on: somebody who gives it memory that a guest can have, and CPUs their virtual processors.

In a Linux with the driver that is the driver (device_backing); without Linux it is the host, who maps the machine's
memory. A simulated one is in the tests. Ref: docs/vmm.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from sidecar.layout.ioctl import GuestRights
from sidecar.protocol.typed import TypedCpu

if TYPE_CHECKING:
    from sidecar.client.ends import Ends


class Waiter(Protocol):
    """Tells one thread which of several started runs have ended."""

    def wait(self, cpus: Iterable[int], seconds: float) -> list[int]:
        """Those of the CPUs whose run has ended, none after `seconds` or after wake(). An end is told until taken."""
        ...

    def wake(self) -> None:
        """Makes wait() return; from any thread. A wake before wait() counts for the next one."""
        ...

    def close(self) -> None: ...


class VmBacking(Protocol):
    """One guest's memory and virtual processors. CPUs are given by their Linux number, and claimed by `owner`."""

    @property
    def tsc_khz(self) -> int:
        """Frequency of the CPUs' TSC; 0 if it is not known."""
        ...

    @property
    def slice_seconds(self) -> float:
        """The longest time that one run may take: who bounds commands has more patience than that."""
        ...

    def cpu(self, number: int) -> TypedCpu:
        """The CPU that a virtual processor shall run on. Raises NoSuchCpu."""
        ...

    def page(self, cpu: TypedCpu) -> memoryview:
        """The command page of a CPU that `cpu` has claimed."""
        ...

    def register_page(self, cpu: TypedCpu) -> memoryview:
        """Its register page."""
        ...

    def allocate(self, size: int) -> memoryview:
        """Zeroed memory in whole pages that can be mapped into the guest. It is the backing's, until close()."""
        ...

    def map(self, gpa: int, memory: memoryview, rights: GuestRights) -> None:
        """Gives the guest memory that allocate() gave. Raises VmError."""
        ...

    def unmap(self, gpa: int, size: int) -> None:
        """Takes it back: no CPU uses it any more afterwards. Raises VmError."""
        ...

    def create_vp(self, cpu: TypedCpu) -> None:
        """Gives a claimed CPU a virtual processor in the reset state, with this guest's memory. Raises VmError."""
        ...

    def destroy_vp(self, cpu: TypedCpu) -> None:
        """Takes it away; the CPU is as before."""
        ...

    def ring(self, cpu: TypedCpu, bits: int) -> None:
        """Posts bits to the virtual processor: its run ends, now or at its start. From any thread."""
        ...

    def waiter(self) -> Waiter:
        """For one thread that runs several virtual processors."""
        ...

    def ends(self) -> Ends:
        """For event loops."""
        ...

    def close(self) -> None:
        """Gives everything back; nothing may run any more."""
        ...
