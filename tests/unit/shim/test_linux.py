"""The Linux image in the bundle, checked before any memory is given away: each wrong field has its sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.layout import BundlePart
from sidecar.layout.linux_boot import LinuxBoot, SetupHeader
from tests.support.emulator import Emulator, Outcome
from tests.unit.shim.helpers import RAM, changed, fatal, fresh, returned

BUNDLE, PART, FILE = RAM.start, RAM.start + 0x40, RAM.start + 0x1000
SIZE = 0x6000
SETUP_SECTORS = 31
PREFERRED = 0x100_0000
VARIABLES = {"linux_part", "bundle_pa", "linux_image", "linux_load_pa", "linux_load_end"}

FIELDS: dict[SetupHeader, tuple[int, int]] = {
    SetupHeader.setup_sects: (SETUP_SECTORS, 1),
    SetupHeader.boot_flag: (LinuxBoot.BOOT_FLAG, 2),
    SetupHeader.header: (LinuxBoot.HEADER_MAGIC, 4),
    SetupHeader.version: (0x20F, 2),
    SetupHeader.xloadflags: (0x3F, 2),
    SetupHeader.pref_address: (PREFERRED, 8),
    SetupHeader.init_size: (0x200_0000, 4),
}
"""Offset -> value and size of the fields that the shim reads before it decides."""


def bzimage(changes: dict[SetupHeader, int] | None = None) -> bytes:
    """As much of a bzImage as is looked at."""
    data = bytearray(SIZE)
    for field, (value, size) in FIELDS.items():
        data[field : field + size] = (changes or {}).get(field, value).to_bytes(size, "little")
    return bytes(data)


def find(data: bytes, size: int = SIZE) -> tuple[Emulator, Outcome]:
    shim = fresh()
    shim.write(PART, BundlePart.build(kind=2, checksum=0, offset=FILE - BUNDLE, size=size))
    shim.write(FILE, data)
    shim.write("bundle_pa", BUNDLE)
    shim.write("linux_part", PART)
    return shim, shim.call("find_linux")


def test_where_linux_wants_to_run() -> None:
    shim, outcome = find(bzimage())
    returned(shim, outcome)
    found = [shim.number(name) for name in ("linux_image", "linux_load_pa", "linux_load_end")]
    assert found == [FILE, PREFERRED, PREFERRED + 0x200_0000]
    assert changed(shim) <= VARIABLES


def test_without_linux_nothing_is_reserved_for_it() -> None:
    shim = fresh()
    returned(shim, shim.call("find_linux"))
    assert changed(shim) == set()


WRONG = {
    "boot flag": ({SetupHeader.boot_flag: 0x1234}, "boot_flag 0x1234, expected 0xaa55"),
    "header": ({SetupHeader.header: 0}, "header 0x0, expected 0x53726448"),
    "version": ({SetupHeader.version: 0x20B}, "version 0x20b, expected at least 0x20c"),
    "32 bits": ({SetupHeader.xloadflags: 0x3E}, "no 64-bit entry"),
    "setup code": (
        {SetupHeader.setup_sects: 0x2F}, f"{SIZE} bytes, its setup code alone {0x30 * 512}: truncated?"
    ),
    "more setup code": (
        {SetupHeader.setup_sects: 255}, f"{SIZE} bytes, its setup code alone {256 * 512}: truncated?"
    ),
    "size": (
        {SetupHeader.init_size: 100},
        f"{SIZE - (SETUP_SECTORS + 1) * 512} bytes to load, more than its init_size 100",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_field_ends_the_machine_with_its_value(wrong: str) -> None:
    changes, sentence = WRONG[wrong]
    assert fatal(*find(bzimage(changes))) == f"bundle: the Linux image has {sentence}"


@pytest.mark.parametrize("size", [0, 4095])
def test_less_than_a_page_is_no_image(size: int) -> None:
    assert fatal(*find(bzimage(), size)) == f"bundle: the Linux image has {size} bytes, expected at least 4096"


def test_a_place_beyond_the_address_space_is_refused() -> None:
    address = (1 << 64) - 0x1000
    end = (address + 0x200_0000) % (1 << 64)
    assert fatal(*find(bzimage({SetupHeader.pref_address: address}))) == (
        f"no RAM from {address:#x} to {end:#x}, where Linux wants to run: give the machine more memory"
    )


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.integers(0, (1 << 64) - 1)), st.integers(0, 2 * SIZE))
def test_any_header_is_refused_or_gives_a_range_with_room_for_the_image(
    changes: dict[SetupHeader, int], size: int
) -> None:
    fitting = {field: value % (1 << 8 * FIELDS[field][1]) for field, value in changes.items()}
    shim, outcome = find(bzimage(fitting), size)
    if outcome.stop:
        assert fatal(shim, outcome)
        return
    start, end = shim.number("linux_load_pa"), shim.number("linux_load_end")
    setup = (fitting.get(SetupHeader.setup_sects, SETUP_SECTORS) + 1) * 512
    assert 0 < size - setup <= end - start
    assert changed(shim) <= VARIABLES
