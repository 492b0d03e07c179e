"""The guest page walker on the emulated CPU, judged by a reader of its own, over random page tables of every mode."""

import struct
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.layout import PAGE_SIZE
from sidecar.layout.command import CommandPage, HvStatus, SidecarCommand
from sidecar.layout.diagnostics import PrivilegedPage
from sidecar.layout.hv import (
    HvPendingEvent,
    HvTranslateFlags,
    HvTranslateResult,
    TranslateGvaRequest,
    TranslateGvaResponse,
)
from sidecar.layout.svm import NestedFault, Vmcb, VmcbAttribute
from sidecar.layout.x86 import Cr0, Cr4, Efer, Pte, Rflags
from tests.support.guest_tables import MODES, RandomGuest
from tests.support.guest_walk_model import Translation
from tests.support.vp_emulator import VpEmulator

FLAGS = tuple(flag for flag in HvTranslateFlags if flag is not HvTranslateFlags.INPUT_VTL)
BOTH_SMAP = HvTranslateFlags.ENFORCE_SMAP | HvTranslateFlags.OVERRIDE_SMAP


@cache
def machine() -> VpEmulator:
    return VpEmulator()


@pytest.fixture
def vp() -> VpEmulator:
    machine().reset()
    return machine()


def command(vp: VpEmulator, gvn: int, flags: int) -> None:
    """The command as a client gives it; no window is left."""
    vp.set("command_page", CommandPage.request_data, TranslateGvaRequest.build(gvn=gvn, control_flags=flags))
    vp.set("command_page", CommandPage.has_error, 0, 1)
    vp.call("translate_gva", rax=SidecarCommand.TRANSLATE_GVA)
    assert not any(vp.windows())


def sentence(vp: VpEmulator) -> str:
    length = vp.get("command_page", CommandPage.error.length, 1)
    assert vp.get("command_page", CommandPage.has_error, 1)
    return vp.emulator.read(vp.at("command_page") + CommandPage.error.text, length).decode()


def response(vp: VpEmulator) -> bytes:
    return vp.emulator.read(vp.at("command_page") + CommandPage.request_data, TranslateGvaResponse.SIZE)


def expected(found: Translation) -> bytes:
    """The answer as the judge has it."""
    event = [0, 0, 0, 0]
    if found.event:
        vector, code, address = found.event
        event[:2] = HvPendingEvent.PENDING | HvPendingEvent.DELIVER_ERROR_CODE | vector << 16 | code << 32, address
    return TranslateGvaResponse.build(
        status=HvStatus.SUCCESS, level=found.level, result_code=found.result, cache_type=found.cache_type,
        event_info=event, gpa_page=found.gpa >> 12,
    )  # fmt: skip


def compare(seed: int, flags: int) -> Translation:
    """One command over one random guest: answer and guest memory."""
    vp, guest = machine(), RandomGuest(seed)
    guest.put(vp)
    found = guest.model(vp).translate(guest.linear, flags)
    size = 4 if guest.mode == "32" else 8
    before = vp.guest_memory()
    command(vp, guest.linear >> 12, flags)
    assert response(vp) == expected(found), (guest, found)
    after = bytearray(before)
    for address, entry in found.marks.items():
        page = vp.pages[address >> 12]
        start = page.frame * PAGE_SIZE + address % PAGE_SIZE
        after[start : start + size] = entry.to_bytes(size, "little")
    assert vp.guest_memory() == bytes(after)
    return found


flags = st.sets(st.sampled_from(FLAGS)).map(sum).filter(lambda some: some & BOTH_SMAP != BOTH_SMAP)


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, (1 << 64) - 1), flags)
def test_walker_and_judge_agree(seed: int, flags: int) -> None:
    compare(seed, flags)


def test_random_guests_reach_every_result_in_every_mode() -> None:
    """The random guests are good for something: no kind of answer is missing."""
    seen: Counter[tuple[str, str]] = Counter()
    everything = HvTranslateFlags.VALIDATE_WRITE | HvTranslateFlags.SET_PAGE_TABLE_BITS
    for seed in range(4000):
        flags = (everything, HvTranslateFlags.VALIDATE_EXECUTE, HvTranslateFlags.VALIDATE_READ)[seed % 3]
        guest = RandomGuest(seed)
        guest.put(machine())
        seen[guest.mode, guest.model(machine()).translate(guest.linear, flags).result.name] += 1
    nested = ("SUCCESS", "GPA_UNMAPPED", "GPA_NO_READ_ACCESS", "GPA_NO_WRITE_ACCESS")
    own = ("PAGE_NOT_PRESENT", "PRIVILEGE_VIOLATION", "INVALID_PAGE_TABLE_FLAGS")
    wanted = {(mode, name) for mode in MODES for name in (nested if mode == "none" else nested + own)}
    assert set(seen) == wanted


# --- by hand ----------------------------------------------------------------------------------------------------------


def four_levels(vp: VpEmulator, *, leaf: int, cr4: int = 0) -> int:
    """Tables in pages 1 to 4 that lead 0x7000_0040_3000 to page 5; gives the page's number."""
    linear = 0x7000_0040_3000
    for page in range(1, 6):
        vp.nested(page << 12, page)
    for page, shift in ((1, 39), (2, 30), (3, 21), (4, 12)):
        entry = (page + 1) << 12 | (leaf if page == 4 else Pte.PRESENT | Pte.WRITE | Pte.USER)
        vp.write_guest((page << 12) + (linear >> shift) % 512 * 8, struct.pack("<Q", entry))
    for name, value in (
        ("cr0", Cr0.PE | Cr0.PG | Cr0.WP), ("cr3", 0x1000), ("cr4", Cr4.PAE | cr4), ("rflags", Rflags.FIXED),
        ("efer", Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME), ("g_pat", 0x0007040600070406),
    ):  # fmt: skip
        vp.set("vp_vmcb", int(getattr(Vmcb, name)), value)
    return linear >> 12


def result(vp: VpEmulator) -> tuple[str, int]:
    answer = TranslateGvaResponse.parse(response(vp))
    return HvTranslateResult(answer.result_code).name, answer.gpa_page


def test_a_write_marks_the_path(vp: VpEmulator) -> None:
    page = four_levels(vp, leaf=Pte.PRESENT | Pte.WRITE)
    command(vp, page, HvTranslateFlags.VALIDATE_WRITE | HvTranslateFlags.SET_PAGE_TABLE_BITS)
    assert result(vp) == ("SUCCESS", 5)
    marks = [vp.read_guest((table << 12) + (page << 12 >> shift) % 512 * 8, 1)[0] for table, shift in (
        (1, 39), (2, 30), (3, 21), (4, 12),
    )]  # fmt: skip
    assert [mark & (Pte.ACCESSED | Pte.DIRTY) for mark in marks] == [0x20, 0x20, 0x20, 0x60]


def test_supervisor_access_to_user_pages(vp: VpEmulator) -> None:
    page = four_levels(vp, leaf=Pte.PRESENT | Pte.WRITE | Pte.USER, cr4=Cr4.SMEP | Cr4.SMAP)
    for flags, name in (
        (HvTranslateFlags.VALIDATE_READ, "PRIVILEGE_VIOLATION"),
        (HvTranslateFlags.VALIDATE_READ | HvTranslateFlags.OVERRIDE_SMAP, "SUCCESS"),
        (HvTranslateFlags.VALIDATE_EXECUTE | HvTranslateFlags.OVERRIDE_SMAP, "PRIVILEGE_VIOLATION"),
        (HvTranslateFlags.VALIDATE_EXECUTE | HvTranslateFlags.USER_ACCESS, "SUCCESS"),
        (HvTranslateFlags.VALIDATE_EXECUTE | HvTranslateFlags.PRIVILEGE_EXEMPT, "SUCCESS"),
    ):
        command(vp, page, flags)
        assert result(vp)[0] == name, flags
    vp.set("vp_vmcb", Vmcb.rflags, Rflags.FIXED | Rflags.AC)
    command(vp, page, HvTranslateFlags.VALIDATE_READ)
    assert result(vp) == ("SUCCESS", 5)
    command(vp, page, HvTranslateFlags.VALIDATE_READ | HvTranslateFlags.ENFORCE_SMAP)
    assert result(vp)[0] == "PRIVILEGE_VIOLATION"


def test_refused_requests(vp: VpEmulator) -> None:
    four_levels(vp, leaf=int(Pte.PRESENT))
    for gvn, flags, text in (
        (1 << 52, 0, "command 4: page 0x10000000000000, expected less than 2^52"),
        (0, 1 << 10, "command 4: control flags 0x400 are not known, or enforce and override SMAP at once"),
        (0, 1 << 56, "command 4: control flags 0x100000000000000 are not known, or enforce and override SMAP at once"),
        (0, BOTH_SMAP, "command 4: control flags 0x300 are not known, or enforce and override SMAP at once"),
    ):
        command(vp, gvn, flags)
        assert sentence(vp) == text
        assert int.from_bytes(response(vp)[:2], "little") == HvStatus.INVALID_PARAMETER


def test_without_a_virtual_processor(vp: VpEmulator) -> None:
    vp.set("privileged_page", PrivilegedPage.vp_created, 0)
    vp.set("vp_globals", vp.vp_state("created"), 0)
    command(vp, 0, 0)
    assert sentence(vp) == "command 4: this CPU was given no virtual processor"
    assert int.from_bytes(response(vp)[:2], "little") == HvStatus.INVALID_VP_STATE


@pytest.mark.parametrize("times", [0, 1, 5, 63])
def test_tables_that_another_cpu_changes_are_read_again(vp: VpEmulator, times: int) -> None:
    page = four_levels(vp, leaf=Pte.PRESENT | Pte.WRITE)
    changes = changing(vp, page, times)
    with vp.whenever("walk_mark", changes.__next__):
        command(vp, page, HvTranslateFlags.VALIDATE_WRITE | HvTranslateFlags.SET_PAGE_TABLE_BITS)
    assert result(vp) == ("SUCCESS", 5)
    assert leaf(vp, page) == 5 << 12 | Pte.PRESENT | Pte.WRITE | Pte.ACCESSED | Pte.DIRTY | times << 9 & 0xE00


def test_tables_that_change_all_the_time(vp: VpEmulator) -> None:
    page = four_levels(vp, leaf=Pte.PRESENT | Pte.WRITE)
    changes = changing(vp, page, 1000)
    with vp.whenever("walk_mark", changes.__next__):
        command(vp, page, HvTranslateFlags.VALIDATE_WRITE | HvTranslateFlags.SET_PAGE_TABLE_BITS)
    assert sentence(vp) == "command 4: the guest's page tables change all the time"
    assert leaf(vp, page) & (Pte.ACCESSED | Pte.DIRTY) == 0


def leaf(vp: VpEmulator, page: int) -> int:
    return int.from_bytes(vp.read_guest(0x4000 + page % 512 * 8, 8), "little")


def changing(vp: VpEmulator, page: int, times: int) -> Iterator[None]:
    """Counts in the free bits of the last entry, `times` times."""
    address = 0x4000 + page % 512 * 8
    for count in range(1, times + 1):
        vp.write_guest(address, struct.pack("<Q", leaf(vp, page) & ~0xE00 | count << 9 & 0xE00))
        yield
    while True:
        yield


# --- guest memory -----------------------------------------------------------------------------------------------------


def test_a_window_shows_the_page_with_the_rights_that_were_asked_for(vp: VpEmulator) -> None:
    vp.nested(0x5000, 3)
    for access, rights in ((0, Pte.PRESENT), (NestedFault.WRITE, Pte.PRESENT | Pte.WRITE)):
        for window in range(8):
            done = vp.call("guest_page", rdi=0x5123, rsi=window, rdx=access)
            assert done.rax == vp.at("guest_windows") + window * PAGE_SIZE + 0x123
            assert vp.windows()[window] == vp.frame(3) | rights | Pte.NX
        vp.call("drop_windows")
        assert not any(vp.windows())


@pytest.mark.parametrize("gpa", [0x6000, 0x20_0000, 1 << 30, 1 << 39, 1 << 47, 1 << 48, 1 << 63, 0x5000 | 1 << 48])
def test_what_the_guest_does_not_have(vp: VpEmulator, gpa: int) -> None:
    vp.nested(0x5000, 3)
    done = vp.call("guest_page", rdi=gpa, rsi=0, rdx=0)
    assert (done.rax, done.registers["rcx"]) == (0, HvTranslateResult.GPA_UNMAPPED)


# --- the instruction --------------------------------------------------------------------------------------------------


def fetched(vp: VpEmulator) -> bytes:
    vp.call("fetch_instruction")
    assert not any(vp.windows())
    count = vp.get("vp_globals", vp.vp_state("instruction_count"), 4)
    return vp.emulator.read(vp.at("vp_globals") + vp.vp_state("instruction"), count)


@pytest.mark.parametrize("offset", [0, 1, 0xFF0, 0xFF1, 0xFF2, 0xFFE, 0xFFF])
@pytest.mark.parametrize("second", [True, False], ids=["two pages", "one page"])
def test_instruction_in_real_mode(vp: VpEmulator, offset: int, second: bool) -> None:
    text = bytes(range(1, 32))
    vp.nested(0x1_5000, 1)
    vp.write_guest(0x1_5000 + offset, text[: PAGE_SIZE - offset])
    if second:
        vp.nested(0x1_6000, 2)
        vp.write_guest(0x1_6000, text[PAGE_SIZE - offset :] if PAGE_SIZE - offset < len(text) else b"")
    vp.set("vp_vmcb", Vmcb.cs.base, 0x1_0000)
    vp.set("vp_vmcb", Vmcb.rip, 0x5000 + offset)
    assert fetched(vp) == text[: 15 if second else min(15, PAGE_SIZE - offset)]


def test_instruction_in_long_mode_ignores_the_base_of_cs(vp: VpEmulator) -> None:
    page = four_levels(vp, leaf=int(Pte.PRESENT | Pte.NX))
    vp.write_guest(0x5FFD, b"\x0f\x01\xd9")
    vp.set("vp_vmcb", Vmcb.cs.base, 0x1_0000)
    vp.set("vp_vmcb", Vmcb.cs.attributes, VmcbAttribute.LONG, 2)
    vp.set("vp_vmcb", Vmcb.rip, (page << 12) + 0xFFD)
    assert fetched(vp) == b"\x0f\x01\xd9"


def test_no_instruction_where_nothing_is_mapped(vp: VpEmulator) -> None:
    vp.set("vp_vmcb", Vmcb.rip, 0x5000)
    assert fetched(vp) == b""
