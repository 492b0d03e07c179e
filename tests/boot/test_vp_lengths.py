"""Lengths of instructions that exit, prefixes included, where the processor does not tell them."""

import pytest

from sidecar.layout.hv_messages import HvMessageType
from sidecar.qemu.hosted_vp import HostedVp
from tests.support import guests

PREFIXED = [
    (b"\x66\x0f\xa2", None),
    (b"\x48\x0f\xa2", None),
    (b"\x2e\x66\xf3\x41\x0f\xa2", None),
    (b"\x26" * 13 + b"\x0f\xa2", None),
    (b"\xf3\x90", None),
    (b"\x66\xf3\x48\x90", None),
    (b"\x66\x0f\x08", None),
    (b"\x48\x0f\x32", HvMessageType.X64_MSR_INTERCEPT),
    (b"\x67\x66\x0f\x30", HvMessageType.X64_MSR_INTERCEPT),
    (b"\x66\xf4", HvMessageType.X64_HALT),
    (b"\xf3\x48\xf4", HvMessageType.X64_HALT),
]


@pytest.mark.parametrize(("code", "kind"), PREFIXED)
@pytest.mark.parametrize("at", [guests.CODE, guests.CODE + 0x1000 - 1, guests.CODE + 0x1000 - 4])
def test_prefixes_count(vp: HostedVp, code: bytes, kind: HvMessageType | None, at: int) -> None:
    """Also across the end of a page."""
    guests.start_long(vp, "nop", at=at)
    vp.memory[at : at + len(code) + 1] = code + b"\xf4"
    end = at + len(code)
    outcome = vp.run(rax=0, rcx=0xC0011029)
    if kind is not None:
        message = guests.message(outcome, kind)
        assert message.instruction_length == len(code)
        outcome = vp.run(advance_rip=message.instruction_length)
    guests.halted_at(outcome, end)


def test_prefixes_of_code_that_changes(vp: HostedVp) -> None:
    """The page of code is kept between exits; what the guest stores into it is seen."""
    guests.start_long(vp, """
            mov     edi, place
            cpuid
            mov     dword ptr [rdi], 0xa20f6666     # two prefixes more
            jmp     place
            .align  16
    place:  nop
            nop
            nop
            nop
            hlt""")
    outcome = guests.halted(guests.asleep(vp).run(rax=0))
    assert outcome.local_exits == 2
    assert bytes(vp.memory[outcome.rip - 4 : outcome.rip]) == b"\x66\x66\x0f\xa2"


def test_the_page_of_code_is_read_again_when_memory_changes(vp: HostedVp) -> None:
    """Another page at the same address, with the instruction behind a prefix."""
    at = 0x10000
    guests.start_long(vp, "jmp rbx")
    pages = []
    for code in (b"\x0f\xa2\xf4", b"\x66\x0f\xa2\xf4"):
        page = vp.free.page()
        vp.free.ram.write(page, code)
        pages.append(page)
    for page, length in zip(pages, (2, 3), strict=True):
        vp.map(at, page, 4096)
        vp.vmcb.rip = guests.CODE
        guests.halted_at(vp.run(rbx=at), at + length)
