"""A guest's physical memory as its VMM sees it: regions that are mapped, and everything between them that is not.

    memory.read(0x7C00, 512); memory.write(0x7C00, code); memory.view(0x100000, 4096)[:] = page

The VMM sees what it has mapped, whatever rights the guest has there.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from sidecar.layout.ioctl import GuestRights as Rights
from sidecar.layout.schema import PAGE_SIZE

ALL = Rights.READ | Rights.WRITE | Rights.EXECUTE
ROM = Rights.READ | Rights.EXECUTE


class NotMapped(Exception):
    """A guest-physical address without memory; `gpa` is the first such byte."""

    def __init__(self, gpa: int) -> None:
        super().__init__(f"guest-physical address {gpa:#x} is not mapped")
        self.gpa = gpa


@dataclass(frozen=True, slots=True)
class Region:
    """Mapped memory of a guest; `data` is the memory itself."""

    gpa: int
    data: memoryview
    rights: Rights

    @property
    def end(self) -> int:
        return self.gpa + len(self.data)


class GuestMemory:
    """The mapped regions, which do not overlap. Addresses are guest-physical; reads and writes may cross regions."""

    def __init__(self) -> None:
        self.regions: list[Region] = []

    def add(self, region: Region) -> None:
        """Raises ValueError for an address or size that is no multiple of a page, and for an overlap."""
        size = len(region.data)
        if region.gpa % PAGE_SIZE or size % PAGE_SIZE or not size:
            raise ValueError(f"memory at {region.gpa:#x} of {size:#x} bytes: both must be multiples of {PAGE_SIZE:#x}")
        for other in self.regions:
            if region.gpa < other.end and other.gpa < region.end:
                raise ValueError(
                    f"memory at {region.gpa:#x} of {size:#x} bytes overlaps that at {other.gpa:#x} to {other.end:#x}"
                )
        self.regions = sorted([*self.regions, region], key=lambda one: one.gpa)

    def remove(self, gpa: int) -> Region:
        """Takes out the region that begins there. Raises NotMapped."""
        for region in self.regions:
            if region.gpa == gpa:
                self.regions = [other for other in self.regions if other is not region]
                return region
        raise NotMapped(gpa)

    def find(self, gpa: int) -> Region | None:
        """The region with that address."""
        regions = self.regions
        place = bisect_right(regions, gpa, key=lambda region: region.gpa) - 1
        return regions[place] if place >= 0 and gpa < regions[place].end else None

    def view(self, gpa: int, size: int) -> memoryview:
        """The memory itself, of one region. Raises NotMapped."""
        region = self.find(gpa)
        if region is None:
            raise NotMapped(gpa)
        if gpa + size > region.end:
            raise NotMapped(region.end)
        return region.data[gpa - region.gpa : gpa - region.gpa + size]

    def read(self, gpa: int, size: int) -> bytes:
        """A copy. Raises NotMapped."""
        return b"".join(bytes(part) for part in self._parts(gpa, size))

    def write(self, gpa: int, data: bytes | memoryview) -> None:
        """Writes all or, raising NotMapped, nothing."""
        done = 0
        for part in self._parts(gpa, len(data)):
            part[:] = data[done : done + len(part)]
            done += len(part)

    def fill(self, gpa: int, size: int) -> None:
        """Zeros. Raises NotMapped."""
        for part in self._parts(gpa, size):
            part[:] = bytes(len(part))

    def _parts(self, gpa: int, size: int) -> list[memoryview]:
        parts = []
        while size:
            region = self.find(gpa)
            if region is None:
                raise NotMapped(gpa)
            length = min(size, region.end - gpa)
            parts.append(self.view(gpa, length))
            gpa, size = gpa + length, size - length
        return parts
