"""The driver's ioctl numbers and their arguments. Ref: OpenHCL's `mshv.h` for 0xF0 to 0xF3; 0xF4 on are this project's.

What each call does and every errno: docs/driver.md.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from sidecar.layout.parts import Int32ul, Int64ul, Struct
from sidecar.layout.schema import Layout, register_enum

_TYPE = 0xB8
_INFO_BYTES = 12
_WRITE = 1
_READ = 2


def _io(number: int) -> int:
    return _TYPE << 8 | number


def _iow(number: int, argument: Layout) -> int:
    """User space gives a structure."""
    return _WRITE << 30 | argument.SIZE << 16 | _io(number)


@register_enum
class Ioctl(IntEnum):
    """Arguments: START to RUN and CLAIM to RESTART a CPU number; INFO base_cpu, cpu_count, per_cpu_shmem (u32 each)."""

    START = _io(0xF0)
    STOP = _io(0xF1)
    RUN = _io(0xF2)
    INFO = _READ << 30 | _INFO_BYTES << 16 | _io(0xF3)
    CLAIM = _io(0xF4)
    RELEASE = _io(0xF5)
    RESTART = _io(0xF6)


class GuestRights(IntFlag):
    """MemoryMap.rights."""

    READ = 1 << 0
    """Always: the hardware has no memory that can be written or executed and not read."""
    WRITE = 1 << 1
    EXECUTE = 1 << 2


VpCreate = Layout(
    "VpCreate",
    Struct(
        "cpu" / Int32ul * "Linux number of a CPU that the file has claimed",
        "vm_fd" / Int32ul * "file descriptor from VM_CREATE: the guest memory",
    ),
    size=8,
    align=4,
    doc="Argument of VP_CREATE.",
)

Doorbell = Layout(
    "Doorbell",
    Struct(
        "cpu" / Int32ul * "Linux number of a CPU with a virtual processor of the file",
        "reserved_4" / Int32ul * "zero",
        "bits" / Int64ul * "bits that are posted",
    ),
    size=16,
    doc="Argument of DOORBELL.",
)

NO_EVENTFD = 0xFFFFFFFF
"""DoorbellFd.eventfd: the bit is bound no more."""

DoorbellFd = Layout(
    "DoorbellFd",
    Struct(
        "cpu" / Int32ul * "Linux number of a CPU with a virtual processor of the file",
        "eventfd" / Int32ul * "file descriptor of an eventfd, or NO_EVENTFD to end a binding",
        "bit" / Int32ul * "0 to 63: the bit that a signal posts",
        "reserved_c" / Int32ul * "zero",
    ),
    size=16,
    align=4,
    doc="Argument of DOORBELL_FD.",
)

MemoryMap = Layout(
    "MemoryMap",
    Struct(
        "gpa" / Int64ul * "guest-physical address, a multiple of the page size",
        "size" / Int64ul * "bytes, a multiple of the page size",
        "user_address" / Int64ul * "where the caller has the memory, a multiple of the page size",
        "rights" / Int32ul * "GuestRights",
        "reserved_1c" / Int32ul * "zero",
    ),
    size=32,
    doc="Argument of MAP.",
)

MemoryUnmap = Layout(
    "MemoryUnmap",
    Struct(
        "gpa" / Int64ul * "MemoryMap.gpa of a mapping",
        "size" / Int64ul * "MemoryMap.size of the same mapping",
    ),
    size=16,
    doc="Argument of UNMAP.",
)

GUEST_ADDRESS_BITS = 48
"""Width of guest-physical addresses: four levels of nested page tables."""


@register_enum
class VpIoctl(IntEnum):
    """On /dev/sidecarN, for virtual processors. VM_CREATE has no argument, VP_DESTROY a CPU number."""

    VM_CREATE = _io(0xF7)
    VP_CREATE = _iow(0xF8, VpCreate)
    VP_DESTROY = _io(0xF9)
    DOORBELL = _iow(0xFA, Doorbell)
    DOORBELL_FD = _iow(0xFB, DoorbellFd)


@register_enum
class VmIoctl(IntEnum):
    """On the file descriptor from VM_CREATE."""

    MAP = _iow(0xFC, MemoryMap)
    UNMAP = _iow(0xFD, MemoryUnmap)
