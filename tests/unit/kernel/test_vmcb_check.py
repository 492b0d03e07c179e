"""The VMCB checker: every rule broken by itself, in the kernel on an emulated CPU and on the host's side alike."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.builder import image
from sidecar.layout import PAGE_SIZE
from sidecar.layout.address_map import absolute_symbols
from sidecar.layout.private import VpGlobals
from sidecar.layout.svm import Intercept2, Vmcb, VmcbAttribute, VmcbEvent
from sidecar.layout.vmcb_rules import CR4_ALWAYS, CR4_FEATURES, EFER_ALWAYS, EFER_FEATURES, RULES, FeatureBit, VmcbRule
from sidecar.layout.x86 import Cpuid, Cr0, Cr4, Efer
from sidecar.protocol import vmcb
from tests.support.emulator import Emulator
from tests.support.synthetic import page
from tests.unit.kernel.helpers import BASE

PHYSICAL_BITS = 40
FULL = (1 << 64) - 1
MASKS = (-1 << PHYSICAL_BITS & FULL, ~(CR4_ALWAYS | int(Cr4.CET)) & FULL, ~EFER_ALWAYS & FULL)
"""Of a processor with 40 address bits and CET, and none of the other features."""

LONG_CODE = VmcbAttribute.PRESENT | VmcbAttribute.CODE_DATA | 0xB | VmcbAttribute.LONG
VALID: dict[str, Any] = {
    "intercept_misc2": Intercept2.VMRUN, "asid": 1, "iopm_pa": 0x1000, "msrpm_pa": 0x4000, "np_enable": 1,
    "n_cr3": 0x7000, "g_pat": 0x0007040600070406, "efer": Efer.SVME | Efer.LME | Efer.LMA,
    "cr0": Cr0.PE | Cr0.PG | Cr0.WP, "cr4": Cr4.PAE, "cr3": 0x8000, "dr6": 0xFFFF0FF0, "dr7": 0x400,
    "cs__attributes": LONG_CODE,
}  # fmt: skip
"""A guest in long mode that every processor enters."""

EVENT = VmcbEvent.VALID
BREAKS: dict[VmcbRule, list[dict[str, int]]] = {
    VmcbRule.EFER_SVME: [{"efer": Efer.LME | Efer.LMA}],
    VmcbRule.CR0_NW_WITHOUT_CD: [{"cr0": Cr0.PE | Cr0.PG | Cr0.WP | Cr0.NW}],
    VmcbRule.CR0_HIGH: [{"cr0": VALID["cr0"] | 1 << bit} for bit in (32, 63)],
    VmcbRule.CR3_RESERVED: [{"cr3": 1 << bit} for bit in (PHYSICAL_BITS, 63)],
    VmcbRule.CR4_RESERVED: [{"cr4": Cr4.PAE | 1 << bit} for bit in (11, 12, 16, 17, 18, 20, 21, 22, 24, 63)],
    VmcbRule.DR6_HIGH: [{"dr6": 1 << bit} for bit in (32, 63)],
    VmcbRule.DR7_HIGH: [{"dr7": 1 << bit} for bit in (32, 63)],
    VmcbRule.EFER_RESERVED: [{"efer": VALID["efer"] | 1 << bit} for bit in (1, 9, 13, 14, 15, 17, 21, 63)],
    VmcbRule.LONG_MODE_WITHOUT_PAE: [{"cr4": 0}],
    VmcbRule.LONG_MODE_WITHOUT_PE: [{"cr0": Cr0.PG | Cr0.WP}],
    VmcbRule.CS_L_AND_D: [{"cs__attributes": LONG_CODE | VmcbAttribute.DEFAULT}],
    VmcbRule.VMRUN_NOT_INTERCEPTED: [{"intercept_misc2": Intercept2.VMMCALL}],
    VmcbRule.IOPM_ADDRESS: [{"iopm_pa": 1 << PHYSICAL_BITS}],
    VmcbRule.MSRPM_ADDRESS: [{"msrpm_pa": 1 << PHYSICAL_BITS}],
    VmcbRule.EVENT_TYPE: [{"event_inj": EVENT | kind << 8 | 14} for kind in (1, 5, 6, 7)],
    VmcbRule.EVENT_VECTOR: [{"event_inj": EVENT | VmcbEvent.EXCEPTION | vector} for vector in (2, 32, 64, 128, 255)],
    VmcbRule.ASID_ZERO: [{"asid": 0}],
    VmcbRule.NESTED_ROOT: [{"n_cr3": 1 << PHYSICAL_BITS}],
    VmcbRule.PAT_TYPE: [{"g_pat": kind << 8 * entry} for entry in range(8) for kind in (2, 3, 8, 0x86)],
    VmcbRule.CET_WITHOUT_WP: [{"cr4": Cr4.PAE | Cr4.CET, "cr0": Cr0.PE | Cr0.PG}],
}
"""By rule: changes to VALID, each of which breaks it alone."""

ALLOWED: list[dict[str, int]] = [
    {},
    {"cr0": Cr0.PG | Cr0.WP, "efer": Efer.SVME},  # paged real mode
    {"cr0": VALID["cr0"] | Cr0.CD | Cr0.NW},
    {"cr4": Cr4.PAE | Cr4.CET},
    {"np_enable": 0, "n_cr3": 1 << 63, "g_pat": 2},
    {"event_inj": EVENT | VmcbEvent.NMI | 2},
    {"event_inj": EVENT | VmcbEvent.EXCEPTION | 31},
    {"event_inj": EVENT | VmcbEvent.SOFTWARE | 255},
    {"event_inj": VmcbEvent.EXCEPTION | 255},
    {"cs__attributes": LONG_CODE | VmcbAttribute.DEFAULT, "cr0": Cr0.PE},
]

GLOBALS_PA = BASE + absolute_symbols()["vp_globals"]
VMCB_PA = BASE + absolute_symbols()["vp_vmcb"]
MASKS_PA = GLOBALS_PA + VpGlobals.vp.missing_bits


@cache
def _kernel() -> Emulator:
    places = (range(GLOBALS_PA, GLOBALS_PA + PAGE_SIZE), range(VMCB_PA, VMCB_PA + PAGE_SIZE))
    return Emulator(image.kernel(), base=BASE, memory=places)


def kernel_says(data: bytes, masks: vmcb.Masks) -> tuple[int, int]:
    """Rule and value."""
    kernel = _kernel()
    kernel.reset()
    kernel.write(VMCB_PA, data)
    kernel.write(MASKS_PA, b"".join(mask.to_bytes(8, "little") for mask in masks))
    outcome = kernel.call("check_vmcb")
    return outcome.rax, outcome.registers["rdx"]


def first_broken(data: bytes, masks: vmcb.Masks) -> tuple[int, int]:
    """The same from the rules as data."""
    rules = vmcb.broken(data, masks)
    if not rules:
        return VmcbRule.NONE, 0
    place = next(field.offset for field in Vmcb.leaves() if field.name == rules[0].shows)
    return rules[0].number, int.from_bytes(data[place : place + 8], "little")


def test_every_rule_is_broken_by_a_test() -> None:
    assert set(BREAKS) == {rule.number for rule in RULES} == set(VmcbRule) - {VmcbRule.NONE}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_rule_is_broken_alone(rule: VmcbRule) -> None:
    for changes in BREAKS[rule]:
        data = page(Vmcb, **(VALID | changes))
        assert [one.number for one in vmcb.broken(data, MASKS)] == [rule], changes
        assert kernel_says(data, MASKS) == first_broken(data, MASKS), changes


@pytest.mark.parametrize("changes", ALLOWED)
def test_what_hardware_enters_is_let_through(changes: dict[str, int]) -> None:
    data = page(Vmcb, **(VALID | changes))
    assert vmcb.broken(data, MASKS) == []
    assert kernel_says(data, MASKS)[0] == VmcbRule.NONE


@given(st.binary(min_size=0x700, max_size=0x700), st.tuples(*[st.integers(1, FULL)] * 3))
def test_kernel_and_host_agree_on_any_vmcb(data: bytes, masks: vmcb.Masks) -> None:
    whole = data.ljust(PAGE_SIZE, b"\0")
    said, expected = kernel_says(whole, masks), first_broken(whole, masks)
    assert said[0] == expected[0]
    assert said[1] == expected[1] or not expected[0]


WORDS = {"eax": 0, "ebx": 1, "ecx": 2, "edx": 3}


@given(st.sets(st.sampled_from(CR4_FEATURES + EFER_FEATURES)), st.integers(36, 52))
def test_the_reserved_bits_are_those_whose_features_are_missing(features: set[FeatureBit], width: int) -> None:
    leaves: dict[int, list[int]] = {0: [7, 0, 0, 0], Cpuid.EXTENDED_MAX: [0x80000021, 0, 0, 0],
                                    Cpuid.ADDRESS_SIZES: [0x3000 | width, 0, 0, 0]}
    for one in features:
        leaves.setdefault(one.leaf, [0, 0, 0, 0])[WORDS[one.register]] |= 1 << one.cpuid_bit
    kernel = _kernel()
    kernel.reset()
    kernel.cpuid = {leaf: (a, b, c, d) for leaf, (a, b, c, d) in leaves.items()}
    kernel.write(VMCB_PA, page(Vmcb, **VALID))
    assert kernel.call("check_vmcb").rax == VmcbRule.NONE
    present = [sum(1 << one.bit for one in group if one in features) for group in (CR4_FEATURES, EFER_FEATURES)]
    assert [kernel.number(MASKS_PA + 8 * index) for index in range(3)] == [
        -1 << width & FULL, ~(CR4_ALWAYS | present[0]) & FULL, ~(EFER_ALWAYS | present[1]) & FULL
    ]


def test_leaves_that_a_processor_lacks_are_not_asked() -> None:
    kernel = _kernel()
    kernel.reset()
    answers: dict[int, tuple[int, int, int, int]] = {
        0: (1, 0, 0, 0), Cpuid.EXTENDED_MAX: (Cpuid.ADDRESS_SIZES, 0, 0, 0), Cpuid.ADDRESS_SIZES: (36, 0, 0, 0),
    }  # fmt: skip
    for leaf in (7, 0x80000021):
        answers[leaf] = (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    kernel.cpuid = answers
    kernel.write(VMCB_PA, page(Vmcb, **VALID))
    assert kernel.call("check_vmcb").rax == VmcbRule.NONE
    assert kernel.number(MASKS_PA + 8) == ~CR4_ALWAYS & FULL
