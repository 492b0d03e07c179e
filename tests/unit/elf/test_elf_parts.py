"""The small parts: records, notes, the Multiboot2 header."""

import pytest

from sidecar.builder.elf import ElfError, multiboot2_header, pvh_note
from sidecar.builder.elf.multiboot2 import find_multiboot1, find_multiboot2
from sidecar.builder.elf.notes import build_id_note
from sidecar.builder.elf.record import U16, U32, Record

PAIR = Record("pair", 4, first=U16, second=U16)


def test_a_record_is_built_whole_and_read_back() -> None:
    assert PAIR.build(first=1, second=0x203) == bytes.fromhex("01000302")
    assert PAIR.parse(b"..\1\0\3\2", 2) == {"first": 1, "second": 0x203}


def test_a_record_refuses_other_names() -> None:
    with pytest.raises(TypeError, match="record pair takes exactly its declared fields; check second"):
        PAIR.build(first=1)
    with pytest.raises(TypeError, match="check third"):
        PAIR.build(first=1, second=2, third=3)


def test_a_record_refuses_a_wrong_size_when_declared() -> None:
    with pytest.raises(TypeError, match="record odd is 0x4 bytes, expected 0x8"):
        Record("odd", 8, only=U32)


@pytest.mark.parametrize(("offset", "left"), [(0, 2), (1, 1), (9, 0)])
def test_a_record_names_the_place_where_the_data_ends(offset: int, left: int) -> None:
    with pytest.raises(ElfError, match=f"pair at offset {offset:#x}: expected 0x4 bytes, got {left:#x} before the end"):
        PAIR.parse(b"ab", offset)


def test_notes_byte_for_byte() -> None:
    assert pvh_note(0x201000) == bytes.fromhex("04000000 08000000 12000000 58656e00 00102000 00000000")
    assert build_id_note(bytes(range(20))) == bytes.fromhex("04000000 14000000 03000000 474e5500") + bytes(range(20))
    assert len(build_id_note()) == 36


def test_multiboot2_header_byte_for_byte() -> None:
    # The checksum by hand: 0x100000000 - 0xe85250d6 - 0x28.
    assert multiboot2_header(0x201000) == bytes.fromhex(
        "d65052e8 00000000 28000000 02afad17 03000000 0c000000 00102000 00000000 00000000 08000000"
    )
    aligned = multiboot2_header(0x201000, module_alignment=True)
    assert aligned[32:] == bytes.fromhex("06000000 08000000 00000000 08000000")


@pytest.mark.parametrize("entry", [-1, 1 << 32])
def test_entries_beyond_32_bits_are_refused(entry: int) -> None:
    with pytest.raises(ElfError, match=f"PVH entry: expected a physical address below 0x100000000, got {entry:#x}"):
        pvh_note(entry)
    with pytest.raises(ElfError, match=f"Multiboot2 entry: expected a physical address .*, got {entry:#x}"):
        multiboot2_header(entry)


def test_the_header_is_found_as_boot_loaders_find_it() -> None:
    header = multiboot2_header(0x201000)
    assert find_multiboot2(bytes(0x100) + header) == 0x100
    assert find_multiboot2(header[:8] + header) == 8, "a magic whose checksum is wrong is passed over"
    assert find_multiboot2(bytes(4) + header) is None, "not 8-byte aligned"
    assert find_multiboot2(bytes(0x7FF8) + header) is None, "beyond the first 32 KiB"
    assert find_multiboot2(header[:20]) is None, "cut off"


def test_multiboot1_is_sought_in_the_first_8_kib_only() -> None:
    magic = 0x1BADB002.to_bytes(4, "little")
    assert find_multiboot1(bytes(0x1FFC) + magic) == 0x1FFC
    assert find_multiboot1(bytes(0x2000) + magic) is None
    assert find_multiboot1(bytes(2) + magic) is None
