"""GET and SET of every register of a virtual processor on the emulated CPU, judged by the tests' model of the table."""

import struct
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.layout import MAX_REGISTERS
from sidecar.layout.command import CommandPage, CpuContextX64, GetSetVpRegisterRequest, HvRegisterAssoc
from sidecar.layout.diagnostics import PrivilegedPage
from sidecar.layout.hv_registers import HvRegisterName as Name
from sidecar.layout.private import VpGlobals
from sidecar.layout.register_table import REGISTERS, Register, RegisterRule
from sidecar.layout.svm import TlbControl, Vmcb
from sidecar.layout.x86 import Efer
from sidecar.protocol.requests import register_request, register_values
from tests.support.register_model import GET, NUMBERS, ROWS, SET, VP_NUMBERS, Pairs, RegisterModel
from tests.support.vp_emulator import VpEmulator

XCR0_MASK = 0xE7


@cache
def machine() -> VpEmulator:
    return VpEmulator()


def fresh() -> tuple[VpEmulator, RegisterModel]:
    """A virtual processor whose pages are zero, and the model of it."""
    vp, model = machine(), RegisterModel()
    vp.reset()
    vp.call("reset_vp")
    vp.set("vp_globals", vp.vp_state("xcr0_mask"), XCR0_MASK)
    model.give_vp(dict.fromkeys(VP_NUMBERS, 0), xcr0_mask=XCR0_MASK)
    return vp, model


def command(vp: VpEmulator, kind: int, pairs: Pairs) -> tuple[list[int], str | None, int]:
    """Values, the sentence of a refusal, and the status."""
    data = vp.at("command_page") + CommandPage.request_data
    vp.emulator.write(data, register_request(pairs))
    vp.set("command_page", CommandPage.has_error, 0, 1)
    vp.call("get_vp_registers", rax=kind)
    answer = vp.emulator.read(data, CommandPage.request_data.SIZE)
    (status,) = struct.unpack_from("<H", answer, int(GetSetVpRegisterRequest.status))
    sentence = None
    if vp.get("command_page", CommandPage.has_error, 1):
        length = vp.get("command_page", CommandPage.error.length, 1)
        sentence = vp.emulator.read(vp.at("command_page") + CommandPage.error.text, length).decode()
    return register_values(answer, len(pairs)), sentence, status


def compare(vp: VpEmulator, model: RegisterModel, kind: int, pairs: Pairs) -> None:
    values, sentence, status = command(vp, kind, pairs)
    expected = model.answer(kind, pairs)
    assert (sentence, status) == (expected.sentence, expected.status)
    if sentence is None:
        assert values == expected.values


def all_values(vp: VpEmulator) -> dict[int, int]:
    numbers = (*NUMBERS, *VP_NUMBERS)
    values: dict[int, int] = {}
    for start in range(0, len(numbers), MAX_REGISTERS):
        batch = numbers[start : start + MAX_REGISTERS]
        values |= zip(batch, command(vp, GET, [(number, 0) for number in batch])[0], strict=True)
    return values


def samples(row: Register) -> list[int]:
    """Values that differ in one bit each, all bits that may be given, and none."""
    width = 128 if row.wide else 64
    return [0, row.writable, *(1 << bit for bit in range(width)), (1 << 128) - 1, 1 << 64]


@pytest.mark.parametrize("row", [ROWS[number] for number in (*NUMBERS, *VP_NUMBERS)], ids=lambda row: row.name)
def test_every_bit_of_every_register(row: Register) -> None:
    vp, model = fresh()
    for value in samples(row):
        compare(vp, model, SET, [(row.number, value)])
        compare(vp, model, GET, [(row.number, 0)])
    assert all_values(vp) == model.values


def values_of(row: Register) -> st.SearchStrategy[int]:
    """Mostly values that may be given."""
    half = st.integers(0, (1 << 64) - 1)
    anything = st.builds(lambda low, high: high << 64 | low, half, half if row.wide else st.sampled_from([0, 0, 0, 1]))
    return st.one_of(anything.map(lambda value: value & row.writable), anything)


pair = st.sampled_from([*NUMBERS, *VP_NUMBERS]).flatmap(
    lambda number: st.tuples(st.just(number), values_of(ROWS[number]))
)
commands = st.lists(st.tuples(st.sampled_from([GET, SET, SET]), st.lists(pair, min_size=1, max_size=8)), max_size=6)


@settings(max_examples=300)
@given(commands)
def test_any_sequence_of_commands(sequence: list[tuple[int, Pairs]]) -> None:
    vp, model = fresh()
    for kind, pairs in sequence:
        compare(vp, model, kind, pairs)
    assert all_values(vp) == model.values


@settings(max_examples=300)
@given(
    st.sampled_from([Name.HvRegisterPendingInterruption, Name.HvRegisterPendingEvent0, Name.HvX64RegisterXfem]),
    st.integers(0, 15), st.integers(0, 40), st.booleans(), st.integers(0, 0xFFFFFFFF), st.integers(0, 0x3FF),
)  # fmt: skip
def test_events_and_components(number: int, low: int, vector: int, error: bool, code: int, components: int) -> None:
    vp, model = fresh()
    value = low | vector << 16 | (error and code << 32)
    if number == Name.HvRegisterPendingEvent0 and low >> 1 == 5:
        value = low | vector << 8
    compare(vp, model, SET, [(number, components if number == Name.HvX64RegisterXfem else value)])
    assert all_values(vp) == model.values


# --- where things are -------------------------------------------------------------------------------------------------


def test_segments_are_packed_as_the_vmcb_has_them() -> None:
    vp, _ = fresh()
    low, high = 0xFEDCBA98, 0xA0F3_0033_00FF_FFFF
    both = [(int(name), high << 64 | low) for name in (Name.HvX64RegisterSs, Name.HvX64RegisterFs)]
    assert command(vp, SET, both)[1] is None
    for place in (Vmcb.ss, Vmcb.fs):
        stored = vp.emulator.read(vp.at("vp_vmcb") + place, 16)
        assert struct.unpack("<HHIQ", stored) == (0x33, 0xAF3, 0xFFFFFF, low)
    assert vp.get("vp_vmcb", Vmcb.cpl, 1) == 3


def test_tables() -> None:
    vp, _ = fresh()
    command(vp, SET, [(Name.HvX64RegisterGdtr, 0xFFFF_8000_0000_1000 << 64 | 0x7F << 48)])
    assert (vp.get("vp_vmcb", Vmcb.gdtr.limit, 4), vp.get("vp_vmcb", Vmcb.gdtr.base)) == (0x7F, 0xFFFF_8000_0000_1000)


def test_general_registers_are_those_of_the_command_page() -> None:
    vp, _ = fresh()
    names = ["Rax", "Rcx", "Rdx", "Rbx", "Cr2", "Rbp", "Rsi", "Rdi", *(f"R{n}" for n in range(8, 16))]
    pairs = [(int(Name[f"HvX64Register{name}"]), 0x1000 + n) for n, name in enumerate(names)]
    assert command(vp, SET, pairs)[1] is None
    gps = [vp.get("command_page", CommandPage.cpu_context + CpuContextX64.gps + 8 * n) for n in range(16)]
    assert gps == [0x1000 + n for n in range(16)]


def test_svme_is_set_and_hidden() -> None:
    vp, model = fresh()
    compare(vp, model, SET, [(Name.HvX64RegisterEfer, Efer.SVME)])
    compare(vp, model, SET, [(Name.HvX64RegisterEfer, Efer.LME | Efer.NXE)])
    compare(vp, model, SET, [(Name.HvX64RegisterCr0, 0x80000001)])
    compare(vp, model, GET, [(Name.HvX64RegisterEfer, 0)])
    assert vp.get("vp_vmcb", Vmcb.efer) == Efer.SVME | Efer.LME | Efer.LMA | Efer.NXE
    assert model.values[Name.HvX64RegisterEfer] == Efer.LME | Efer.LMA | Efer.NXE


def test_what_else_shares_the_word_with_cr8_stays() -> None:
    vp, _ = fresh()
    vp.set("vp_vmcb", Vmcb.v_intr, 0xFF_0100_0000)
    command(vp, SET, [(Name.HvX64RegisterCr8, 9)])
    assert vp.get("vp_vmcb", Vmcb.v_intr) == 0xFF_0100_0009


def test_the_tsc_goes_on_from_what_was_set() -> None:
    vp, _ = fresh()
    command(vp, SET, [(Name.HvX64RegisterTsc, 1 << 62)])
    values = [command(vp, GET, [(Name.HvX64RegisterTsc, 0)])[0][0] for _ in range(2)]
    assert 1 << 62 <= values[0] <= values[1] < 1 << 63


def test_set_asks_for_a_check_of_the_state_and_for_a_flush() -> None:
    vp, _ = fresh()
    vp.set("vp_globals", vp.vp_state("check_needed"), 0, 4)

    def asked() -> tuple[int, int]:
        return vp.get("vp_globals", vp.vp_state("check_needed"), 4), vp.get("vp_vmcb", Vmcb.tlb_control, 1)

    command(vp, GET, [(Name.HvX64RegisterCr3, 0)])
    command(vp, SET, [(Name.HvX64RegisterDr0, 0)])
    assert asked() == (0, TlbControl.KEEP)
    command(vp, SET, [(Name.HvX64RegisterCr3, 0)])
    assert asked() == (1, TlbControl.FLUSH_ALL)


def test_without_a_virtual_processor_nothing_of_it_is_touched() -> None:
    vp, _ = fresh()
    vp.set("privileged_page", PrivilegedPage.vp_created, 0)
    vp.set("vp_globals", vp.vp_state("created"), 0)
    model = RegisterModel()
    before = vp.emulator.read(vp.at("vp_vmcb"), Vmcb.SIZE)
    compare(vp, model, SET, [(Name.HvX64RegisterDr0, 5), (Name.HvX64RegisterCr3, 0x1000), (Name.HvX64RegisterDr1, 6)])
    compare(vp, model, GET, [(Name.HvX64RegisterXmm0, 0)])
    assert vp.emulator.read(vp.at("vp_vmcb"), Vmcb.SIZE) == before


def test_bits_that_the_manual_allows() -> None:
    """Written out: table and model have their masks from the same place."""
    writable = {row.name.removeprefix("HvX64Register").removeprefix("HvRegister"): row.writable for row in REGISTERS}
    assert {name: writable[name] for name in ("Cr0", "Cr4", "Cr8", "Efer", "Rflags", "Sfmask")} == {
        "Cr0": 0xE005003F, "Cr4": 0x771FFF, "Cr8": 0xF, "Efer": 0xD01, "Rflags": 0x3F7FD7, "Sfmask": 0xFFFFFFFF,
    }  # fmt: skip
    assert writable["Cs"] == 0xF0FF_FFFF_FFFF_FFFF_0000_0000_FFFF_FFFF
    assert writable["Tr"] == 0xF0FF_FFFF_FFFF_FFFF_FFFF_FFFF_FFFF_FFFF
    assert writable["Idtr"] == 0xFFFF_FFFF_FFFF_FFFF_FFFF_0000_0000_0000
    assert (writable["PendingInterruption"], writable["InterruptState"]) == (0xFFFFFFFF_00FF01FF, 3)
    assert (writable["PendingEvent0"], writable["DeliverabilityNotifications"]) == ((1 << 128) - 1 - 0xF0, 0x3F)


def test_every_register_has_a_place_of_its_own() -> None:
    rows = [(row.place, row.place + (16 if row.wide else 8)) for row in REGISTERS if row.rule is not RegisterRule.BYTE]
    rows.sort()
    assert all(before[1] <= after[0] for before, after in pairwise(rows))
    assert all(register.place < 1 << 24 and register.number < 1 << 24 for register in REGISTERS)
    assert 8 * len(NUMBERS) == VpGlobals.registers.SIZE
    assert HvRegisterAssoc.SIZE * MAX_REGISTERS + GetSetVpRegisterRequest.SIZE <= CommandPage.request_data.SIZE
