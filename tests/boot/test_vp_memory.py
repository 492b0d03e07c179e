"""Memory that a guest does not have, or not with the right it needs; and memory that changes under it."""

import pytest

from sidecar.layout.hv_messages import HvInterceptAccess, HvMessageType
from sidecar.layout.svm import SvmExit
from sidecar.protocol.nested import Rights
from sidecar.qemu.hosted_vp import HostedVp
from tests.support import cpus, guests

READ, WRITE, EXECUTE = HvInterceptAccess.READ, HvInterceptAccess.WRITE, HvInterceptAccess.EXECUTE
UNMAPPED = 0x200000
"""A guest-physical address that the guest's own tables map and the nested ones do not."""

FORMS = [
    ("mov al, byte ptr [rdi]", READ),
    ("mov rax, qword ptr [rdi]", READ),
    ("mov dword ptr [rdi + 4], eax", WRITE),
    ("mov word ptr [rdi], 5", WRITE),
    ("inc qword ptr [rdi]", WRITE),
    ("movzx eax, word ptr [rdi]", READ),
    ("lock xadd qword ptr [rdi], rax", WRITE),
    ("stosq", WRITE),
    ("push qword ptr [rdi]", READ),
    ("jmp rdi", EXECUTE),
]


@pytest.mark.parametrize(("text", "access"), FORMS)
def test_memory_that_is_not_there(vp: HostedVp, text: str, access: HvInterceptAccess) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    outcome = vp.run(rdi=UNMAPPED)
    message = guests.message(outcome, HvMessageType.UNMAPPED_GPA)
    assert message.body.gpa == UNMAPPED + (4 if "+ 4" in text else 0)
    assert (message.body.memory_access_info, message.body.gva) == (0, 0)
    if "lock" not in text and "inc" not in text:  # a processor may report the read or the write of those first
        assert message.body.header.access_type == access
    assert message.body.header.rip == (UNMAPPED if access == EXECUTE else guests.CODE)
    assert outcome.exit_code == SvmExit.NPF
    code = guests.program(text)
    assert message.instruction[: len(code)] in (b"", code)


@pytest.mark.parametrize(
    ("rights", "text", "access"),
    [
        (Rights.READ, "mov dword ptr [rdi], eax", WRITE),
        (Rights.READ | Rights.EXECUTE, "mov dword ptr [rdi], eax", WRITE),
        (Rights.READ | Rights.WRITE, "jmp rdi", EXECUTE),
    ],
)
def test_memory_without_a_right(vp: HostedVp, rights: Rights, text: str, access: HvInterceptAccess) -> None:
    vp.map(UNMAPPED, vp.free.page(), 4096, rights)
    guests.start_long(vp, f"mov ebx, dword ptr [rdi]\n {text}\n hlt")
    message = guests.message(vp.run(rdi=UNMAPPED), HvMessageType.GPA_INTERCEPT)
    assert (message.body.gpa, message.body.header.access_type) == (UNMAPPED, access)


def test_memory_that_the_vmm_maps_after_the_exit(vp: HostedVp) -> None:
    guests.start_long(vp, "mov rax, qword ptr [rdi]\n hlt")
    guests.message(vp.run(rdi=UNMAPPED), HvMessageType.UNMAPPED_GPA)
    page = vp.free.page()
    vp.free.ram.write(page, (0x1234567890).to_bytes(8, "little"))
    vp.map(UNMAPPED, page, 4096)
    assert guests.halted(vp.run()).gps["rax"] == 0x1234567890
    vp.unmap(UNMAPPED, 4096)
    vp.vmcb.rip = guests.CODE
    guests.message(vp.run(), HvMessageType.UNMAPPED_GPA)


def test_unmapping_under_a_running_guest(vp: HostedVp) -> None:
    """The page may be used for something else as soon as unmap() returns."""
    page = vp.free.page()
    counter = vp.free.ram.view(page, 8).cast("Q")
    guests.start_long(vp, "again: inc qword ptr [rdi]\n jmp again")
    for _ in range(20):
        vp.map(UNMAPPED, page, 4096)
        before = counter[0]
        run = vp.start(rdi=UNMAPPED)
        guests.wait_until_more(counter, before)
        vp.unmap(UNMAPPED, 4096)
        after = counter[0]
        run.wait(seconds=cpus.SECONDS)
        assert counter[0] == after
        guests.message(vp.outcome(), HvMessageType.UNMAPPED_GPA)


def test_a_page_table_of_the_guest_that_is_not_there(vp: HostedVp) -> None:
    guests.start_long(vp, "mov cr3, rdi\n hlt")
    outcome = vp.run(rdi=UNMAPPED)
    message = guests.message(outcome, HvMessageType.UNMAPPED_GPA)
    assert message.body.gpa & ~0xFFF == UNMAPPED
    assert outcome.exit_info_1 >> 33 & 1
