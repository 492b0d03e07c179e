"""The driver's ioctl numbers. Ref: OpenHCL's `mshv.h` for 0xF0 to 0xF3; 0xF4 on are this project's."""

from __future__ import annotations

from enum import IntEnum

from sidecar.layout.schema import register_enum

_TYPE = 0xB8
_INFO_BYTES = 12
_READ = 2


def _io(number: int) -> int:
    return _TYPE << 8 | number


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
