"""Guest-physical addresses in the files behind them: QEMU's memory tree, mapped RAM, a RAM dump."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.qemu.memory_map import MemoryMap, OutOfRange, RamRange, parse_memory_tree
from sidecar.qemu.ram import GuestRam, NoRamFile, RamFile

TREE = """\
FlatView #0
 AS "cpu-smm-0", root: memory
 Root memory region: memory
  0000000000000000-00000000000fffff (prio 0, ram): ram1

FlatView #1
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #2
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000c2fff (prio 0, ram): ram0
  00000000000c3000-00000000000fffff (prio 0, rom): ram0 @00000000000c3000
  0000000000100000-0000000000ffffff (prio 0, ram): ram0 @0000000000100000
  0000000001000000-0000000001ffffff (prio 0, ram): ram1
  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios
  0000000100000000-00000001007fffff (prio 0, ram): ram1 @0000000001000000

FlatView #3
 AS "ich9-ahci", root: bus master container
 Root memory region: (none)
  No rendered FlatView
"""
MIB = 1 << 20
EXPECTED = MemoryMap(
    (
        RamRange(0, 16 * MIB, "ram0", 0),
        RamRange(16 * MIB, 32 * MIB, "ram1", 0),
        RamRange(4096 * MIB, 4104 * MIB, "ram1", 16 * MIB),
    )
)


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    files = {"ram0": os.memfd_create("ram0"), "ram1": os.memfd_create("ram1")}
    os.ftruncate(files["ram0"], 16 * MIB)
    os.ftruncate(files["ram1"], 24 * MIB)
    ram = GuestRam(files, lambda: EXPECTED)
    yield ram
    ram.close()
    for file in files.values():
        os.close(file)


def test_the_tree_is_read() -> None:
    assert parse_memory_tree(TREE, ["ram0", "ram1"]) == EXPECTED
    assert parse_memory_tree(TREE, ["ram1"]).ranges == EXPECTED.ranges[1:]


def test_a_tree_without_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="'info mtree -f' shows no address space \"memory\": 'unknown'"):
        parse_memory_tree("unknown", ["ram0"])


def test_addresses_outside() -> None:
    with pytest.raises(OutOfRange) as caught:
        EXPECTED.range_at(0xFEC0_0000)
    assert str(caught.value) == (
        "0xfec00000 is not in RAM, which is 0x0-0x1000000, 0x1000000-0x2000000, 0x100000000-0x100800000"
    )
    with pytest.raises(OutOfRange, match="0x1000 bytes at 0x1fff800 leave the range 0x1000000-0x2000000"):
        EXPECTED.range_at(0x1FF_F800, 0x1000)
    with pytest.raises(OutOfRange, match="0x2000000 is not in RAM"):
        list(EXPECTED.pieces(0x1FF_F800, 0x1000))
    with pytest.raises(OutOfRange, match="0x0 is not in RAM, which is empty"):
        MemoryMap(()).range_at(0)


def test_reads_and_writes_span_ranges_that_touch(ram: GuestRam) -> None:
    ram.write(16 * MIB - 3, b"abcdef")
    assert ram.read(16 * MIB - 3, 6) == b"abcdef"
    assert bytes(ram.view(16 * MIB, 3)) == b"def"
    with pytest.raises(OutOfRange, match="leave the range"):
        ram.view(16 * MIB - 3, 6)


def test_a_view_is_the_memory_itself(ram: GuestRam) -> None:
    words = ram.view(4096 * MIB, 8).cast("Q")
    words[0] = 0x1122_3344_5566_7788
    assert ram.read(4096 * MIB, 8) == bytes.fromhex("8877665544332211")
    ram.write(4096 * MIB, bytes(8))
    assert words[0] == 0


def test_a_write_that_does_not_fit_stores_nothing(ram: GuestRam) -> None:
    with pytest.raises(OutOfRange):
        ram.write(32 * MIB - 2, b"abcd")
    assert ram.read(32 * MIB - 2, 2) == bytes(2)


def test_the_map_is_asked_for_again_when_an_address_is_not_in_it() -> None:
    maps = [MemoryMap(EXPECTED.ranges[1:]), EXPECTED]
    file = os.memfd_create("ram")
    os.ftruncate(file, 16 * MIB)
    ram = GuestRam({"ram0": file}, lambda: maps.pop(0))
    ram.refresh()
    assert ram.read(0x1000, 4) == bytes(4)
    assert maps == []
    ram.close()
    os.close(file)


def test_closing_with_views_still_held(ram: GuestRam) -> None:
    view = ram.view(0, 4)
    ram.close()
    view[0] = 1
    with pytest.raises(OutOfRange):
        ram.memory_map.range_at(0)


def test_a_ram_dump(tmp_path: Path) -> None:
    path = tmp_path / "dump.ram"
    path.write_bytes(bytes(range(256)) * 16)
    with RamFile(path) as dump:
        assert dump.read(0x10, 4) == bytes([16, 17, 18, 19])
        view = dump.view(0xFF0, 16)
        assert view.readonly
        assert view[0] == 0xF0
        with pytest.raises(OutOfRange, match="0x11 bytes at 0xff0 leave the range 0x0-0x1000"):
            dump.read(0xFF0, 0x11)


def test_what_is_no_ram_dump(tmp_path: Path) -> None:
    with pytest.raises(NoRamFile, match=r"^there is no RAM in .*nothing: No such file or directory$"):
        RamFile(tmp_path / "nothing")
    (tmp_path / "empty").touch()
    with pytest.raises(NoRamFile, match=r"^there is no RAM in .*empty: .*empty"):
        RamFile(tmp_path / "empty")
