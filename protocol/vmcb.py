"""A VMCB from a machine's memory: its fields as plain data, and which of VMRUN's rules it breaks.

Host side, read only. The rules are those that the kernel applies before a run; here all broken ones are told, not the
first alone, and also of a state that no run has been tried with.

Ref: AMD64 APM vol. 2, 15.5.1 and appendix B.
"""

from __future__ import annotations

from sidecar.layout import PAGE_SIZE, PrivatePage, PrivilegedPage
from sidecar.layout.private import VpGlobals
from sidecar.layout.schema import Field
from sidecar.layout.svm import SvmExit, Vmcb, VmcbSegment, VpPage
from sidecar.layout.vmcb_rules import RULES, Rule, VmcbTest
from sidecar.protocol.decode import Decoded, name_of
from sidecar.protocol.machine import Cpu, Discovered
from sidecar.protocol.memory import Memory

Masks = tuple[int, int, int]
"""Reserved bits of physical addresses, CR4 and EFER, in the order of VmcbLimit."""

UNKNOWN_MASKS: Masks = (0xFFF << 52, 0, 0)
"""What no processor has, for a virtual processor that has not been checked on its CPU yet."""

FIELDS = tuple(field for field in Vmcb.fields if not field.name.startswith("reserved"))
_PLACES = {field.name: field for field in Vmcb.leaves()}


class NoVirtualProcessor(Exception):
    """The CPU has none, so there is no VMCB."""


def broken(vmcb: bytes, masks: Masks) -> list[Rule]:
    """Every rule that the VMCB breaks, in the order in which the kernel tries them. `vmcb` has 4096 bytes."""
    return [rule for rule in RULES if any(_holds(alternative, vmcb, masks) for alternative in rule.alternatives)]


def _holds(alternative: tuple[VmcbTest, ...], vmcb: bytes, masks: Masks) -> bool:
    return all(test.holds(_word(vmcb, _PLACES[test.field]), masks) for test in alternative)


def _word(vmcb: bytes, field: Field) -> int:
    """64 bits from the field on, as the kernel reads them."""
    return int.from_bytes(vmcb[field.offset : field.offset + 8], "little")


def of_cpu(found: Discovered, memory: Memory, cpu: Cpu) -> Decoded:
    """The VMCB of the CPU's virtual processor. Raises NoVirtualProcessor, DiscoveryError."""
    privileged = PrivilegedPage.parse(memory.read(found.private_page_pa(cpu, PrivatePage.PRIVILEGED), PAGE_SIZE))
    if not privileged.vp_created:
        raise NoVirtualProcessor(f"CPU {cpu.linux_number} has no virtual processor")
    state = VpGlobals.parse(memory.read(found.private_page_pa(cpu, PrivatePage.GLOBALS), PAGE_SIZE)).vp
    known = state.created == privileged.vp_created and state.missing_bits[0]
    masks: Masks = tuple(state.missing_bits) if known else UNKNOWN_MASKS
    vmcb_pa = privileged.vp_pages_pa + VpPage.VMCB * PAGE_SIZE
    return {"linux_number": cpu.linux_number, "vmcb_pa": vmcb_pa, **describe(memory.read(vmcb_pa, PAGE_SIZE), masks)}


def describe(vmcb: bytes, masks: Masks) -> Decoded:
    """Every field by its name in `layout/svm.py`; segments as nested fields; the exit code also by name."""
    parsed = Vmcb.parse(vmcb)
    fields: Decoded = {}
    for field in FIELDS:
        value = parsed[field.name]
        if field.nested is VmcbSegment:
            fields[field.name] = {part.name: int(value[part.name]) for part in VmcbSegment.fields}
        else:
            fields[field.name] = value.hex() if isinstance(value, bytes) else int(value)
    return {
        "exit": exit_name(int(parsed.exit_code)),
        "broken": [
            {"rule": rule.number.name.lower(), "sentence": rule.sentence, "reference": rule.reference,
             "value": _word(vmcb, _PLACES[rule.shows])}
            for rule in broken(vmcb, masks)
        ],
        "fields": fields,
    }


def exit_name(code: int) -> str:
    """The exit code's name in lower case; exceptions with their vector.

    >>> exit_name(0x78), exit_name(0x4E), exit_name(0xFFFF_FFFF_FFFF_FFFF)
    ('hlt', 'exception 14', 'invalid')
    """
    if code & 0xFFFFFFFF == SvmExit.INVALID:
        return "invalid"
    if SvmExit.EXCEPTION_0 <= code < SvmExit.EXCEPTION_0 + 32:
        return f"exception {code - SvmExit.EXCEPTION_0}"
    return name_of(SvmExit, code)
