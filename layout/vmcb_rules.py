"""The consistency rules of VMRUN, as data: what the processor refuses to enter a guest with, and where that is written.

The kernel walks `entries()` over the VMCB before a run that follows a change of registers; `sidecar.protocol.vmcb`
walks the same rules over a VMCB that it reads from a machine. TCG enters guests that hardware refuses.

Ref: AMD64 APM vol. 2, 15.5.1 ("Canonicalization and Consistency Checks") for all; others are named at the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from sidecar.layout.parts import Int8ul, Int16ul, Int64ul, Struct
from sidecar.layout.schema import Layout, register_enum
from sidecar.layout.svm import Intercept2, Vmcb, VmcbAttribute, VmcbEvent
from sidecar.layout.x86 import Cr0, Cr4, Efer

_HIGH = 0xFFFFFFFF << 32


class VmcbLimit(IntEnum):
    """Masks of reserved bits that depend on the processor, in the order of VpState.missing_bits."""

    PHYSICAL = 0
    """Bits above the width of physical addresses. Ref: CPUID 8000_0008, EAX."""
    CR4 = 1
    """Bits of CR4 whose features this processor lacks."""
    EFER = 2
    """Likewise of EFER."""


@dataclass(frozen=True, slots=True)
class VmcbTest:
    """`field & mask` compared with `value`; with a limit the processor's mask stands for `mask`."""

    field: str
    mask: int | VmcbLimit
    value: int
    equal: bool = True

    def holds(self, found: int, limits: tuple[int, int, int]) -> bool:
        """For the 64 bits at the field's place, and the processor's masks."""
        mask = limits[self.mask] if isinstance(self.mask, VmcbLimit) else self.mask
        return ((found & mask) == self.value) == self.equal


@register_enum
class VmcbRule(IntEnum):
    """Numbers of the rules, as InvalidVpRegisterMessage.rule and the dumps give them."""

    NONE = 0
    EFER_SVME = 1
    CR0_NW_WITHOUT_CD = 2
    CR0_HIGH = 3
    CR3_RESERVED = 4
    CR4_RESERVED = 5
    DR6_HIGH = 6
    DR7_HIGH = 7
    EFER_RESERVED = 8
    LONG_MODE_WITHOUT_PAE = 9
    LONG_MODE_WITHOUT_PE = 10
    CS_L_AND_D = 11
    VMRUN_NOT_INTERCEPTED = 12
    IOPM_ADDRESS = 13
    MSRPM_ADDRESS = 14
    EVENT_TYPE = 15
    EVENT_VECTOR = 16
    ASID_ZERO = 17
    NESTED_ROOT = 18
    PAT_TYPE = 19
    CET_WITHOUT_WP = 20


@dataclass(frozen=True, slots=True)
class Rule:
    """Broken if all tests of one alternative hold. `shows` is the field whose value is reported."""

    number: VmcbRule
    sentence: str
    reference: str
    alternatives: tuple[tuple[VmcbTest, ...], ...]

    @property
    def shows(self) -> str:
        return self.alternatives[0][0].field


def _set(field: str, bits: int) -> VmcbTest:
    return VmcbTest(field, bits, bits)


def _any(field: str, mask: int | VmcbLimit) -> VmcbTest:
    return VmcbTest(field, mask, 0, equal=False)


def _clear(field: str, bits: int) -> VmcbTest:
    return VmcbTest(field, bits, 0)


def _value(field: str, mask: int, value: int) -> VmcbTest:
    return VmcbTest(field, mask, value)


_CHECKS = "APM vol. 2, 15.5.1"
_EVENTS = "APM vol. 2, 15.20"
_PAGING = "APM vol. 2, 15.25.3"
_VALID_EXCEPTION = VmcbEvent.VALID | VmcbEvent.TYPE
_AN_EXCEPTION = VmcbEvent.VALID | VmcbEvent.EXCEPTION
_LONG = _set("efer", Efer.LME)
_PAGED = _set("cr0", Cr0.PG)

RULES: tuple[Rule, ...] = (
    Rule(VmcbRule.EFER_SVME, "EFER.SVME is 0", _CHECKS, ((_clear("efer", Efer.SVME),),)),
    Rule(VmcbRule.CR0_NW_WITHOUT_CD, "CR0.NW is 1 and CR0.CD is 0", _CHECKS,
         ((_value("cr0", Cr0.CD | Cr0.NW, Cr0.NW),),)),
    Rule(VmcbRule.CR0_HIGH, "bits 32 to 63 of CR0 are not 0", _CHECKS, ((_any("cr0", _HIGH),),)),
    Rule(VmcbRule.CR3_RESERVED, "reserved bits of CR3 are not 0", _CHECKS, ((_any("cr3", VmcbLimit.PHYSICAL),),)),
    Rule(VmcbRule.CR4_RESERVED, "bits of CR4 that this processor lacks are not 0", _CHECKS,
         ((_any("cr4", VmcbLimit.CR4),),)),
    Rule(VmcbRule.DR6_HIGH, "bits 32 to 63 of DR6 are not 0", _CHECKS, ((_any("dr6", _HIGH),),)),
    Rule(VmcbRule.DR7_HIGH, "bits 32 to 63 of DR7 are not 0", _CHECKS, ((_any("dr7", _HIGH),),)),
    Rule(VmcbRule.EFER_RESERVED, "bits of EFER that this processor lacks are not 0", _CHECKS,
         ((_any("efer", VmcbLimit.EFER),),)),
    Rule(VmcbRule.LONG_MODE_WITHOUT_PAE, "EFER.LME and CR0.PG are 1 and CR4.PAE is 0", _CHECKS,
         ((_clear("cr4", Cr4.PAE), _LONG, _PAGED),)),
    Rule(VmcbRule.LONG_MODE_WITHOUT_PE, "EFER.LME and CR0.PG are 1 and CR0.PE is 0", _CHECKS,
         ((_value("cr0", Cr0.PG | Cr0.PE, Cr0.PG), _LONG),)),
    Rule(VmcbRule.CS_L_AND_D, "EFER.LME, CR0.PG, CR4.PAE, CS.L and CS.D are all 1", _CHECKS,
         ((_set("cs.attributes", VmcbAttribute.LONG | VmcbAttribute.DEFAULT), _LONG, _PAGED,
           _set("cr4", Cr4.PAE)),)),
    Rule(VmcbRule.CET_WITHOUT_WP, "CR4.CET is 1 and CR0.WP is 0", _CHECKS,
         ((_set("cr4", Cr4.CET), _clear("cr0", Cr0.WP)),)),
    Rule(VmcbRule.VMRUN_NOT_INTERCEPTED, "VMRUN is not intercepted", _CHECKS,
         ((_clear("intercept_misc2", Intercept2.VMRUN),),)),
    Rule(VmcbRule.IOPM_ADDRESS, "the I/O permission map is beyond the physical addresses", _CHECKS,
         ((_any("iopm_pa", VmcbLimit.PHYSICAL),),)),
    Rule(VmcbRule.MSRPM_ADDRESS, "the MSR permission map is beyond the physical addresses", _CHECKS,
         ((_any("msrpm_pa", VmcbLimit.PHYSICAL),),)),
    Rule(VmcbRule.EVENT_TYPE, "the event to inject has a reserved type", _EVENTS,
         tuple((_value("event_inj", _VALID_EXCEPTION, VmcbEvent.VALID | kind << 8),) for kind in (1, 5, 6, 7))),
    Rule(VmcbRule.EVENT_VECTOR, "the exception to inject has a vector that is none: 2, or above 31", _EVENTS,
         ((_value("event_inj", _VALID_EXCEPTION | VmcbEvent.VECTOR, _AN_EXCEPTION | 2),),
          *((_value("event_inj", _VALID_EXCEPTION | 1 << bit, _AN_EXCEPTION | 1 << bit),) for bit in (5, 6, 7)))),
    Rule(VmcbRule.ASID_ZERO, "the ASID is 0, the host's", _CHECKS, ((_clear("asid", 0xFFFFFFFF),),)),
    Rule(VmcbRule.NESTED_ROOT, "nested paging is on and reserved bits of its root are not 0", _PAGING,
         ((_any("n_cr3", VmcbLimit.PHYSICAL), _set("np_enable", 1)),)),
    Rule(VmcbRule.PAT_TYPE, "nested paging is on and the PAT has a reserved memory type", _PAGING,
         ((_any("g_pat", 0xF8F8F8F8F8F8F8F8), _set("np_enable", 1)),
          *((_value("g_pat", 6 << 8 * entry, 2 << 8 * entry), _set("np_enable", 1)) for entry in range(8)))),
)
"""In the order in which they are tried. Paging without protection (CR0.PG without PE) is legal under SVM, 15.19."""

SENTENCES = {rule.number: rule.sentence for rule in RULES}

VmcbTestEntry = Layout(
    "VmcbTestEntry",
    Struct(
        "offset" / Int16ul * "of the field in the VMCB, 64 bits of which are read",
        "rule" / Int8ul * "VmcbRule",
        "last" / Int8ul * "1: the last test of an alternative, and so the rule is broken if it holds",
        "limit" / Int8ul * "0: mask is used; else 1 + VmcbLimit",
        "equal" / Int8ul * "1: holds if equal; 0: if not",
        "shows" / Int16ul * "offset of the field that is reported",
        "mask" / Int64ul * "bits that are compared",
        "value" / Int64ul * "what they are compared with",
    ),
    size=24,
    doc="One test of a rule as the kernel walks it; an entry of rule 0 ends the table.",
)


_OFFSETS = {field.name: field.offset for field in Vmcb.leaves()}


def entries() -> list[dict[str, int]]:
    """The table for the kernel, field by field."""
    table = []
    for rule in RULES:
        for alternative in rule.alternatives:
            for test in alternative:
                limited = isinstance(test.mask, VmcbLimit)
                table.append({
                    "offset": _OFFSETS[test.field],
                    "rule": int(rule.number),
                    "last": int(test is alternative[-1]),
                    "limit": 1 + int(test.mask) if limited else 0,
                    "equal": int(test.equal),
                    "shows": _OFFSETS[rule.shows],
                    "mask": 0 if limited else int(test.mask),
                    "value": int(test.value),
                })
    return table


@dataclass(frozen=True, slots=True)
class FeatureBit:
    """A bit of CR4 or EFER that a processor has if CPUID says so. Ref: APM vol. 3, appendix E."""

    bit: int
    leaf: int
    register: str
    cpuid_bit: int


CR4_ALWAYS = 0x7FF
"""VME to OSXMMEXCPT, which every processor with SVM has."""
CR4_FEATURES = (
    FeatureBit(11, 7, "ecx", 2),  # UMIP
    FeatureBit(12, 7, "ecx", 16),  # LA57
    FeatureBit(16, 7, "ebx", 0),  # FSGSBASE
    FeatureBit(17, 1, "ecx", 17),  # PCIDE
    FeatureBit(18, 1, "ecx", 26),  # OSXSAVE
    FeatureBit(20, 7, "ebx", 7),  # SMEP
    FeatureBit(21, 7, "ebx", 20),  # SMAP
    FeatureBit(22, 7, "ecx", 3),  # PKE
    FeatureBit(23, 7, "ecx", 7),  # CET
)
EFER_ALWAYS = int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME)
EFER_FEATURES = (
    FeatureBit(14, 0x80000001, "edx", 25),  # FFXSR
    FeatureBit(15, 0x80000001, "ecx", 17),  # TCE
    FeatureBit(17, 0x80000008, "ebx", 8),  # MCOMMIT
    FeatureBit(18, 0x80000008, "ebx", 13),  # INTWB
    FeatureBit(20, 0x80000021, "eax", 7),  # UAIE
    FeatureBit(21, 0x80000021, "eax", 8),  # AIBRSE
)
