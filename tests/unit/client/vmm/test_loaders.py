"""Raw images, ELF files and Multiboot: what lies in the guest's memory afterwards, and what its registers are."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from sidecar.client.vmm.errors import BadImage
from sidecar.client.vmm.loaders.elf import read_elf
from sidecar.client.vmm.loaders.modes import CODE_32, CODE_64, DATA, GDT, PML4, Mode
from sidecar.client.vmm.loaders.multiboot import (
    BOOT_MAGIC,
    HEADER_MAGIC,
    Module,
    MultibootInfo,
    MultibootModule,
    find_header,
    load_multiboot,
)
from sidecar.client.vmm.loaders.raw import load_raw
from sidecar.client.vmm.machine import Machine
from sidecar.client.vmm.memory import ROM
from sidecar.client.vmm.registers import Segment, Table
from tests.support.vmm_cpu import ScriptedBacking, ScriptedCpu

MIB = 1 << 20


def machine(memory: int = 4 * MIB) -> Machine:
    backing: Any = ScriptedBacking([ScriptedCpu()])
    made = Machine(backing, memory=memory)
    made.add_vp(1)
    return made


def header(flags: int = 3, addresses: tuple[int, ...] = ()) -> bytes:
    data = struct.pack("<III", HEADER_MAGIC, flags, -(HEADER_MAGIC + flags) & 0xFFFFFFFF)
    return data + struct.pack(f"<{len(addresses)}I", *addresses)


def elf(*, kind: int = 1, machine: int = 3, entry: int = 0x100010, start: int = 0x100000, va: int | None = None,
        data: bytes = b"", size: int | None = None) -> bytes:  # fmt: skip
    """An ELF file with the Multiboot header at 0x100, and one segment."""
    body = header().ljust(0x40, b"\0") + data
    size = len(body) if size is None else size
    va = start if va is None else va
    if kind == 1:
        head = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, entry, 0x34, 0, 0, 52, 32, 1, 0, 0, 0)
        table = struct.pack("<8I", 1, 0x100, va, start, len(body), size, 7, 0x1000)
    else:
        head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 0x40, 0, 0, 64, 56, 1, 0, 0, 0)
        table = struct.pack("<IIQQQQQQ", 1, 7, 0x100, va, start, len(body), size, 0x1000)
    identity = b"\x7fELF" + bytes((kind, 1, 1)).ljust(12, b"\0")
    return (identity + head + table).ljust(0x100, b"\0") + body


# --- raw -------------------------------------------------------------------------------------------------------------


def test_real_mode() -> None:
    m = machine()
    load_raw(m.memory, m.vps[0], b"code", Mode.REAL)
    assert m.memory.read(0x7C00, 4) == b"code"
    names = ("rip", "rsp", "cs", "ss", "cr0", "efer", "rflags")
    real, data = Segment(0, 0xFFFF, 0, 0x9B), Segment(0, 0xFFFF, 0, 0x93)
    assert m.vps[0].get(*names) == (0x7C00, 0x7C00, real, data, 0x10, 0, 2)


def test_protected_mode() -> None:
    m = machine()
    load_raw(m.memory, m.vps[0], b"code", Mode.PROTECTED)
    assert m.memory.read(MIB, 4) == b"code"
    flat = Segment(0, 0xFFFFFFFF, CODE_32, 0xC09B)
    assert m.vps[0].get("rip", "cr0", "efer", "cs", "gdtr") == (MIB, 0x11, 0, flat, Table(GDT, 31))
    assert_descriptor(m, CODE_32, 0xC09B)


def test_long_mode() -> None:
    m = machine()
    load_raw(m.memory, m.vps[0], b"code", Mode.LONG, address=0x200000)
    flat = Segment(0, 0xFFFFFFFF, CODE_64, 0xA09B)
    names = ("rip", "cr0", "cr3", "cr4", "efer", "cs", "gdtr")
    assert m.vps[0].get(*names) == (0x200000, 0x80000011, PML4, 0x20, 0x500, flat, Table(GDT, 31))
    assert_descriptor(m, CODE_64, 0xA09B)
    assert_descriptor(m, DATA, 0xC093)
    for address in (0, 0x7C00, 0x12345678, 0xFFFFFFFF):
        assert walk(m, address) == address


def assert_descriptor(m: Machine, selector: int, attributes: int) -> None:
    """The descriptor in memory is what the segment register has. Ref: SDM vol. 3A, figure 3-8."""
    (value,) = struct.unpack("<Q", m.memory.read(GDT + selector, 8))
    assert (value >> 40 & 0xF0FF, value & 0xFFFF, value >> 48 & 0xF) == (attributes, 0xFFFF, 0xF)
    assert (value >> 16 & 0xFFFFFF, value >> 56) == (0, 0)


def walk(m: Machine, address: int) -> int:
    """4-level paging, down to a large page."""
    table = PML4
    for shift in (39, 30, 21):
        (entry,) = struct.unpack("<Q", m.memory.read(table + (address >> shift & 511) * 8, 8))
        assert entry & 3 == 3
        table = entry & 0x000FFFFF_FFFFF000
    assert entry & 0x80
    return table | address & 0x1FFFFF


@pytest.mark.parametrize(
    ("size", "mode", "address", "words"),
    [
        (5 * MIB, Mode.REAL, 0x8000, "do not fit into the guest: guest-physical address 0x400000 is not mapped"),
        (4, Mode.REAL, 0x10000, "entered with CS 0, so below 0x10000"),
        (4, Mode.LONG, 0x7FFC, "0x1000 to 0x7fff have the first tables"),
    ],
)
def test_what_cannot_be_loaded(size: int, mode: Mode, address: int, words: str) -> None:
    m = machine()
    with pytest.raises(BadImage, match=words):
        load_raw(m.memory, m.vps[0], bytes(size), mode, address=address)


# --- multiboot -------------------------------------------------------------------------------------------------------


def string(m: Machine, address: int) -> str:
    return m.memory.read(address, 256).split(b"\0")[0].decode()


def info_of(m: Machine) -> Any:
    (eax, ebx) = m.vps[0].get("rax", "rbx")
    assert eax == BOOT_MAGIC
    return MultibootInfo.parse(m.memory.read(int(ebx), MultibootInfo.SIZE))


@pytest.mark.parametrize(("kind", "number"), [(1, 3), (2, 62)])
def test_an_elf_kernel(kind: int, number: int) -> None:
    m = machine()
    m.memory.write(0x100000, b"\xff" * 0x10000)
    file = elf(kind=kind, machine=number, data=b"the kernel", size=0x5000)
    load_multiboot(m.memory, m.vps[0], file, command_line="kernel a=1 b")
    assert m.memory.read(0x100040, 11) == b"the kernel\0"
    assert m.memory.read(0x100040 + 10, 0x4FB6) == bytes(0x4FB6)
    assert m.memory.read(0x105000, 1) == b"\xff"
    flat = Segment(0, 0xFFFFFFFF, CODE_32, 0xC09B)
    assert m.vps[0].get("rip", "cr0", "cs", "rflags") == (0x100010, 0x11, flat, 2)
    info = info_of(m)
    assert (info.flags, string(m, info.boot_loader_name)) == (0x245, "sidecarctl")
    assert string(m, info.cmdline) == "kernel a=1 b"
    assert (info.mem_lower, info.mem_upper, info.mods_count) == (640, 3 * 1024, 0)


def test_the_memory_map() -> None:
    m = machine()
    m.map(0xFFFF0000, 0x10000, ROM)
    load_multiboot(m.memory, m.vps[0], elf())
    info = info_of(m)
    entries = list(struct.iter_unpack("<IQQI", m.memory.read(info.mmap_addr, info.mmap_length)))
    assert entries == [(20, 0, 0xA0000, 1), (20, MIB, 3 * MIB, 1), (20, 0xFFFF0000, 0x10000, 2)]


def test_modules() -> None:
    m = machine()
    modules = [Module("first one", b"1" * 0x1800), Module("second", b"2")]
    load_multiboot(m.memory, m.vps[0], elf(size=0x2345), modules=modules)
    info = info_of(m)
    assert (info.flags & 8, info.mods_count) == (8, 2)
    for number, module in enumerate(modules):
        found = MultibootModule.parse(m.memory.read(info.mods_addr + 16 * number, 16))
        assert found.mod_start % 0x1000 == 0
        assert found.mod_start >= 0x102345
        assert m.memory.read(found.mod_start, found.mod_end - found.mod_start) == module.data
        assert string(m, found.string) == module.string


def test_the_information_makes_room_for_a_low_kernel() -> None:
    m = machine()
    load_multiboot(m.memory, m.vps[0], elf(start=0x10000, entry=0x10010, size=0x8000))
    (ebx,) = m.vps[0].get("rbx")
    assert int(ebx) >= MIB
    assert string(m, info_of(m).boot_loader_name) == "sidecarctl"


def test_the_entry_is_a_virtual_address() -> None:
    m = machine()
    load_multiboot(m.memory, m.vps[0], elf(va=0xC0100000, entry=0xC0100020))
    assert m.vps[0].get("rip") == (0x100020,)


def test_the_headers_own_addresses() -> None:
    m = machine()
    m.memory.write(0x200000, b"\xff" * 0x3000)
    data = b"junk" * 4 + header(1 << 16, (0x200010, 0x200008, 0x200040, 0x202000, 0x200030)) + b"x" * 100
    load_multiboot(m.memory, m.vps[0], data)
    assert m.memory.read(0x200008, 0x38) == data[8:0x40]
    assert m.memory.read(0x200040, 0x1FC1) == bytes(0x1FC0) + b"\xff"
    assert m.vps[0].get("rip") == (0x200030,)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"nothing here", "has no Multiboot header in its first 8192 bytes"),
        (bytes(8192) + header(), "has no Multiboot header"),
        (header(3)[:8] + b"\0\0\0\0", "has no Multiboot header"),
        (header(8), "requires flags 0x8, which are not known"),
        (header(1 << 16, (1, 2)), "at 0x0 is cut off"),
        (header(1 << 16, (0x1000, 0x2000, 0, 0, 0)), "which are not in the file"),
        (header(), "the file is no ELF file"),
        (elf(machine=40), "is for machine 40, expected i386|3"),
        (elf(size=4), "which are not in the file"),
    ],
)
def test_what_is_no_kernel(data: bytes, words: str) -> None:
    m = machine()
    with pytest.raises(BadImage, match=words):
        load_multiboot(m.memory, m.vps[0], data)


def test_a_kernel_that_does_not_fit() -> None:
    m = machine(memory=MIB)
    with pytest.raises(BadImage, match="do not fit into the guest: guest-physical address 0x100000 is not mapped"):
        load_multiboot(m.memory, m.vps[0], elf())


def test_readers() -> None:
    assert find_header(bytes(16) + header(3)).offset == 16
    image = read_elf(elf(data=b"abc"))
    assert [(one.pa, len(one.data), one.size) for one in image.segments] == [(0x100000, 0x43, 0x43)]
