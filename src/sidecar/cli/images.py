"""The images that this source tree builds, as the dumps use them: built in memory, nothing is written."""

from sidecar.builder import elf
from sidecar.builder import image as images
from sidecar.builder.asm import Linked, where_is
from sidecar.builder.image import Image
from sidecar.kernel import image_map
from sidecar.layout import PAGE_SIZE
from sidecar.protocol.address_check import ImageSegment
from sidecar.protocol.machine import Discovered
from sidecar.protocol.memory import Memory


def image(name: str) -> Image:
    """`kernel` or `shim`."""
    return images.shim() if name == "shim" else images.kernel()


def where(linked: Linked, offset: int) -> str:
    """`routine+0x12, line 7: 'text'` for an offset in the kernel's image."""
    return where_is(linked, offset)


def segments(kernel: Image) -> list[ImageSegment]:
    """The image's pages with the rights the kernel maps them with: its load segments', but read-only once finished."""
    rights: dict[int, tuple[bool, bool]] = {}
    for segment in elf.describe(kernel.elf)["segments"]:
        first = segment["vaddr"] & -PAGE_SIZE
        pages = range(first, segment["vaddr"] + segment["memory_bytes"], PAGE_SIZE)
        if segment["type"] == "PT_LOAD":
            rights |= dict.fromkeys(pages, ("W" in segment["flags"], "X" in segment["flags"]))
        elif segment["type"] == "PT_GNU_RELRO":
            rights |= dict.fromkeys(pages, (False, False))
    rights |= dict.fromkeys(image_map.read_only_pages(kernel.linked.symbols), (False, False))
    return [ImageSegment(page, PAGE_SIZE, *flags) for page, flags in sorted(rights.items())]


def is_running(kernel: Image, found: Discovered, memory: Memory) -> bool:
    """Is this very image in memory? Its first page, with headers and build id, is never changed there."""
    return memory.read(found.image_pa, PAGE_SIZE) == kernel.elf[:PAGE_SIZE]
