"""CPUID of a guest: answered by the sidecar, or by the VMM; and what it hides."""

from sidecar.kernel.cpuid_policy import POLICY
from sidecar.layout.hv_messages import HvInterceptAccess, HvMessageType
from sidecar.layout.run import RunFlags
from sidecar.qemu.hosted_vp import HostedVp
from tests.support import guests

EXECUTE = HvInterceptAccess.EXECUTE


def cpuid(vp: HostedVp, leaf: int, subleaf: int = 0) -> tuple[int, ...]:
    outcome = guests.halted(vp.run(rax=leaf, rcx=subleaf, advance_rip=0))
    vp.vmcb.rip = guests.CODE
    return tuple(outcome.gps[name] for name in ("rax", "rbx", "rcx", "rdx"))


def test_cpuid_is_finished_by_the_sidecar(vp: HostedVp) -> None:
    guests.start_long(vp, "cpuid\n hlt")
    outcome = guests.asleep(vp).run(rax=0xFFFFFFFF00000000, rcx=1 << 40, rbx=-1 & (1 << 64) - 1)
    guests.halted_at(outcome, guests.CODE + 2)
    assert (outcome.guest_entries, outcome.local_exits) == (2, 1)
    vendor = b"".join(outcome.gps[name].to_bytes(8, "little")[:4] for name in ("rbx", "rdx", "rcx"))
    assert vendor == b"AuthenticAMD"
    assert outcome.gps["rax"] == 0xD
    assert all(outcome.gps[name] >> 32 == 0 for name in ("rax", "rbx", "rcx", "rdx"))


def test_what_cpuid_hides(vp: HostedVp) -> None:
    guests.start_long(vp, "cpuid\n hlt")
    _, ebx, ecx, edx = cpuid(vp, 1)
    hidden = {3: "MONITOR", 5: "VMX", 15: "PDCM", 18: "DCA", 21: "x2APIC", 24: "TSC deadline"}
    assert [name for bit, name in hidden.items() if ecx >> bit & 1] == []
    assert ecx >> 31 & 1, "a hypervisor is there"
    assert ecx >> 27 & 1, "OSXSAVE, as in the guest's CR4"
    assert [bit for bit in (7, 9, 14, 21, 22, 28, 29, 31) if edx >> bit & 1] == []
    assert ebx >> 24 == 0
    assert cpuid(vp, 5) == cpuid(vp, 6) == cpuid(vp, 0xA) == cpuid(vp, 0xB) == (0, 0, 0, 0)
    assert cpuid(vp, 0x40000000) == cpuid(vp, 0x40000001) == cpuid(vp, 0x8000000A) == (0, 0, 0, 0)
    assert cpuid(vp, 0x80000000)[0] == 0x80000008
    assert cpuid(vp, 0x80000001)[2] >> 2 & 1 == 0, "SVM"
    assert cpuid(vp, 0x80000001)[3] >> 29 & 1, "long mode"
    for leaf in (3, 4, 8, 0x10, 0x1F, 0x7FFFFFFF, 0x80000009, 0xC0000000, 0xFFFFFFFF):
        assert leaf not in POLICY
        assert cpuid(vp, leaf) == (0, 0, 0, 0)
    assert cpuid(vp, 7, 1) == cpuid(vp, 7, 0xFFFFFFFF) == (0, 0, 0, 0)


def test_cpuid_of_the_state_components(vp: HostedVp) -> None:
    guests.start_long(vp, "cpuid\n hlt")
    mask, enabled_bytes, all_bytes, _ = cpuid(vp, 0xD)
    assert mask & 7 == 7
    assert mask & ~0x2FF == 0
    assert enabled_bytes == 576, "the guest's XCR0 has x87 alone"
    assert all_bytes <= 3 * 4096
    assert cpuid(vp, 0xD, 2)[:2] == (256, 576)
    assert cpuid(vp, 0xD, 1)[0] & 8 == 0, "XSAVES"
    assert cpuid(vp, 0xD, 11) == cpuid(vp, 0xD, 64) == (0, 0, 0, 0)


def test_the_initial_apic_id_is_the_vmms(vp: HostedVp) -> None:
    guests.start_long(vp, "cpuid\n hlt")
    assert cpuid(vp, 1)[1] >> 24 == 0


def test_cpuid_for_the_vmm(vp: HostedVp) -> None:
    guests.start_long(vp, "cpuid\n hlt")
    finished = cpuid(vp, 0x80000001)
    outcome = guests.asleep(vp).run(flags=RunFlags.CPUID_EXITS, rax=0x80000001, rcx=2, rdx=3, rbx=4)
    message = guests.message(outcome, HvMessageType.X64_CPUID_INTERCEPT)
    body = message.body
    assert (body.rax, body.rcx, body.rdx, body.rbx) == (0x80000001, 2, 3, 4)
    assert (body.default_rax, body.default_rbx, body.default_rcx, body.default_rdx) == finished
    assert (message.instruction_length, body.header.access_type, outcome.local_exits) == (2, EXECUTE, 0)
    after = guests.halted(vp.run(advance_rip=2, rax=11, rbx=12, rcx=13, rdx=14))
    assert [after.gps[name] for name in ("rax", "rbx", "rcx", "rdx")] == [11, 12, 13, 14]
