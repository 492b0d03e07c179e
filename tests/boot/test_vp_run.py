"""RUN_VP itself: what is refused, what goes into a guest and out of it, and what is left of a virtual processor."""

import struct
from pathlib import Path

import pytest

from sidecar.layout import SidecarCommand
from sidecar.layout.hv_messages import HvInterceptAccess, HvMessageType
from sidecar.layout.run import RunEnd
from sidecar.layout.svm import SvmExit, VpPage, XsaveHeader
from sidecar.layout.x86 import Efer, Icr, Vector
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CpuFaulted, SidecarCommandError
from sidecar.protocol.recovery import interrupt
from sidecar.protocol.vp_run import fx_state
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from tests.support import cpus, guests

SPIN = "again:  inc rax\n jmp again"


@pytest.fixture
def cpu(hosted: Session) -> Cpu:
    return hosted.cpus[1]


def svm_of(session: Session, number: int = 1) -> bool:
    """Is SVM enabled on a CPU, as QEMU sees it?"""
    return bool(session.machine.registers(number).values["EFER"] & Efer.SVME)


# --- refusals ---------------------------------------------------------------------------------------------------------


def refusal(cpu: Cpu) -> str:
    with pytest.raises(SidecarCommandError) as caught:
        cpu.execute(SidecarCommand.RUN_VP, seconds=cpus.SECONDS)
    assert (cpu.pages.command.run.end, cpu.pages.command.request_data[0]) == (RunEnd.NONE, 0)
    return caught.value.sentence


def test_a_cpu_without_a_virtual_processor(cpu: Cpu) -> None:
    assert refusal(cpu) == "command 1: this CPU was given no virtual processor"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("max,-svm", "command 1: this CPU has no SVM with nested paging"),
        ("max,-npt", "command 1: this CPU has no SVM with nested paging"),
    ],
)
def test_a_cpu_without_svm(tmp_path: Path, model: str, sentence: str) -> None:
    with Session(smp=2, extra=("-cpu", model), directory=tmp_path) as session:
        with HostedVp(session, 1):
            assert refusal(session.cpus[1]) == sentence
        assert not svm_of(session)
        cpus.assert_answers(session.cpus[1])


@pytest.mark.parametrize("field", ["vp_pages_pa", "guest_root_pa"])
@pytest.mark.parametrize("value", [0x123, 1 << 52, 1 << 63])
def test_pages_that_are_none(cpu: Cpu, vp: HostedVp, field: str, value: int) -> None:
    setattr(vp.privileged, field, value)
    assert refusal(cpu) == "command 1: vp_pages_pa or guest_root_pa is not the address of a page"


def test_more_bytes_than_an_instruction_has(cpu: Cpu, vp: HostedVp) -> None:
    for advance in (16, 255):
        with pytest.raises(SidecarCommandError, match="advance_rip is more than 15"):
            vp.run(advance_rip=advance)


# --- the first guest --------------------------------------------------------------------------------------------------


def test_halt_in_the_reset_state(vp: HostedVp) -> None:
    """Every field of the message and of the outcome, for one HLT at the reset vector."""
    vp.memory[guests.RESET_VECTOR] = 0xF4
    outcome = guests.asleep(vp).run(rax=0x1122334455667788, r15=15, cr2=0xCC2)
    body = guests.message(outcome, HvMessageType.X64_HALT).body.header
    assert (body.vp_index, body.instruction_length, body.access_type) == (1, 1, HvInterceptAccess.EXECUTE)
    assert (body.execution_state, body.rip, body.rflags) == (0, 0xFFF0, 2)
    assert (body.cs.base, body.cs.limit, body.cs.selector, body.cs.attributes) == (0xFFFF0000, 0xFFFF, 0xF000, 0x9B)
    assert (outcome.guest_entries, outcome.local_exits, outcome.notifications) == (1, 0, 0)
    assert (outcome.exit_code, outcome.cpl, outcome.cs_attributes) == (SvmExit.HLT, 0, 0x9B)
    assert (outcome.rip, outcome.rsp, outcome.rflags) == (0xFFF0, 0, 2)
    assert (outcome.cr0, outcome.cr3, outcome.cr4, outcome.efer) == (0x60000010, 0, 0, 0)
    assert outcome.guest_tsc > 0
    assert {name: outcome.gps[name] for name in ("rax", "rbx", "r15", "cr2")} == {
        "rax": 0x1122334455667788, "rbx": 0, "r15": 15, "cr2": 0xCC2,
    }
    assert outcome.gps["rdx"] != 0  # the processor's signature
    raw = vp.cpu.pages.command.intercept_message
    assert (raw.payload_size, raw.message_flags, raw.origination_id) == (0x28, 0, 0)


def test_the_guest_goes_on_where_the_vmm_says(vp: HostedVp) -> None:
    guests.start_long(vp, "hlt\n inc rax\n hlt\n inc rax\n hlt")
    assert guests.halted_at(vp.run(rax=7), guests.CODE).gps["rax"] == 7
    assert guests.halted_at(vp.run(), guests.CODE).gps["rax"] == 7, "HLT is executed again"
    assert guests.halted_at(vp.run(advance_rip=1), guests.CODE + 4).gps["rax"] == 8
    assert vp.cpu.pages.command.run.advance_rip == 0
    assert guests.halted_at(vp.run(advance_rip=1, rax=99), guests.CODE + 8).gps["rax"] == 100


def test_all_general_registers_go_in_and_out(vp: HostedVp) -> None:
    names = ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
    guests.start_long(vp, "\n".join(f"xor {name}, -1" for name in names) + "\n hlt")
    given = {name: 0x0123456789ABCDEF * (place + 1) & (1 << 64) - 1 for place, name in enumerate(names)}
    outcome = guests.halted(vp.run(cr2=0xFACE, **given))
    assert {name: outcome.gps[name] for name in names} == {name: value ^ (1 << 64) - 1 for name, value in given.items()}
    assert outcome.gps["cr2"] == 0xFACE


def test_cr2_and_debug_registers_are_the_guests(hosted: Session, vp: HostedVp) -> None:
    vp.cpu.set_registers({"HvX64RegisterDr0": 0x1234, "HvX64RegisterDr6": 0xFFFF0FF1})
    guests.start_long(
        vp, "mov rax, cr2\n mov rbx, dr0\n mov rcx, 0x77\n mov dr3, rcx\n mov cr2, rcx\n mov rdx, dr6\n hlt"
    )
    vp.cpu.set_registers({"HvX64RegisterDr0": 0x1234, "HvX64RegisterDr6": 0xFFFF0FF1})
    outcome = guests.halted(vp.run(cr2=0xABC))
    assert (outcome.gps["rax"], outcome.gps["rbx"], outcome.gps["rdx"]) == (0xABC, 0x1234, 0xFFFF0FF1)
    assert outcome.gps["cr2"] == 0x77
    assert vp.cpu.get_registers(["HvX64RegisterDr3"]) == {"HvX64RegisterDr3": 0x77}
    seen = hosted.machine.registers(1).values
    assert [seen[f"DR{n}"] for n in range(4)] == [0, 0, 0, 0]


def test_floating_point_state_is_the_guests_and_is_kept(vp: HostedVp) -> None:
    """XMM by the command page, the upper halves of YMM across runs; the next guest sees none of it."""
    fx = fx_state(vp.page)
    struct.pack_into("<QQ", fx, 160 + 16 * 3, 0x1111, 0x2222)
    guests.start_long(vp, f"""
            xor     ecx, ecx
            mov     eax, 7
            xor     edx, edx
            xsetbv
            mov     edi, {guests.DATA}
            movdqu  xmmword ptr [rdi], xmm3
            vmovdqu ymm5, ymmword ptr [rdi]
            hlt
            vmovdqu ymmword ptr [rdi + 64], ymm5
            hlt""")
    vp.memory[guests.DATA + 16 : guests.DATA + 32] = bytes(range(16))
    guests.halted(vp.run())
    expected = struct.pack("<QQ", 0x1111, 0x2222) + bytes(range(16))
    assert bytes(vp.memory[guests.DATA : guests.DATA + 32]) == expected
    assert bytes(fx[160 + 16 * 5 : 160 + 16 * 6]) == expected[:16]
    vp.cpu.none()
    guests.halted(vp.run(advance_rip=1))
    assert bytes(vp.memory[guests.DATA + 64 : guests.DATA + 96]) == expected


def test_invalid_mxcsr_bits_are_dropped(vp: HostedVp) -> None:
    guests.start_long(vp, f"mov edi, {guests.DATA}\n stmxcsr [rdi]\n hlt")
    struct.pack_into("<I", fx_state(vp.page), 24, 0xFFFF1F80)
    guests.halted(vp.run())
    assert guests.quad(vp, guests.DATA) & 0xFFFFFFFF == 0x1F80


# --- what is left -----------------------------------------------------------------------------------------------------


def test_svm_is_on_only_with_a_virtual_processor(hosted: Session) -> None:
    assert not svm_of(hosted)
    with guests.virtual_processor(hosted) as vp:
        guests.prepare(vp)
        assert svm_of(hosted)
    assert not svm_of(hosted)
    assert refusal(hosted.cpus[1]) == "command 1: this CPU was given no virtual processor"


def test_a_new_one_starts_from_reset(hosted: Session) -> None:
    for _ in range(3):
        with guests.virtual_processor(hosted) as vp:
            vp.memory[guests.RESET_VECTOR] = 0xF4
            outcome = guests.halted_at(vp.run(rbx=5), 0xFFF0)
            assert outcome.cr0 == 0x60000010
            guests.start_long(vp, "mov eax, 5\n hlt")
            assert guests.halted(vp.run()).gps["rax"] == 5


def test_a_restart_resets_it(cpu: Cpu, vp: HostedVp) -> None:
    guests.start_long(vp, "hlt")
    guests.halted_at(vp.run(), guests.CODE)
    cpu.restart()
    vp.memory[guests.RESET_VECTOR] = 0xF4
    guests.halted_at(vp.run(), 0xFFF0)


def test_a_guest_that_spins_ends_with_a_restart(hosted: Session, cpu: Cpu, vp: HostedVp) -> None:
    guests.start_long(vp, f"cli\n{guests.COUNT}")
    vp.start()
    guests.wait_for_guest(vp, guests.DATA)
    cpu.restart()
    hosted.cpus[1] = Cpu(hosted.driver, 1)
    cpus.assert_answers(hosted.cpus[1])
    assert not svm_of(hosted)


def test_remove_disables_svm(hosted: Session, cpu: Cpu, vp: HostedVp) -> None:
    guests.start_long(vp, "hlt")
    guests.halted(vp.run())
    cpu.remove()
    assert not svm_of(hosted)
    cpu.give_back()
    vp.memory[guests.RESET_VECTOR] = 0xF4
    guests.halted_at(vp.run(), 0xFFF0)


def test_a_fault_of_the_sidecar_in_a_run_is_contained(hosted: Session, cpu: Cpu, vp: HostedVp) -> None:
    """An XSAVE image that the processor refuses, which nobody but a broken driver can make."""
    guests.start_long(vp, "hlt")
    guests.halted(vp.run())
    image = vp.free.ram.view(vp.pages_pa + VpPage.XSAVE * 4096, XsaveHeader.SIZE)
    struct.pack_into("<Q", image, int(XsaveHeader.xcomp_bv), 0x1234)
    with pytest.raises(CpuFaulted) as caught:
        vp.run()
    assert (caught.value.fault.vector, caught.value.fault.command) == (Vector.GENERAL_PROTECTION, SidecarCommand.RUN_VP)
    for other in cpus.others(hosted, cpu):
        cpus.assert_answers(other)
    cpu.restart()
    vp.memory[guests.RESET_VECTOR] = 0xF4
    guests.halted_at(vp.run(), 0xFFF0)


def test_an_nmi_in_the_guest_is_a_fault_of_the_cpu(hosted: Session, cpu: Cpu, vp: HostedVp) -> None:
    guests.start_long(vp, f"cli\n{guests.COUNT}")
    run = vp.start()
    guests.wait_for_guest(vp, guests.DATA)
    interrupt(hosted.backing, cpu.numbers, Icr.NMI)
    with pytest.raises(CpuFaulted) as caught:
        run.wait(seconds=cpus.SECONDS)
    assert caught.value.fault.vector == Vector.NMI
    cpu.restart()
    vp.memory[guests.RESET_VECTOR] = 0xF4
    guests.halted_at(vp.run(), 0xFFF0)


def test_two_at_once(hosted: Session) -> None:
    with guests.virtual_processor(hosted, 1) as one, HostedVp(hosted, 2) as two:
        guests.write_tables(two)
        for vp in (one, two):
            guests.start_long(vp, guests.COUNT)
        runs = [vp.start() for vp in (one, two)]
        for vp in (one, two):
            guests.wait_for_guest(vp, guests.DATA)
        for run in runs:
            assert run.stop()
            run.wait(seconds=cpus.SECONDS)
        assert [vp.outcome().end for vp in (one, two)] == [RunEnd.CANCELLED] * 2
