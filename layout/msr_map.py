"""The MSR permission map of virtual processors: which MSRs a guest uses without an exit.

The map has two bits for each MSR, the lower one for RDMSR, the upper one for WRMSR; a clear bit lets the guest do it.

Ref: AMD64 APM vol. 2, 15.11 (MSR intercepts), 15.5.2 (VMLOAD and VMSAVE).
"""

from __future__ import annotations

from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.svm import MSRPM_PAGES
from sidecar.layout.x86 import Msr

PASSED_MSRS = (
    Msr.SYSENTER_CS, Msr.SYSENTER_ESP, Msr.SYSENTER_EIP, Msr.STAR, Msr.LSTAR, Msr.CSTAR, Msr.SFMASK, Msr.FS_BASE,
    Msr.GS_BASE, Msr.KERNEL_GS_BASE,
)  # fmt: skip
"""What VMLOAD and VMSAVE exchange around each entry: in the guest the register has the guest's value, and no other."""

RANGES = (0x0000_0000, 0xC000_0000, 0xC001_0000)
"""Each has 8192 MSRs, and 2048 bytes of the map; all others exit whatever the map says."""

MSRS_PER_RANGE = 0x2000
BITS = 0b11


def msr_place(number: int) -> tuple[int, int]:
    """The byte of the map that an MSR has, and its two bits there. Raises ValueError for one outside the map.

    >>> [(hex(byte), bin(bits)) for byte, bits in (msr_place(0x174), msr_place(0xC0000083))]
    [('0x5d', '0b11'), ('0x820', '0b11000000')]
    """
    for place, start in enumerate(RANGES):
        if start <= number < start + MSRS_PER_RANGE:
            index = place * MSRS_PER_RANGE + number - start
            return index // 4, BITS << index % 4 * 2
    raise ValueError(f"MSR {number:#x} has no place in the permission map: it always exits")


def cleared_bits() -> dict[int, int]:
    """What is clear in the map that all virtual processors share: bits by byte, in ascending order."""
    cleared: dict[int, int] = {}
    for number in PASSED_MSRS:
        byte, bits = msr_place(number)
        cleared[byte] = cleared.get(byte, 0) | bits
    return dict(sorted(cleared.items()))


def msr_map() -> bytes:
    """The whole map."""
    data = bytearray(b"\xff" * (MSRPM_PAGES * PAGE_SIZE))
    for byte, bits in cleared_bits().items():
        data[byte] &= ~bits
    return bytes(data)
