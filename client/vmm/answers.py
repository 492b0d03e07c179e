"""What handlers answer, and what they are.

    None                    the guest goes on; a read that answers None gives all ones
    a number                the guest goes on with this result
    Fault(13, 0)            the guest goes on with this exception
    Stop(status, "why")     the machine ends

A device claims ranges of ports or guest-physical addresses, and gets offsets into its range. A CPUID handler gets the
exit and answers with EAX, EBX, ECX and EDX, or None for what the sidecar would answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sidecar.client.vmm.exits import CpuidExit


@dataclass(frozen=True, slots=True)
class Stop:
    """The machine ends: its status for whoever started it, and a sentence for people."""

    status: int
    why: str


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception for the guest; address is a page fault's."""

    vector: int
    error_code: int | None = None
    address: int | None = None


Answer: TypeAlias = int | Stop | Fault | None
CpuidAnswer: TypeAlias = tuple[int, int, int, int] | Stop | Fault | None
CpuidHandler: TypeAlias = Callable[[CpuidExit], CpuidAnswer]


class Device(Protocol):
    """What stands at ports or addresses. size is in bytes: 1, 2, 4, and 8 for memory."""

    def read(self, offset: int, size: int) -> Answer:
        """A value of `size` bytes."""
        ...

    def write(self, offset: int, size: int, value: int) -> Answer:
        """None, Fault or Stop."""
        ...
