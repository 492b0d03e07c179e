"""What the tests of the built images share: the images by name, and their files as pyelftools reads them."""

import io

import pytest
from elftools.elf.elffile import ELFFile

from sidecar.builder import image
from sidecar.builder.image import Image
from sidecar.builder.modules import KERNEL, SHIM

BUILD = {"kernel": image.kernel, "shim": image.shim}
MODULES = {"kernel": KERNEL, "shim": SHIM}
BOTH = pytest.mark.parametrize("name", BUILD)


def built(name: str) -> Image:
    """The kernel or the shim; it is built once."""
    return BUILD[name]()


def read(data: bytes) -> ELFFile:
    return ELFFile(io.BytesIO(data))


def memory_of(name: str) -> bytes:
    """The image as it lies in memory before it runs: loaded segments, zeros for .bss, from its base on."""
    elf = built(name)
    memory = bytearray(elf.plan.memory_bytes)
    for segment in read(elf.elf).iter_segments():
        if segment["p_type"] == "PT_LOAD":
            start = segment["p_vaddr"] - elf.plan.base
            memory[start : start + segment["p_filesz"]] = segment.data()
    return bytes(memory)


def number_at(name: str, vaddr: int, size: int = 8) -> int:
    """A little-endian number of the image in memory."""
    start = vaddr - built(name).plan.base
    return int.from_bytes(memory_of(name)[start : start + size], "little")
