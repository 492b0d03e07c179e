"""A way from a client to the sidecar's CPUs: three exist, and the rest of the client does not care which.

Ref: docs/client.md for what each needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.protocol.machine import Discovered
from sidecar.protocol.runner import Runner

if TYPE_CHECKING:
    from sidecar.client.ends import Ends
    from sidecar.client.vmm.backing import VmBacking


class Attachment(Protocol):
    """CPUs are given by their Linux number."""

    @property
    def name(self) -> str:
        """driver, no-module or host."""
        ...

    @property
    def found(self) -> Discovered:
        """The machine's nodes and CPUs."""
        ...

    @property
    def runner(self) -> Runner:
        """Runs commands. Raises AlreadyAttached if somebody else does."""
        ...

    def ends(self) -> Ends:
        """Tells event loops of ended runs."""
        ...

    def status(self, cpu: int) -> int:
        """The status byte as it is now; to be had without running anything."""
        ...

    def diagnostic(self, cpu: int) -> bytes:
        """The diagnostic page: boot record, last fault, counters."""
        ...

    def log(self, cpu: int) -> bytes:
        """The log ring."""
        ...

    def is_online(self, cpu: int) -> bool:
        """Does Linux run the CPU?"""
        ...

    def convert(self, cpu: int, owner: object) -> None:
        """Linux runs the CPU afterwards. Raises LinuxRefused, and as Runner.run() does at its start."""
        ...

    def give_back(self, cpu: int, owner: object) -> None:
        """The sidecar has the CPU again afterwards. Raises LinuxRefused, CpuLost."""
        ...

    def virtual_machine(self) -> VmBacking:
        """For a new guest: memory, and virtual processors on these CPUs. Raises NoDriver, VmError."""
        ...

    def close(self) -> None:
        """Ends the attachment; nothing may run any more."""
        ...
