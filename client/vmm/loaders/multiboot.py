"""Multiboot 1: a kernel, its command line and modules, entered in 32-bit protected mode without paging.

    load_multiboot(machine.memory, vp, kernel, command_line="kernel debug", modules=[Module("initrd", data)])

EAX has the magic number, EBX the information structure: memory, memory map, command line, modules, the loader's name.
Modules lie behind the kernel, on pages; the information below 640 KiB where the kernel leaves room, else behind them.
Ref: Multiboot Specification version 0.6.96, chapter 3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

from sidecar.client.vmm.errors import BadImage
from sidecar.client.vmm.loaders.elf import ElfImage, ElfSegment, read_elf
from sidecar.client.vmm.loaders.modes import TABLES, Mode, enter
from sidecar.client.vmm.memory import GuestMemory, NotMapped
from sidecar.client.vmm.vp import Vp
from sidecar.layout.ioctl import GuestRights
from sidecar.layout.parts import Array, Bytes, Int32ul, Struct
from sidecar.layout.schema import PAGE_SIZE, Layout

HEADER_MAGIC, BOOT_MAGIC = 0x1BADB002, 0x2BADB002
SEARCHED = 8192
LOWER_END, UPPER = 0xA0000, 0x100000
LOADER = "sidecarctl"
RAM, RESERVED = 1, 2
RAX, RBX = 0, 3


class HeaderFlag(IntFlag):
    """Wishes of the kernel; those in the low half must be met."""

    ALIGN_MODULES = 1 << 0
    MEMORY_INFO = 1 << 1
    VIDEO = 1 << 2
    """Met by saying that there is none."""
    ADDRESSES = 1 << 16
    """The header has the load addresses: the a.out kludge."""


KNOWN = HeaderFlag.ALIGN_MODULES | HeaderFlag.MEMORY_INFO | HeaderFlag.VIDEO


class InfoFlag(IntFlag):
    """MultibootInfo.flags: which fields are valid."""

    MEMORY = 1 << 0
    COMMAND_LINE = 1 << 2
    MODULES = 1 << 3
    MEMORY_MAP = 1 << 6
    LOADER_NAME = 1 << 9


MultibootInfo = Layout(
    "MultibootInfo",
    Struct(
        "flags" / Int32ul * "InfoFlag",
        "mem_lower" / Int32ul * "KiB from 0",
        "mem_upper" / Int32ul * "KiB from 1 MiB",
        "boot_device" / Int32ul * "unused",
        "cmdline" / Int32ul * "address of the command line, ended by 0",
        "mods_count" / Int32ul * "modules",
        "mods_addr" / Int32ul * "address of their MultibootModule",
        "syms" / Array(4, Int32ul) * "unused",
        "mmap_length" / Int32ul * "bytes of the memory map",
        "mmap_addr" / Int32ul * "address of its MultibootMemory",
        "drives_length" / Int32ul * "unused",
        "drives_addr" / Int32ul * "unused",
        "config_table" / Int32ul * "unused",
        "boot_loader_name" / Int32ul * "address of the loader's name, ended by 0",
        "apm_table" / Int32ul * "unused",
        "reserved_48" / Bytes(44) * "video, unused",
    ),
    size=116,
    align=4,
    doc="What EBX points at. Ref: Multiboot Specification, 3.3.",
)

MultibootModule = Layout(
    "MultibootModule",
    Struct(
        "mod_start" / Int32ul * "first byte",
        "mod_end" / Int32ul * "first byte behind",
        "string" / Int32ul * "address of the module's string, ended by 0",
        "reserved_c" / Int32ul * "zero",
    ),
    size=16,
    align=4,
    doc="One module.",
)


@dataclass(frozen=True, slots=True)
class Module:
    """`string` is mostly its file's name and arguments."""

    string: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """addresses: header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr, if the header has them."""

    offset: int
    flags: int
    addresses: tuple[int, ...] | None


def find_header(data: bytes) -> Header:
    """The Multiboot header in the first 8192 bytes. Raises BadImage."""
    for offset in range(0, min(len(data), SEARCHED) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", data, offset)
        if magic != HEADER_MAGIC or magic + flags + checksum & 0xFFFFFFFF:
            continue
        if unknown := flags & 0xFFFF & ~KNOWN:
            raise BadImage(f"the Multiboot header at {offset:#x} requires flags {unknown:#x}, which are not known")
        if not flags & HeaderFlag.ADDRESSES:
            return Header(offset, flags, None)
        if len(data) < offset + 32:
            raise BadImage(f"the Multiboot header at {offset:#x} is cut off")
        return Header(offset, flags, struct.unpack_from("<5I", data, offset + 12))
    raise BadImage(f"the file has no Multiboot header in its first {SEARCHED} bytes")


def read_kernel(data: bytes) -> ElfImage:
    """What is to be loaded where, by the header's addresses, else by the ELF headers. Raises BadImage."""
    header = find_header(data)
    return read_elf(data) if header.addresses is None else _by_addresses(data, header.offset, header.addresses)


def _by_addresses(data: bytes, offset: int, addresses: tuple[int, ...]) -> ElfImage:
    header, load, load_end, bss_end, entry = addresses
    start = offset - (header - load)
    length = load_end - load if load_end else len(data) - start
    if start < 0 or length <= 0 or start + length > len(data):
        raise BadImage(f"the Multiboot header asks for {length:#x} bytes from {start:#x}, which are not in the file")
    size = max(bss_end - load, length)
    return ElfImage(entry, (ElfSegment(load, load, data[start : start + length], size),))


def load_multiboot(
    memory: GuestMemory, vp: Vp, kernel: bytes, *, command_line: str = "", modules: Sequence[Module] = ()
) -> None:
    """Raises BadImage for a file that is none, and if something does not fit."""
    image = read_kernel(kernel)
    try:
        _load(memory, vp, image, command_line, modules)
    except NotMapped as error:
        raise BadImage(f"the kernel and its modules do not fit into the guest: {error}") from error


def _load(
    memory: GuestMemory, vp: Vp, image: ElfImage, command_line: str, modules: Sequence[Module]
) -> None:
    for segment in image.segments:
        memory.fill(segment.pa, segment.size)
        memory.write(segment.pa, segment.data)
    end = max(UPPER, *(segment.pa + segment.size for segment in image.segments))
    placed = []
    for module in modules:
        start = -(-end // PAGE_SIZE) * PAGE_SIZE
        memory.write(start, module.data)
        end = start + len(module.data)
        placed.append((start, end, module.string))
    place = _place_for_info(image, -(-end // PAGE_SIZE) * PAGE_SIZE)
    memory.write(place, information(memory, place, command_line, placed))
    enter(vp, memory, Mode.PROTECTED, rip=image.entry_pa, rsp=0)
    vp.set_general(RAX, BOOT_MAGIC)
    vp.set_general(RBX, place)


def _place_for_info(image: ElfImage, behind: int) -> int:
    low = range(TABLES.stop, LOWER_END)
    taken = any(segment.pa < low.stop and low.start < segment.pa + segment.size for segment in image.segments)
    return behind if taken else low.start


def information(memory: GuestMemory, place: int, command_line: str, modules: Sequence[tuple[int, int, str]]) -> bytes:
    """The structure at guest-physical `place`, and behind it all that it points at."""
    spots = memory_map(memory)
    regions = b"".join(struct.pack("<IQQI", 20, start, size, kind) for start, size, kind in spots)
    at_modules = place + MultibootInfo.SIZE
    at_map = at_modules + MultibootModule.SIZE * len(modules)
    strings, entries, free = b"", b"", at_map + len(regions)

    def text(value: str) -> int:
        nonlocal strings
        address = free + len(strings)
        strings += value.encode() + b"\0"
        return address

    for start, end, string in modules:
        entries += MultibootModule.build(mod_start=start, mod_end=end, string=text(string))
    lower, upper = (_kib(spots, start) for start in (0, UPPER))
    flags = InfoFlag.MEMORY | InfoFlag.COMMAND_LINE | InfoFlag.MEMORY_MAP | InfoFlag.LOADER_NAME
    head = MultibootInfo.build(
        flags=int(flags | (InfoFlag.MODULES if modules else 0)), mem_lower=lower, mem_upper=upper, boot_device=0,
        cmdline=text(command_line), mods_count=len(modules), mods_addr=at_modules if modules else 0, syms=[0] * 4,
        mmap_length=len(regions), mmap_addr=at_map, drives_length=0, drives_addr=0, config_table=0,
        boot_loader_name=text(LOADER), apm_table=0,
    )  # fmt: skip
    return head + entries + regions + strings


def memory_map(memory: GuestMemory) -> list[tuple[int, int, int]]:
    """(address, bytes, kind); of the PC's hole below 1 MiB nothing is told, as programs for PCs expect."""
    spots = []
    for region in memory.regions:
        kind = RAM if region.rights & GuestRights.WRITE else RESERVED
        if region.gpa < LOWER_END < region.end:
            spots.append((region.gpa, LOWER_END - region.gpa, kind))
            if region.end > UPPER:
                spots.append((UPPER, region.end - UPPER, kind))
        else:
            spots.append((region.gpa, region.end - region.gpa, kind))
    return spots


def _kib(spots: list[tuple[int, int, int]], start: int) -> int:
    return next((size >> 10 for address, size, kind in spots if address == start and kind == RAM), 0)


