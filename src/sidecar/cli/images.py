"""The images that this source tree builds, as the dumps use them: built in memory, nothing is written."""

from sidecar.builder import elf
from sidecar.builder import image as images
from sidecar.builder.asm import Linked, where_is
from sidecar.builder.image import Image
from sidecar.layout import PAGE_SIZE
from sidecar.protocol.address_check import ImageSegment


def image(name: str) -> Image:
    """`kernel` or `shim`."""
    return images.shim() if name == "shim" else images.kernel()


def where(linked: Linked, offset: int) -> str:
    """`routine+0x12, line 7: 'text'` for an offset in the kernel's image."""
    return where_is(linked, offset)


def segments(data: bytes) -> list[ImageSegment]:
    """The pages of an ELF file's load segments, in order; what relocation has finished with is read-only."""
    description = elf.describe(data)
    rights: dict[int, tuple[bool, bool]] = {}
    for segment in description["segments"]:
        first = segment["vaddr"] & -PAGE_SIZE
        pages = range(first, segment["vaddr"] + segment["memory_bytes"], PAGE_SIZE)
        if segment["type"] == "PT_LOAD":
            rights |= dict.fromkeys(pages, ("W" in segment["flags"], "X" in segment["flags"]))
        elif segment["type"] == "PT_GNU_RELRO":
            rights |= dict.fromkeys(pages, (False, False))
    return [ImageSegment(page, PAGE_SIZE, *flags) for page, flags in sorted(rights.items())]
