"""isa-debug-exit: a write ends the machine with status (value << 1) | 1. Ref: QEMU, hw/misc/debugexit.c."""

from __future__ import annotations

from sidecar.client.vmm.answers import Answer, Stop

PORTS = range(0xF4, 0xF8)


class DebugExit:
    """QEMU's device with iobase=0xf4, iosize=4: any of the ports, any width; reads give 0."""

    def read(self, offset: int, size: int) -> Answer:
        return 0

    def write(self, offset: int, size: int, value: int) -> Answer:
        return Stop((value << 1 | 1) & 0xFF, f"the guest wrote {value:#x} to the debug-exit port")
