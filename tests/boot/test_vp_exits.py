"""Exits field by field: what each message says, what the sidecar finishes itself, and that the guest goes on."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.kernel.cpuid_policy import POLICY
from sidecar.layout.hv_messages import (
    HvExceptionInfo,
    HvExecutionState,
    HvInterceptAccess,
    HvIoAccess,
    HvMessageType,
)
from sidecar.layout.run import RunFlags
from sidecar.layout.svm import SvmExit
from sidecar.layout.x86 import Msr, Vector
from sidecar.protocol.nested import Rights
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from tests.support import cpus, guests

READ, WRITE, EXECUTE = HvInterceptAccess.READ, HvInterceptAccess.WRITE, HvInterceptAccess.EXECUTE
UNMAPPED = 0x200000
"""A guest-physical address that the guest's own tables map and the nested ones do not."""


@pytest.fixture(scope="module")
def run_directory(request: pytest.FixtureRequest) -> Path:
    return cpus.module_directory(request)


@pytest.fixture(scope="module")
def machine(run_directory: Path) -> Iterator[Session]:
    with Session(smp=2, directory=run_directory) as session:
        yield session


@pytest.fixture
def vp(machine: Session) -> Iterator[HostedVp]:
    with guests.virtual_processor(machine) as vp:
        yield vp
    cpus.tidy(machine)


# --- I/O ports --------------------------------------------------------------------------------------------------------

PORT_FORMS = [
    ("in al, 0x60", 0x60, READ, 1, 2),
    ("in al, dx", 0x3F8, READ, 1, 1),
    ("in ax, dx", 0x3F8, READ, 2, 2),
    ("in eax, dx", 0x3F8, READ, 4, 1),
    ("out 0x80, al", 0x80, WRITE, 1, 2),
    ("out dx, al", 0x3F8, WRITE, 1, 1),
    ("out dx, ax", 0x3F8, WRITE, 2, 2),
    ("out dx, eax", 0x3F8, WRITE, 4, 1),
]


@pytest.mark.parametrize(("text", "port", "access", "size", "length"), PORT_FORMS)
def test_a_port(vp: HostedVp, text: str, port: int, access: HvInterceptAccess, size: int, length: int) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    outcome = vp.run(rax=0x1122334455667788, rdx=0x3F8, rcx=3, rsi=4, rdi=5)
    message = guests.message(outcome, HvMessageType.X64_IO_PORT_INTERCEPT)
    body = message.body
    assert (body.port, body.access_info, body.header.access_type) == (port, size, access)
    assert (message.instruction_length, outcome.rip, body.header.rip) == (length, guests.CODE, guests.CODE)
    assert (body.rax, body.rcx, body.rsi, body.rdi) == (0x1122334455667788, 3, 4, 5)
    assert body.header.execution_state == HvExecutionState.CR0_PE | HvExecutionState.EFER_LMA
    assert (body.ds.selector, body.ds.attributes, body.ds.limit) == (0x10, guests.TLFS_DATA, 0xFFFFFFFF)
    assert outcome.exit_code == SvmExit.IOIO
    after = guests.halted_at(vp.run(advance_rip=length, rax=0xDEAD), guests.CODE + length)
    assert after.gps["rax"] == 0xDEAD


@pytest.mark.parametrize(
    ("text", "access", "info"),
    [
        ("outsb", WRITE, 1 | HvIoAccess.STRING),
        ("rep outsw", WRITE, 2 | HvIoAccess.STRING | HvIoAccess.REP),
        ("rep outsd", WRITE, 4 | HvIoAccess.STRING | HvIoAccess.REP),
        ("insb", READ, 1 | HvIoAccess.STRING),
        ("rep insb", READ, 1 | HvIoAccess.STRING | HvIoAccess.REP),
        ("rep insd", READ, 4 | HvIoAccess.STRING | HvIoAccess.REP),
    ],
)
def test_a_string_of_a_port(vp: HostedVp, text: str, access: HvInterceptAccess, info: int) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    code = guests.program(text)
    message = guests.message(
        vp.run(rdx=0x1F0, rcx=8, rsi=guests.DATA, rdi=guests.DATA + 8), HvMessageType.X64_IO_PORT_INTERCEPT
    )
    body = message.body
    assert (body.port, body.access_info, body.header.access_type) == (0x1F0, info, access)
    assert (body.rcx, body.rsi, body.rdi) == (8, guests.DATA, guests.DATA + 8)
    assert message.instruction_length == len(code)
    assert message.instruction in (b"", code + b"\xf4" + bytes(14 - len(code)))
    guests.halted_at(vp.run(advance_rip=len(code)), guests.CODE + len(code))


def test_a_port_in_real_mode(vp: HostedVp) -> None:
    guests.start_real(vp, "mov al, 'h'\n out 0xe9, al\n hlt")
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.X64_IO_PORT_INTERCEPT).body
    assert (body.port, body.rax & 0xFF, body.header.execution_state) == (0xE9, ord("h"), 0)
    assert (body.header.cs.base, body.header.cs.selector) == (0, 0)
    guests.halted(vp.run(advance_rip=2))


def test_ports_that_are_given_to_the_guest(vp: HostedVp) -> None:
    """An I/O permission map whose bit is clear: port 0x80 does nothing, and no exit is made."""
    guests.start_long(vp, "out 0x80, al\n in al, 0x81\n hlt")
    iopm = vp.free.take(3 * 4096)
    bits = vp.free.ram.view(iopm, 3 * 4096)
    bits[:] = b"\xff" * len(bits)
    bits[0x80 // 8] &= ~1
    vp.privileged.iopm_pa = iopm
    body = guests.message(vp.run(), HvMessageType.X64_IO_PORT_INTERCEPT).body
    assert (body.port, body.header.rip) == (0x81, guests.CODE + 2)
    vp.privileged.iopm_pa = 0


# --- CPUID ------------------------------------------------------------------------------------------------------------


def cpuid(vp: HostedVp, leaf: int, subleaf: int = 0) -> tuple[int, ...]:
    outcome = guests.halted(vp.run(rax=leaf, rcx=subleaf, advance_rip=0))
    vp.vmcb.rip = guests.CODE
    return tuple(outcome.gps[name] for name in ("rax", "rbx", "rcx", "rdx"))


def test_cpuid_is_finished_by_the_sidecar(vp: HostedVp) -> None:
    guests.start_long(vp, "cpuid\n hlt")
    outcome = guests.halted_at(vp.run(rax=0xFFFFFFFF00000000, rcx=1 << 40, rbx=-1 & (1 << 64) - 1), guests.CODE + 2)
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
    outcome = vp.run(flags=RunFlags.CPUID_EXITS, rax=0x80000001, rcx=2, rdx=3, rbx=4)
    message = guests.message(outcome, HvMessageType.X64_CPUID_INTERCEPT)
    body = message.body
    assert (body.rax, body.rcx, body.rdx, body.rbx) == (0x80000001, 2, 3, 4)
    assert (body.default_rax, body.default_rbx, body.default_rcx, body.default_rdx) == finished
    assert (message.instruction_length, body.header.access_type, outcome.local_exits) == (2, EXECUTE, 0)
    after = guests.halted(vp.run(advance_rip=2, rax=11, rbx=12, rcx=13, rdx=14))
    assert [after.gps[name] for name in ("rax", "rbx", "rcx", "rdx")] == [11, 12, 13, 14]


# --- MSRs -------------------------------------------------------------------------------------------------------------

CANONICAL = 0xFFFF800012345678
MSR_VALUES = [
    (Msr.STAR, 0x0123456789ABCDEF),
    (Msr.LSTAR, CANONICAL),
    (Msr.CSTAR, CANONICAL),
    (Msr.FS_BASE, CANONICAL),
    (Msr.GS_BASE, 0x7FFFFFFFFFFF),
    (Msr.KERNEL_GS_BASE, CANONICAL),
    (Msr.SYSENTER_ESP, CANONICAL),
    (Msr.SYSENTER_EIP, CANONICAL),
    (Msr.SYSENTER_CS, 0x10),
    (Msr.SFMASK, 0x47700),
    (Msr.PAT, 0x0007010600070106),
    (Msr.TSC_AUX, 0x1234),
    (Msr.MTRR_DEF_TYPE, 0xC06),
    (Msr.MTRR_PHYS_BASE0, 0x80000006),
    (0x20F, 0xFFFF80000800),
    (Msr.MTRR_FIX64K_00000, 0x0606060606060606),
    (0x26F, 0x0505050505050505),
]
REFUSED = [
    (Msr.LSTAR, 0x0000800000000000),
    (Msr.FS_BASE, 1 << 63),
    (Msr.PAT, 2),
    (Msr.PAT, 8 << 56),
    (Msr.EFER, 1 << 1),
    (Msr.EFER, 1 << 12),
    (Msr.EFER, 1 << 32),
    (Msr.EFER, 0),
    (Msr.MTRR_CAP, 0x508),
    (Msr.MTRR_DEF_TYPE, 1 << 12),
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
    outcome = guests.halted(vp.run(rcx=msr | 0xABC << 32, rax=value & 0xFFFFFFFF | 1 << 40, rdx=value >> 32))
    assert (outcome.gps["rax"], outcome.gps["rdx"]) == (value & 0xFFFFFFFF, value >> 32)
    assert (outcome.local_exits, outcome.guest_entries) == (2, 3)


@pytest.mark.parametrize(("msr", "value"), REFUSED, ids=lambda value: f"{value:#x}")
def test_a_value_that_a_processor_refuses(vp: HostedVp, msr: int, value: int) -> None:
    guests.start_long(vp, "wrmsr\n hlt")
    outcome = guests.halted_at(
        vp.run(rcx=msr, rax=value & 0xFFFFFFFF, rdx=value >> 32), guests.trap(Vector.GENERAL_PROTECTION)
    )
    assert guests.quad(vp, outcome.rsp) == 0, "the error code"
    assert guests.quad(vp, outcome.rsp + 8) == guests.CODE


def test_the_physical_msrs_stay(machine: Session, vp: HostedVp) -> None:
    guests.start_long(vp, SET_AND_GET)
    for msr in (Msr.FS_BASE, Msr.GS_BASE, Msr.PAT):
        vp.vmcb.rip = guests.CODE
        guests.halted(vp.run(rcx=msr, rax=0x00040600, rdx=0))
    shown = machine.machine.hmp("info registers", cpu=1)
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


# --- XSETBV, and what a guest does not have ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 3, 7])
def test_xsetbv(vp: HostedVp, value: int) -> None:
    guests.start_long(vp, "xsetbv\n xor eax, eax\n xgetbv\n hlt")
    outcome = guests.halted(vp.run(rax=value, rdx=0, rcx=0))
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
    assert guests.halted_at(vp.run(), guests.CODE + 4).local_exits == 2


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


# --- memory -----------------------------------------------------------------------------------------------------------

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


# --- exceptions -------------------------------------------------------------------------------------------------------

FAULTS = [
    ("xor ecx, ecx\n div ecx", Vector.DIVIDE_ERROR, None, 2),
    ("ud2", Vector.INVALID_OPCODE, None, 0),
    ("mov eax, 0x33\n mov ds, eax", Vector.GENERAL_PROTECTION, 0x30, 5),
    ("mov rax, qword ptr [rdi]", Vector.PAGE_FAULT, 0, 0),
    ("mov qword ptr [rdi], rax", Vector.PAGE_FAULT, 2, 0),
]
NOT_MAPPED_GVA = 0x40000000


@pytest.mark.parametrize(("text", "vector", "code", "offset"), FAULTS)
def test_an_exception_goes_to_the_guest(vp: HostedVp, text: str, vector: int, code: int | None, offset: int) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    outcome = guests.halted_at(vp.run(rdi=NOT_MAPPED_GVA), guests.trap(vector))
    frame = outcome.rsp
    if code is not None:
        assert guests.quad(vp, frame) == code
        frame += 8
    assert guests.quad(vp, frame) == guests.CODE + offset
    if vector == Vector.PAGE_FAULT:
        assert outcome.gps["cr2"] == NOT_MAPPED_GVA


@pytest.mark.parametrize(("text", "vector", "code", "offset"), FAULTS)
def test_an_exception_that_the_vmm_asked_for(
    vp: HostedVp, text: str, vector: int, code: int | None, offset: int
) -> None:
    guests.start_long(vp, f"{text}\n hlt")
    given = {"rdi": NOT_MAPPED_GVA, "rsi": 6, "r15": 15, "cr2": 0x77}
    outcome = vp.run(exception_intercepts=1 << vector, **given)
    body = guests.message(outcome, HvMessageType.X64_EXCEPTION_INTERCEPT).body
    assert (body.vector, body.header.rip) == (vector, guests.CODE + offset)
    assert body.exception_info == (0 if code is None else HvExceptionInfo.ERROR_CODE_VALID)
    assert body.error_code == (code or 0)
    assert body.exception_parameter == (NOT_MAPPED_GVA if vector == Vector.PAGE_FAULT else 0)
    assert (body.registers[4], body.registers[6], body.registers[7], body.registers[15]) == (
        guests.STACK, 6, NOT_MAPPED_GVA, 15,
    )
    assert (body.ss.selector, body.ds.selector) == (0x10, 0x10)
    assert outcome.gps["cr2"] == 0x77, "it has not been delivered"


def test_exceptions_that_nobody_may_ask_for(vp: HostedVp) -> None:
    """Bits that are no exceptions of a guest change nothing."""
    guests.start_long(vp, "ud2\n hlt")
    outcome = vp.run(exception_intercepts=0xFFF80000 | 1 << 2 | 1 << 9 | 1 << 15 | 1 << 18)
    guests.halted_at(outcome, guests.trap(Vector.INVALID_OPCODE))


def test_a_debug_exception_is_passed_on(vp: HostedVp) -> None:
    guests.start_long(vp, "pushfq\n or qword ptr [rsp], Rflags.TF\n popfq\n nop\n hlt")
    outcome = guests.halted_at(vp.run(), guests.trap(Vector.DEBUG))
    assert outcome.local_exits == 1


def test_a_triple_fault(vp: HostedVp) -> None:
    guests.start_long(vp, "lidt [rdi]\n ud2")
    outcome = vp.run(rdi=guests.DATA)
    body = guests.message(outcome, HvMessageType.UNRECOVERABLE_EXCEPTION).body
    assert body.header.vp_index == 1
    assert outcome.exit_code == SvmExit.SHUTDOWN


# --- state that cannot be ---------------------------------------------------------------------------------------------


def test_a_state_that_no_guest_can_be_entered_with(vp: HostedVp) -> None:
    guests.start_long(vp, "hlt")
    vmcb = vp.vmcb
    vmcb.cr0 = vmcb.cr0 | 1 << 29  # NW without CD
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.INVALID_VP_REGISTER_VALUE).body
    assert (body.vp_index, outcome.guest_entries, body.rule != 0) == (1, 0, True)
    assert body.value == vmcb.cr0
    vmcb.cr0 = vmcb.cr0 & ~(1 << 29)
    guests.halted_at(vp.run(), guests.CODE)


# --- modes ------------------------------------------------------------------------------------------------------------

TO_LONG_MODE = f"""
            cli
            lgdt    [gdt_pointer]
            mov     eax, cr0
            or      eax, Cr0.PE
            mov     cr0, eax
            .byte   0x66, 0xea
            .long   protected
            .word   {guests.CODE32}
            .code32
    protected:
            mov     eax, {guests.DATA_SEGMENT}
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            mov     esp, {guests.STACK}
            mov     eax, cr4
            or      eax, Cr4.PAE
            mov     cr4, eax
            mov     eax, {guests.PML4}
            mov     cr3, eax
            mov     ecx, Msr.EFER
            rdmsr
            or      eax, Efer.LME
            wrmsr
            mov     eax, cr0
            or      eax, Cr0.PG
            mov     cr0, eax
            .byte   0xea
            .long   long_mode
            .word   {guests.CODE64}
            .code64
    long_mode:
            mov     rax, 0x123456789abcdef0
            mov     dx, 0x3f8
            out     dx, al
            hlt
    gdt_pointer:
            .word   {8 * len(guests.DESCRIPTORS) - 1}
            .long   {guests.GDT}"""


def test_from_real_mode_to_long_mode(vp: HostedVp) -> None:
    guests.start_real(vp, TO_LONG_MODE)
    outcome = vp.run()
    body = guests.message(outcome, HvMessageType.X64_IO_PORT_INTERCEPT).body
    assert (body.port, body.rax) == (0x3F8, 0x123456789ABCDEF0)
    assert body.header.execution_state == HvExecutionState.CR0_PE | HvExecutionState.EFER_LMA
    assert (body.header.cs.selector, body.header.cs.attributes) == (guests.CODE64, guests.TLFS_CODE64)
    assert (outcome.cr3, outcome.cr4, outcome.efer) == (guests.PML4, 0x20, 0x500)
    assert guests.halted(vp.run(advance_rip=1)).local_exits == 0


def test_hello_in_real_mode(vp: HostedVp) -> None:
    """A UART in a few lines: the line status says that it is empty, and what is sent is collected."""
    text = "Hello from real mode\n"
    guests.start_real(vp, f"""
            mov     si, text
    next:   mov     dx, 0x3fd
    busy:   in      al, dx
            test    al, 0x20
            je      busy
            mov     al, byte ptr [si]
            test    al, al
            je      done
            mov     dx, 0x3f8
            out     dx, al
            inc     si
            jmp     next
    done:   hlt
    text:   .asciz  "{text[:-1]}\\n" """)
    said, advance = "", 0
    gps: dict[str, int] = {}
    for _ in itertools.count():
        outcome = vp.run(advance_rip=advance, **gps)
        assert outcome.message is not None
        if outcome.message.type is HvMessageType.X64_HALT:
            break
        body = guests.message(outcome, HvMessageType.X64_IO_PORT_INTERCEPT).body
        advance, gps = outcome.message.instruction_length, {}
        if body.port == 0x3F8:
            said += chr(body.rax & 0xFF)
        else:
            assert (body.port, body.header.access_type) == (0x3FD, READ)
            gps = {"rax": body.rax & ~0xFF | 0x20}
    assert said == text


# --- lengths without the processor's help -----------------------------------------------------------------------------

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
    outcome = guests.halted(vp.run(rax=0))
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
