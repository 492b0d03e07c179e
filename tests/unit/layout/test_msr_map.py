"""The MSR permission map against the manual's own words."""

import pytest

from sidecar.layout import msr_map
from sidecar.layout.svm import MSRPM_PAGES
from sidecar.layout.x86 import Msr


def exits(number: int) -> tuple[bool, bool]:
    """RDMSR, WRMSR. Ref: APM vol. 2, 15.11: three vectors of two bits for each MSR, at bytes 0, 0x800 and 0x1000."""
    starts = {0: 0, 0xC0000000: 0x800, 0xC0010000: 0x1000}
    bit = starts[number & ~0x1FFF] * 8 + 2 * (number & 0x1FFF)
    data = int.from_bytes(msr_map.msr_map(), "little")
    return bool(data >> bit & 1), bool(data >> (bit + 1) & 1)


def test_what_a_guest_uses_itself_and_nothing_else() -> None:
    passed = {0x174, 0x175, 0x176, *range(0xC0000081, 0xC0000085), *range(0xC0000100, 0xC0000103)}
    everything = [start + index for start in (0, 0xC0000000, 0xC0010000) for index in range(0x2000)]
    assert {number for number in everything if exits(number) == (False, False)} == passed
    assert {exits(number) for number in everything} == {(False, False), (True, True)}
    assert len(msr_map.msr_map()) == MSRPM_PAGES * 4096


@pytest.mark.parametrize("number", [0x2000, 0xBFFFFFFF, 0xC0002000, 0xC0012000, 1 << 32 | Msr.STAR])
def test_an_msr_outside_the_map(number: int) -> None:
    with pytest.raises(ValueError, match=f"MSR {number:#x} has no place in the permission map"):
        msr_map.msr_place(number)
