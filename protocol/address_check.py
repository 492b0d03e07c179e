"""What a sidecar CPU's page tables must map, by the address map, and where they do not.

Host side. Inside the image's 2 MiB the ELF file's segments say the rights; who has them passes them in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.layout import IMAGE_VA, PAGE_SIZE
from sidecar.layout.address_map import CPU_MAP_SLOT, LARGE_PAGE, PER_CPU_MAP, PER_CPU_VA, Mapping, Source
from sidecar.layout.address_map import PrivatePage as Private
from sidecar.layout.address_map import SharedPage as Shared
from sidecar.protocol.machine import Cpu, Discovered
from sidecar.protocol.page_tables import MappedRange

CPU_MAP_VA = IMAGE_VA + CPU_MAP_SLOT * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class ImageSegment:
    """Pages of the image with the same rights: offset and size in bytes, both multiples of the page size."""

    offset: int
    size: int
    writable: bool
    executable: bool


def mapped_pa(found: Discovered, cpu: Cpu, mapping: Mapping) -> int:
    """The physical page that a row of the per-CPU map stands for."""
    if mapping.source is Source.CONTROL:
        return found.place(cpu)[0].control_pa
    if mapping.source is Source.SHARED:
        return found.shared_page_pa(cpu, Shared(mapping.index))
    return found.private_page_pa(cpu, Private(mapping.index))


def names_of(one: MappedRange) -> list[str]:
    """What the address map has in a range: `image`, `cpu_map`, the symbols of per-CPU pages; empty if nothing."""
    names = ["image"] * (one.va < CPU_MAP_VA and one.end > IMAGE_VA)
    names += ["cpu_map"] * (one.va < PER_CPU_VA and one.end > CPU_MAP_VA)
    return names + [mapping.symbol for mapping in PER_CPU_MAP if one.va <= mapping.va < one.end]


def differences(
    ranges: Sequence[MappedRange], found: Discovered, cpu: Cpu, segments: Sequence[ImageSegment] | None = None
) -> list[str]:
    """One sentence for everything that the CPU's tables map otherwise than the address map; empty if they agree."""
    return [
        *_rights(ranges),
        *_per_cpu_pages(ranges, found, cpu),
        *_image_pages(ranges, found, segments),
        *_strangers(ranges),
    ]


def _rights(ranges: Sequence[MappedRange]) -> Iterator[str]:
    for one in ranges:
        if one.writable and one.executable:
            yield f"{one.va:#x} to {one.end:#x} is both writable and executable"
        if one.user:
            yield f"{one.va:#x} to {one.end:#x} is open to user mode"


def _per_cpu_pages(ranges: Sequence[MappedRange], found: Discovered, cpu: Cpu) -> Iterator[str]:
    for mapping in PER_CPU_MAP:
        expected = MappedRange(
            mapping.va, mapped_pa(found, cpu, mapping), PAGE_SIZE,
            writable=mapping.writable, executable=False, user=False,
        )
        yield from _compare(mapping.symbol, ranges, expected)


def _compare(what: str, ranges: Sequence[MappedRange], expected: MappedRange) -> Iterator[str]:
    """Compare one page."""
    got = next((one for one in ranges if one.va <= expected.va < one.end), None)
    if got is None:
        yield f"{what} at {expected.va:#x} is not mapped"
    elif (got.pa_of(expected.va), got.rights) != (expected.pa, expected.rights):
        yield (
            f"{what} at {expected.va:#x}: expected {expected.pa:#x} {expected.rights}, "
            f"got {got.pa_of(expected.va):#x} {got.rights}"
        )


def _image_pages(
    ranges: Sequence[MappedRange], found: Discovered, segments: Sequence[ImageSegment] | None
) -> Iterator[str]:
    """The image's pages lie in order; with `segments`, exactly their pages are mapped, with exactly their rights."""
    image_end = IMAGE_VA + found.image_bytes
    wanted: set[int] = set()
    for segment in segments or ():
        for offset in range(segment.offset, segment.offset + segment.size, PAGE_SIZE):
            wanted.add(IMAGE_VA + offset)
            yield from _compare("image", ranges, MappedRange(
                IMAGE_VA + offset, found.image_pa + offset, PAGE_SIZE,
                writable=segment.writable, executable=segment.executable, user=False,
            ))
    for one in ranges:
        for va in range(max(one.va, IMAGE_VA), min(one.end, CPU_MAP_VA), PAGE_SIZE):
            offset = va - IMAGE_VA
            if va >= image_end or (segments is not None and va not in wanted):
                yield f"{va:#x} is mapped to {one.pa_of(va):#x} {one.rights}, expected nothing"
            elif segments is None and one.pa_of(va) != found.image_pa + offset:
                yield f"image at {va:#x}: expected {found.image_pa + offset:#x}, got {one.pa_of(va):#x}"


def _strangers(ranges: Sequence[MappedRange]) -> Iterator[str]:
    """Pages in places of which the map says nothing; the CPU map must be read only."""
    slots = {mapping.va for mapping in PER_CPU_MAP}
    for one in ranges:
        if one.va < IMAGE_VA or one.end > PER_CPU_VA + LARGE_PAGE:
            yield f"{one.va:#x} to {one.end:#x} is mapped to {one.pa:#x} {one.rights}, expected nothing"
            continue
        for va in range(max(one.va, CPU_MAP_VA), one.end, PAGE_SIZE):
            if va >= PER_CPU_VA and va not in slots:
                yield f"{va:#x} is mapped to {one.pa_of(va):#x} {one.rights}, expected nothing"
            elif va < PER_CPU_VA and one.rights != "R":
                yield f"cpu_map at {va:#x}: expected R, got {one.rights}"
