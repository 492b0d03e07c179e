"""The trampoline page as the entry leaves it: code at its beginning, the fields it reads, the anchor for tools."""

import pytest

from sidecar.builder import image
from sidecar.layout import ABI_VERSION, IMAGE_VA, PAGE_SIZE, TrampolinePage, abi_hash
from sidecar.layout.boot import TRAMPOLINE_MAGIC
from sidecar.layout.x86 import Descriptor, Selector
from tests.unit.kernel.helpers import LOW, SDCR, accepted, fresh, write_params

SYMBOLS = image.kernel().linked.symbols


@pytest.mark.parametrize("trampoline", [0x1000, 0x8000, 0x9F000])
def test_the_page_has_code_and_data_for_its_own_address(trampoline: int) -> None:
    kernel = fresh()
    kernel.write(trampoline, b"\xa5" * PAGE_SIZE)
    write_params(kernel, trampoline_pa=trampoline)
    accepted(kernel)
    page = TrampolinePage.parse(kernel.read(trampoline, PAGE_SIZE))
    size = SYMBOLS["trampoline_end"] - SYMBOLS["trampoline"]
    assert page.code[:size] == kernel.read("trampoline", size)
    assert not any(page.code[size:])
    assert (page.gdt[Selector.CODE64 // 8], page.gdt[Selector.DATA // 8]) == (Descriptor.CODE64, Descriptor.DATA)
    base = page.gdt_base_low | page.gdt_base_high << 16
    assert (page.gdt_limit + 1, base) == (TrampolinePage.gdt.SIZE, trampoline + TrampolinePage.gdt)
    long_mode = trampoline + SYMBOLS["trampoline_long_mode"] - SYMBOLS["trampoline"]
    assert (page.long_mode_selector, page.long_mode_offset) == (Selector.CODE64, long_mode)
    assert page.transition_cr3 == kernel.at("transition_pml4") < 1 << 32
    assert page.arrive_va == IMAGE_VA + SYMBOLS["arrive"]


def test_the_anchor_leads_to_the_table() -> None:
    kernel = fresh()
    write_params(kernel, trampoline_pa=0x7000)
    accepted(kernel)
    page = TrampolinePage.parse(kernel.read(0x7000, PAGE_SIZE))
    assert (page.magic, page.abi_version, page.abi_hash) == (TRAMPOLINE_MAGIC, ABI_VERSION, abi_hash())
    assert page.sdcr_pa == SDCR


def test_no_other_page_below_640_kib_is_touched() -> None:
    kernel = fresh()
    write_params(kernel, trampoline_pa=0x7000)
    accepted(kernel)
    assert not any(kernel.read(LOW.start, 0x7000))
    assert not any(kernel.read(0x8000, LOW.stop - 0x8000))
