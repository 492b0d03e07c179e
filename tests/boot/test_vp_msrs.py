"""MSRs and XCR0 of a guest, and instructions that it is told not to have."""

import re

import pytest

from sidecar.layout.hv_messages import HvInterceptAccess, HvMessageType
from sidecar.layout.msr_map import PASSED_MSRS
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.svm import Vmcb, VpPage
from sidecar.layout.x86 import Msr, Vector
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from tests.support import guests

READ, WRITE = HvInterceptAccess.READ, HvInterceptAccess.WRITE


CANONICAL = 0xFFFF800012345678
PASSED_VALUES = {
    Msr.STAR: 0x0123456789ABCDEF,
    Msr.LSTAR: CANONICAL,
    Msr.CSTAR: CANONICAL,
    Msr.FS_BASE: CANONICAL,
    Msr.GS_BASE: 0x7FFFFFFFFFFF,
    Msr.KERNEL_GS_BASE: CANONICAL,
    Msr.SYSENTER_ESP: CANONICAL,
    Msr.SYSENTER_EIP: CANONICAL,
    Msr.SYSENTER_CS: 0x10,
    Msr.SFMASK: 0x47700,
}
NAMES = {
    Msr.STAR: "Star", Msr.LSTAR: "Lstar", Msr.CSTAR: "Cstar", Msr.KERNEL_GS_BASE: "KernelGsBase",
    Msr.SYSENTER_ESP: "SysenterEsp", Msr.SYSENTER_EIP: "SysenterEip", Msr.SYSENTER_CS: "SysenterCs",
    Msr.SFMASK: "Sfmask", Msr.FS_BASE: "Fs", Msr.GS_BASE: "Gs",
}  # fmt: skip
"""HvX64Register...; of a segment the lower half is the base."""

MSR_VALUES = [
    (Msr.PAT, 0x0007010600070106),
    (Msr.TSC_AUX, 0x1234),
    (Msr.MTRR_DEF_TYPE, 0xC06),
    (Msr.MTRR_PHYS_BASE0, 0x80000006),
    (0x20F, 0xFFFF80000800),
    (Msr.MTRR_FIX64K_00000, 0x0606060606060606),
    (0x26F, 0x0505050505050505),
]
REFUSED = [
    (Msr.PAT, 2),
    (Msr.PAT, 8 << 56),
    (Msr.EFER, 1 << 1),
    (Msr.EFER, 1 << 12),
    (Msr.EFER, 1 << 32),
    (Msr.EFER, 0),
    (Msr.MTRR_CAP, 0x508),
    (Msr.MTRR_DEF_TYPE, 1 << 12),
    (Msr.MTRR_DEF_TYPE, 0xC02),
    (Msr.MTRR_PHYS_BASE0, 0x80000007),
    (Msr.MTRR_FIX64K_00000, 0x0306060606060606),
    (Msr.TSC_AUX, 1 << 32),
]
SET_AND_GET = """
            wrmsr
            xor     eax, eax
            xor     edx, edx
            rdmsr
            hlt"""


@pytest.mark.parametrize(("msr", "value"), MSR_VALUES, ids=lambda value: f"{value:#x}")
def test_an_msr_of_the_guest(vp: HostedVp, msr: int, value: int) -> None:
    guests.start_long(vp, SET_AND_GET)
    outcome = guests.halted(
        guests.asleep(vp).run(rcx=msr | 0xABC << 32, rax=value & 0xFFFFFFFF | 1 << 40, rdx=value >> 32)
    )
    assert (outcome.gps["rax"], outcome.gps["rdx"]) == (value & 0xFFFFFFFF, value >> 32)
    assert (outcome.local_exits, outcome.guest_entries) == (2, 3)


@pytest.mark.parametrize("msr", PASSED_MSRS, ids=lambda msr: msr.name)
def test_an_msr_that_the_guest_uses_itself(vp: HostedVp, msr: Msr) -> None:
    """Without an exit, in long mode: the guest is entered once. It keeps the value from one run to the next."""
    value, name = PASSED_VALUES[msr], f"HvX64Register{NAMES[msr]}"
    guests.start_long(vp, f"{SET_AND_GET}\n rdmsr\n hlt")
    outcome = guests.halted(
        guests.asleep(vp).run(rcx=msr | 0xABC << 32, rax=value & 0xFFFFFFFF | 1 << 40, rdx=value >> 32)
    )
    assert (outcome.gps["rax"], outcome.gps["rdx"]) == (value & 0xFFFFFFFF, value >> 32)
    assert (outcome.local_exits, outcome.guest_entries) == (0, 1)
    assert vp.cpu.get_registers([name])[name] % (1 << 64) == value
    again = guests.halted(guests.asleep(vp).run(advance_rip=1, rax=0, rdx=0))
    assert (again.gps["rax"], again.gps["rdx"], again.local_exits) == (value & 0xFFFFFFFF, value >> 32, 0)
    changed = value ^ 0x20
    (segment,) = vp.cpu.get_registers([name]).values()
    vp.cpu.set_registers({name: segment ^ 0x20})
    vp.vmcb.rip = guests.CODE + 6
    assert guests.halted(vp.run(rax=0, rdx=0)).gps["rax"] == changed & 0xFFFFFFFF


def test_what_the_guest_has_set_is_not_the_sidecars(hosted: Session, vp: HostedVp) -> None:
    """The physical MSRs, as QEMU shows them and as a command reads them afterwards."""
    text = "".join(f"\n mov ecx, {msr:#x}\n mov eax, 0x40600\n xor edx, edx\n wrmsr" for msr in PASSED_MSRS)
    guests.start_long(vp, f"{text}\n hlt")
    assert guests.halted(guests.asleep(vp).run()).guest_entries == 1
    shown = hosted.machine.hmp("info registers", cpu=1)
    assert re.search(r"^FS =0000 0000000000000000 ", shown, re.MULTILINE), shown
    assert re.search(r"^GS =0000 0000000000000000 ", shown, re.MULTILINE), shown
    host = Vmcb.parse(hosted.machine.ram.read(vp.pages_pa + VpPage.HOST_VMCB * PAGE_SIZE, PAGE_SIZE))
    kept = (host.star, host.lstar, host.cstar, host.sfmask, host.kernel_gs_base, host.fs.base, host.gs.base)
    assert kept == (0,) * 7
    assert (host.sysenter_cs, host.sysenter_esp, host.sysenter_eip) == (0, 0, 0)


@pytest.mark.parametrize("msr", [Msr.LSTAR, Msr.FS_BASE, Msr.KERNEL_GS_BASE, Msr.SYSENTER_EIP])
def test_an_address_that_is_not_canonical(vp: HostedVp, msr: Msr) -> None:
    """The processor refuses it with #GP; TCG takes it. Either way the guest goes on."""
    guests.start_long(vp, "wrmsr\n hlt")
    outcome = guests.halted(vp.run(rcx=msr, rax=0, rdx=0x8000))
    ends = {"#GP": guests.trap(Vector.GENERAL_PROTECTION), "TCG": guests.CODE + 2}
    assert outcome.rip in ends.values()
    vp.vmcb.rip = guests.CODE + 2
    assert guests.halted(vp.run()).rip == ends["TCG"]


@pytest.mark.parametrize(("msr", "value"), REFUSED, ids=lambda value: f"{value:#x}")
def test_a_value_that_a_processor_refuses(vp: HostedVp, msr: int, value: int) -> None:
    guests.start_long(vp, "wrmsr\n hlt")
    outcome = guests.halted_at(
        vp.run(rcx=msr, rax=value & 0xFFFFFFFF, rdx=value >> 32), guests.trap(Vector.GENERAL_PROTECTION)
    )
    assert guests.quad(vp, outcome.rsp) == 0, "the error code"
    assert guests.quad(vp, outcome.rsp + 8) == guests.CODE


def test_the_physical_msrs_stay(hosted: Session, vp: HostedVp) -> None:
    guests.start_long(vp, SET_AND_GET)
    for msr in (Msr.FS_BASE, Msr.GS_BASE, Msr.PAT):
        vp.vmcb.rip = guests.CODE
        guests.halted(vp.run(rcx=msr, rax=0x00040600, rdx=0))
    shown = hosted.machine.hmp("info registers", cpu=1)
    assert re.search(r"^FS =0000 0000000000000000 ", shown, re.MULTILINE), shown
    assert re.search(r"^GS =0000 0000000000000000 ", shown, re.MULTILINE), shown
    assert (vp.vmcb.fs.base, vp.vmcb.gs.base, vp.vmcb.g_pat) == (0x40600, 0x40600, 0x40600)


def test_efer(vp: HostedVp) -> None:
    guests.start_long(vp, "rdmsr\n mov ebx, eax\n and eax, ~Efer.SCE\n wrmsr\n rdmsr\n hlt")
    outcome = guests.halted(vp.run(rcx=Msr.EFER))
    assert (outcome.gps["rbx"], outcome.gps["rax"], outcome.gps["rdx"]) == (0xD01, 0xD00, 0)
    assert outcome.efer == 0xD00


def test_the_time_stamp_counter(vp: HostedVp) -> None:
    guests.start_long(vp, """
            xor     eax, eax
            mov     edx, 0x100
            wrmsr
            rdtsc
            mov     esi, edx
            rdmsr
            hlt""")
    outcome = guests.halted(vp.run(rcx=Msr.TSC))
    assert outcome.gps["rsi"] == outcome.gps["rdx"] == 0x100


@pytest.mark.parametrize(("text", "access"), [("rdmsr", READ), ("wrmsr", WRITE)])
def test_an_msr_that_the_sidecar_does_not_know(vp: HostedVp, text: str, access: HvInterceptAccess) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    for msr in (0xC0011029, 0x1B, 0x40000000, 0xFFFFFFFF, 0x8B):
        vp.vmcb.rip = guests.CODE
        message = guests.message(vp.run(rcx=msr, rax=1, rdx=2), HvMessageType.X64_MSR_INTERCEPT)
        assert (message.body.msr, message.body.rax, message.body.rdx) == (msr, 1, 2)
        assert (message.body.header.access_type, message.instruction_length) == (access, 2)
    assert guests.halted(vp.run(advance_rip=2, rax=77, rdx=78)).gps["rax"] == 77


@pytest.mark.parametrize("value", [1, 3, 7])
def test_xsetbv(vp: HostedVp, value: int) -> None:
    guests.start_long(vp, "xsetbv\n xor eax, eax\n xgetbv\n hlt")
    outcome = guests.halted(guests.asleep(vp).run(rax=value, rdx=0, rcx=0))
    assert (outcome.gps["rax"], outcome.gps["rdx"], outcome.local_exits) == (value, 0, 1)


@pytest.mark.parametrize(
    ("value", "rcx"), [(0, 0), (2, 0), (5, 0), (1 << 63 | 1, 0), (1 << 17 | 7, 0), (0x27, 0), (0x407, 0), (7, 1)]
)
def test_xsetbv_of_what_may_not_be(vp: HostedVp, value: int, rcx: int) -> None:
    guests.start_long(vp, "xsetbv\n hlt")
    guests.halted_at(
        vp.run(rax=value & 0xFFFFFFFF, rdx=value >> 32, rcx=rcx), guests.trap(Vector.GENERAL_PROTECTION)
    )


@pytest.mark.parametrize(
    "text", ["vmrun rax", "vmmcall", "vmload rax", "vmsave rax", "stgi", "clgi", "invlpga rax, ecx", "monitor", "mwait"]
)
def test_instructions_that_a_guest_does_not_have(vp: HostedVp, text: str) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    outcome = guests.halted_at(vp.run(), guests.trap(Vector.INVALID_OPCODE))
    assert guests.quad(vp, outcome.rsp) == guests.CODE


def test_performance_counters_are_refused(vp: HostedVp) -> None:
    guests.start_long(vp, "rdpmc\n hlt")
    guests.halted_at(vp.run(), guests.trap(Vector.GENERAL_PROTECTION))


@pytest.mark.parametrize("text", ["pause", "invd"])
def test_instructions_that_do_nothing(vp: HostedVp, text: str) -> None:
    guests.start_long(vp, f"{text}\n {text}\n hlt")
    assert guests.halted_at(guests.asleep(vp).run(), guests.CODE + 4).local_exits == 2


def test_a_single_step_over_an_instruction_that_the_sidecar_finishes(vp: HostedVp) -> None:
    guests.start_long(vp, """
            pushfq
            or      qword ptr [rsp], Rflags.TF
            popfq
            cpuid
            hlt""")
    outcome = guests.halted_at(vp.run(), guests.trap(Vector.DEBUG))
    code = guests.program("pushfq\n or qword ptr [rsp], Rflags.TF\n popfq\n cpuid")
    assert guests.quad(vp, outcome.rsp) == guests.CODE + len(code)
    assert vp.cpu.get_registers(["HvX64RegisterDr6"])["HvX64RegisterDr6"] & 1 << 14
