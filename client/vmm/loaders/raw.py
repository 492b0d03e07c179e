"""Bytes as they are, at an address, entered at the first of them.

    load_raw(machine.memory, vp, code, Mode.REAL)         # at 0x7C00, as a boot sector is
"""

from __future__ import annotations

from sidecar.client.vmm.errors import BadImage
from sidecar.client.vmm.loaders.modes import TABLES, Mode, enter
from sidecar.client.vmm.memory import GuestMemory, NotMapped
from sidecar.client.vmm.vp import Vp

BOOT_SECTOR, ONE_MIB = 0x7C00, 1 << 20
REAL_LIMIT = 1 << 16


def load_raw(memory: GuestMemory, vp: Vp, data: bytes, mode: Mode, *, address: int | None = None) -> None:
    """`address` is 0x7C00 in real mode, else 1 MiB; the stack grows down from there. Raises BadImage."""
    start = address if address is not None else BOOT_SECTOR if mode is Mode.REAL else ONE_MIB
    if mode is Mode.REAL and start >= REAL_LIMIT:
        raise BadImage(f"code in real mode at {start:#x}: it is entered with CS 0, so below {REAL_LIMIT:#x}")
    if mode is not Mode.REAL and start < TABLES.stop and start + len(data) > TABLES.start:
        raise BadImage(f"code at {start:#x}: {TABLES.start:#x} to {TABLES.stop - 1:#x} have the first tables")
    try:
        memory.write(start, data)
        enter(vp, memory, mode, rip=start, rsp=start)
    except NotMapped as error:
        raise BadImage(f"{len(data):#x} bytes at {start:#x} do not fit into the guest: {error}") from error
