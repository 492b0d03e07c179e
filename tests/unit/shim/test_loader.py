"""The loader of the sidecar image: each header field wrong, every truncation, and random headers.

It gives a reason to fall back or an image that is as the file says; whatever the headers say, it writes nowhere else.
"""

import struct
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.builder import image
from sidecar.layout import PAGE_SIZE, BundlePart
from sidecar.layout.address_map import IMAGE_MAX_BYTES
from tests.support.elf_fields import EHDR, PHDR, Field, change, segments
from tests.support.emulator import Emulator, Outcome
from tests.unit.shim.helpers import RAM, changed, fallback, fresh, returned
from tests.unit.shim.test_memory import Area, write_ranges

ELF = image.kernel().elf
PLAN = image.kernel().plan
BUNDLE, PART, FILE = RAM.start, RAM.start + 0x40, RAM.start + PAGE_SIZE
FREE = Area(RAM.start + 0x10_0000, RAM.stop - 0x10_000)
PATTERN = 0xA5
VARIABLES = {"image_pa", "image_bytes", "image_entry", "free_ranges", "free_count", "sidecar_part", "bundle_pa"}
LOADS = [number for number, one in enumerate(segments(ELF)) if one["p_type"] == 1]
LAST = LOADS[-1]


def load(data: bytes, free: Iterable[Area] = (FREE,)) -> tuple[Emulator, Outcome]:
    """load_image of this file, into memory that is not zero."""
    shim = fresh()
    shim.write(FREE.base, bytes([PATTERN]) * (RAM.stop - FREE.base))
    shim.write(PART, BundlePart.build(kind=1, checksum=0, offset=FILE - BUNDLE, size=len(data)))
    shim.write(FILE, data)
    shim.write("bundle_pa", BUNDLE)
    shim.write("sidecar_part", PART)
    areas = list(free)
    write_ranges(shim, "free_ranges", areas)
    shim.write("free_count", len(areas), size=4)
    return shim, shim.call("load_image")


def test_the_image_lies_in_memory_as_in_the_file_and_its_bss_is_clear() -> None:
    shim, outcome = load(ELF)
    returned(shim, outcome)
    start, size = shim.number("image_pa"), shim.number("image_bytes")
    assert size == -(-PLAN.memory_bytes // PAGE_SIZE) * PAGE_SIZE
    assert start == FREE.end - size
    loaded, file_bytes = shim.read(start, size), PLAN.loaded_file_bytes
    assert loaded[:file_bytes] == ELF[:file_bytes]
    assert not any(loaded[file_bytes:])
    assert shim.number("image_entry") == start + image.kernel().linked.symbols["entry"]
    assert shim.read(start - PAGE_SIZE, PAGE_SIZE) == bytes([PATTERN]) * PAGE_SIZE
    assert shim.read(FREE.end, PAGE_SIZE) == bytes([PATTERN]) * PAGE_SIZE


HEADER = {
    "magic": (Field("ei_mag", 0, 4), 0x7F454C46, f"ELF magic 0x7f454c46, expected {0x464C457F:#x}"),
    "class": (EHDR["ei_class"], 1, "ELF class 0x1, expected 0x2"),
    "data encoding": (EHDR["ei_data"], 2, "ELF data encoding 0x2, expected 0x1"),
    "type": (EHDR["e_type"], 2, "ELF type 0x2, expected 0x3"),
    "machine": (EHDR["e_machine"], 3, "ELF machine 0x3, expected 0x3e"),
    "program header size": (EHDR["e_phentsize"], 32, "ELF program header size 0x20, expected 0x38"),
    "program headers behind the end": (
        EHDR["e_phoff"], len(ELF) + 1,
        f"its program headers at {len(ELF) + 1:#x}, outside its {len(ELF)} bytes: truncated?",
    ),
    "program headers over the end": (
        EHDR["e_phoff"], len(ELF) - 8,
        f"its program headers at {len(ELF) - 8:#x}, outside its {len(ELF)} bytes: truncated?",
    ),
    "many program headers": (
        EHDR["e_phnum"], 0xFFFF, f"its program headers at 0x40, outside its {len(ELF)} bytes: truncated?",
    ),
    "no program headers": (
        EHDR["e_phnum"], 0, f"its entry at {image.kernel().linked.symbols['entry']:#x}, in no executable segment",
    ),
    "entry outside": (EHDR["e_entry"], len(ELF), f"its entry at {len(ELF):#x}, in no executable segment"),
    "entry in data": (EHDR["e_entry"], 0, "its entry at 0x0, in no executable segment"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", HEADER)
def test_a_wrong_header_field_is_a_reason_with_its_value(wrong: str) -> None:
    field, value, sentence = HEADER[wrong]
    assert fallback(*load(change(ELF, field, value))) == f"the sidecar image has {sentence}"


VADDR = segments(ELF)[LAST]["p_vaddr"]
SEGMENT = {
    "vaddr": (PHDR["p_vaddr"], VADDR + PAGE_SIZE,
              f"segment {LAST} at {VADDR + PAGE_SIZE:#x}, not at its offset in the file"),
    "offset": (PHDR["p_offset"], VADDR - PAGE_SIZE, f"segment {LAST} at {VADDR:#x}, not at its offset in the file"),
    "file size": (PHDR["p_filesz"], len(ELF), f"segment {LAST} at {VADDR:#x} ending outside the file: truncated?"),
    "huge file size": (PHDR["p_filesz"], (1 << 64) - 1,
                       f"segment {LAST} at {VADDR:#x} ending outside the file: truncated?"),
    "memory size": (PHDR["p_memsz"], IMAGE_MAX_BYTES + 1,
                    f"segment {LAST} at {VADDR:#x} ending beyond {IMAGE_MAX_BYTES:#x}"),
    "huge memory size": (PHDR["p_memsz"], (1 << 64) - 1,
                         f"segment {LAST} at {VADDR:#x} ending beyond {IMAGE_MAX_BYTES:#x}"),
    "memory end": (PHDR["p_memsz"], IMAGE_MAX_BYTES - VADDR + 1,
                   f"segment {LAST} at {VADDR:#x} ending beyond {IMAGE_MAX_BYTES:#x}"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", SEGMENT)
def test_a_wrong_segment_is_a_reason_with_its_number_and_value(wrong: str) -> None:
    field, value, sentence = SEGMENT[wrong]
    assert fallback(*load(change(ELF, field, value, segment=LAST))) == f"the sidecar image has {sentence}"


def test_a_segment_larger_in_the_file_than_in_memory_is_a_reason() -> None:
    data = change(ELF, PHDR["p_memsz"], segments(ELF)[LAST]["p_filesz"] - 1, segment=LAST)
    assert fallback(*load(data)).startswith(f"the sidecar image has segment {LAST} at {VADDR:#x} ")


ENDS = sorted({
    0, 1, 63, 64, 65, 64 + 56, *(one["p_offset"] + one["p_filesz"] - 1 for one in segments(ELF)),
    PLAN.loaded_file_bytes - 1,
} - {-1})  # fmt: skip


@pytest.mark.parametrize("size", ENDS)
def test_a_file_that_ends_before_its_segments_is_a_reason(size: int) -> None:
    reason = fallback(*load(ELF[:size]))
    assert reason == f"the sidecar image has {size} bytes, expected at least 64" or reason.endswith(": truncated?")


def test_what_follows_the_segments_is_not_needed() -> None:
    """Symbols and section headers are for tools."""
    returned(*load(ELF[: PLAN.loaded_file_bytes]))


NEEDED = -(-PLAN.memory_bytes // PAGE_SIZE) * PAGE_SIZE


@pytest.mark.parametrize(
    "free",
    [[], [Area(FREE.base, FREE.base + NEEDED - PAGE_SIZE)], [Area(1 << 32, (1 << 32) + 16 * NEEDED)]],
    ids=["no memory", "one page less", "above 4 GiB"],
)
def test_no_room_is_a_reason(free: list[Area]) -> None:
    expected = f"not enough memory below 4 GiB for the sidecar image ({PLAN.memory_bytes} bytes)"
    assert fallback(*load(ELF, free)) == expected


NUMBER = st.one_of(
    st.integers(0, 64),
    st.integers(0, len(ELF) + 0x1000),
    st.integers(0, 2 * IMAGE_MAX_BYTES),
    st.integers(0, (1 << 64) - 1),
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(sorted(EHDR)), NUMBER, st.none())
    | st.tuples(st.sampled_from(sorted(PHDR)), NUMBER, st.integers(0, len(segments(ELF)) - 1)),
    max_size=4,
)


@given(CHANGES, st.integers(0, len(ELF)) | st.just(len(ELF)))
@example([("e_entry", 0, None)], len(ELF))
def test_random_headers_give_a_reason_or_an_image_and_nothing_else_is_written(
    changes: list[tuple[str, int, int | None]], size: int
) -> None:
    data = ELF
    for name, value, segment in changes:
        field = EHDR[name] if segment is None else PHDR[name]
        data = change(data, field, value, segment=segment)
    shim, outcome = load(data[:size])
    outside = shim.read(FREE.end, RAM.stop - FREE.end)
    assert outside == bytes([PATTERN]) * len(outside)
    assert shim.read(FILE, size) == data[:size]
    if outcome.stop:
        assert fallback(shim, outcome)
        return
    start, length = shim.number("image_pa"), shim.number("image_bytes")
    assert FREE.base <= start
    assert start + length == FREE.end
    assert length <= IMAGE_MAX_BYTES
    assert start <= shim.number("image_entry") < start + length
    before = shim.read(FREE.base, start - FREE.base)
    assert before == bytes([PATTERN]) * len(before)
    assert changed(shim) <= VARIABLES


def test_the_fields_are_those_of_the_format() -> None:
    """The table that these tests change fields by, against struct's reading of the same file."""
    assert struct.unpack_from("<HHIQQQIHHHHHH", ELF, 16)[8:10] == (56, len(segments(ELF)))
