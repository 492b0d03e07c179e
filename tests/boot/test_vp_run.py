"""RUN_VP itself: how a run begins and ends, who may end it and when, and what is left of a virtual processor."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.layout import REQUEST_VECTOR, CpuStatus, SidecarCommand
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
from sidecar.qemu.waiting import wait_until
from tests.support import cpus, guests

SPIN = "again:  inc rax\n jmp again"
RACES = 200


@pytest.fixture(scope="module")
def run_directory(request: pytest.FixtureRequest) -> Path:
    return cpus.module_directory(request)


@pytest.fixture(scope="module")
def machine(run_directory: Path) -> Iterator[Session]:
    with Session(smp=3, tests=True, directory=run_directory) as session:
        yield session


@pytest.fixture
def session(machine: Session) -> Iterator[Session]:
    yield machine
    cpus.tidy(machine)


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[1]


@pytest.fixture
def vp(session: Session) -> Iterator[HostedVp]:
    with guests.virtual_processor(session) as vp:
        yield vp


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
    outcome = vp.run(rax=0x1122334455667788, r15=15, cr2=0xCC2)
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


def test_cr2_and_debug_registers_are_the_guests(session: Session, vp: HostedVp) -> None:
    vp.cpu.set_registers({"HvX64RegisterDr0": 0x1234, "HvX64RegisterDr6": 0xFFFF0FF1})
    guests.start_long(
        vp, "mov rax, cr2\n mov rbx, dr0\n mov rcx, 0x77\n mov dr3, rcx\n mov cr2, rcx\n mov rdx, dr6\n hlt"
    )
    vp.cpu.set_registers({"HvX64RegisterDr0": 0x1234, "HvX64RegisterDr6": 0xFFFF0FF1})
    outcome = guests.halted(vp.run(cr2=0xABC))
    assert (outcome.gps["rax"], outcome.gps["rbx"], outcome.gps["rdx"]) == (0xABC, 0x1234, 0xFFFF0FF1)
    assert outcome.gps["cr2"] == 0x77
    assert vp.cpu.get_registers(["HvX64RegisterDr3"]) == {"HvX64RegisterDr3": 0x77}
    seen = session.machine.registers(1).values
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


# --- ends of a run ----------------------------------------------------------------------------------------------------


def test_a_doorbell_before_the_first_entry(vp: HostedVp) -> None:
    vp.memory[guests.RESET_VECTOR] = 0xF4
    vp.ring(0x8000000000000001)
    vp.ring(2)
    outcome = vp.run()
    assert (outcome.end, outcome.guest_entries, outcome.notifications) == (RunEnd.NOTIFIED, 0, 0x8000000000000003)
    assert (outcome.exit_code, outcome.rip) == (0, 0xFFF0)
    assert vp.privileged.doorbell == 0
    assert guests.halted(vp.run()).notifications == 0


def test_a_stop_before_the_first_entry(session: Session, vp: HostedVp) -> None:
    vp.memory[guests.RESET_VECTOR] = 0xF4
    with cpus.paused(session):
        run = vp.start()
        assert run.stop()
    run.wait(seconds=cpus.SECONDS)
    outcome = vp.outcome()
    assert (outcome.end, outcome.guest_entries, outcome.message) == (RunEnd.CANCELLED, 0, None)
    guests.halted(vp.run())


def wait_for_guest(vp: HostedVp, at: int, old: int = 0) -> None:
    wait_until(lambda: guests.quad(vp, at) != old, seconds=cpus.SECONDS, what=f"the guest to store at {at:#x}")


COUNT = f"mov edi, {guests.DATA}\n again: inc qword ptr [rdi]\n jmp again"


@pytest.mark.parametrize("before", ["cli", "sti"])
def test_a_guest_that_spins_is_cancelled_and_goes_on(vp: HostedVp, before: str) -> None:
    guests.start_long(vp, f"{before}\n{COUNT}")
    last = 0
    for _ in range(5):
        run = vp.start()
        wait_for_guest(vp, guests.DATA, last)
        assert run.stop()
        run.wait(seconds=cpus.SECONDS)
        outcome = vp.outcome()
        assert (outcome.end, outcome.message, outcome.gps["rdi"]) == (RunEnd.CANCELLED, None, guests.DATA)
        assert outcome.rip in range(guests.CODE + 1, guests.CODE + 12)
        last = guests.quad(vp, guests.DATA)
        time.sleep(0.01)
        assert guests.quad(vp, guests.DATA) == last, "it still runs"


def test_a_doorbell_while_the_guest_spins(vp: HostedVp) -> None:
    guests.start_long(vp, f"cli\n{COUNT}")
    for bit in (0, 5, 63):
        run = vp.start()
        wait_for_guest(vp, guests.DATA, guests.quad(vp, guests.DATA))
        vp.ring(1 << bit)
        run.wait(seconds=cpus.SECONDS)
        assert (vp.outcome().end, vp.outcome().notifications) == (RunEnd.NOTIFIED, 1 << bit)


def wait_for_request(cpu: Cpu, before: int) -> None:
    wait_until(lambda: cpus.counters(cpu)["requests"] > before, seconds=cpus.SECONDS, what="a request to be taken")


def test_requests_without_a_cause_end_nothing(session: Session, vp: HostedVp) -> None:
    guests.start_long(vp, COUNT)
    run = vp.start()
    wait_for_guest(vp, guests.DATA)
    for _ in range(20):
        before = cpus.counters(vp.cpu)["requests"]
        interrupt(session.backing, vp.cpu.numbers, Icr.FIXED, REQUEST_VECTOR)
        wait_for_request(vp.cpu, before)
    interrupt(session.backing, vp.cpu.numbers, Icr.FIXED, 0x99)
    wait_until(lambda: cpus.stray(vp.cpu).get(0x99, 0) > 0, seconds=cpus.SECONDS, what="a stray interrupt")
    assert vp.cpu.status == CpuStatus.RUN
    assert run.stop()
    run.wait(seconds=cpus.SECONDS)
    outcome = vp.outcome()
    assert outcome.end is RunEnd.CANCELLED
    assert outcome.guest_entries >= outcome.local_exits >= 20


def test_a_time_limit(session: Session, vp: HostedVp) -> None:
    guests.start_long(vp, COUNT)
    ticks = session.found.tsc_khz * 20
    before = cpus.counters(vp.cpu)["timer"]
    for _ in range(3):
        outcome = vp.run(time_limit=ticks)
        assert (outcome.end, outcome.message) == (RunEnd.TIME_LIMIT, None)
        spent = vp.cpu.ticks()
        assert spent.end - spent.start >= ticks
    assert cpus.counters(vp.cpu)["timer"] >= before + 3
    outcome = vp.run(time_limit=1)
    assert (outcome.end, outcome.guest_entries) == (RunEnd.TIME_LIMIT, 0)


def test_a_time_limit_that_is_not_reached(session: Session, vp: HostedVp) -> None:
    guests.start_long(vp, "hlt")
    for limit in (session.found.tsc_khz * 60_000, (1 << 64) - 1):
        guests.halted(vp.run(time_limit=limit))
    cpus.wait_asleep(session)


def test_stop_races_the_run(vp: HostedVp) -> None:
    """Whenever the STOP comes: the run ends, and the guest's count goes on by what it stored."""
    guests.start_long(vp, COUNT)
    for turn in range(RACES):
        run = vp.start()
        end = time.perf_counter() + turn % 50 * 4e-6
        while time.perf_counter() < end:
            time.sleep(0)
        assert run.stop()
        run.wait(seconds=cpus.SECONDS)
        assert vp.outcome().end is RunEnd.CANCELLED
        assert vp.cpu.status == CpuStatus.IDLE


def test_doorbells_race_exits(vp: HostedVp) -> None:
    """A guest that halts all the time, and a bit posted at any moment: each comes out exactly once."""
    guests.start_long(vp, "again: hlt\n jmp again")
    seen, advance = [], 0
    for turn in range(RACES):
        run = vp.start(advance_rip=advance)
        vp.ring(1 << turn % 64)
        run.wait(seconds=cpus.SECONDS)
        outcome = vp.outcome()
        advance = int(outcome.end is RunEnd.INTERCEPT)
        posted = outcome.notifications
        if not posted:
            outcome = vp.run(advance_rip=advance)
            assert (outcome.end, outcome.guest_entries) == (RunEnd.NOTIFIED, 0)
            posted, advance = outcome.notifications, 0
        seen.append(posted)
    assert seen == [1 << turn % 64 for turn in range(RACES)]


# --- what is left -----------------------------------------------------------------------------------------------------


def test_svm_is_on_only_with_a_virtual_processor(session: Session) -> None:
    assert not svm_of(session)
    with guests.virtual_processor(session) as vp:
        guests.prepare(vp)
        assert svm_of(session)
    assert not svm_of(session)
    assert refusal(session.cpus[1]) == "command 1: this CPU was given no virtual processor"


def test_a_new_one_starts_from_reset(session: Session) -> None:
    for _ in range(3):
        with guests.virtual_processor(session) as vp:
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


def test_a_guest_that_spins_ends_with_a_restart(session: Session, cpu: Cpu, vp: HostedVp) -> None:
    guests.start_long(vp, f"cli\n{COUNT}")
    vp.start()
    wait_for_guest(vp, guests.DATA)
    cpu.restart()
    session.cpus[1] = Cpu(session.driver, 1)
    cpus.assert_answers(session.cpus[1])
    assert not svm_of(session)


def test_remove_disables_svm(session: Session, cpu: Cpu, vp: HostedVp) -> None:
    guests.start_long(vp, "hlt")
    guests.halted(vp.run())
    cpu.remove()
    assert not svm_of(session)
    cpu.give_back()
    vp.memory[guests.RESET_VECTOR] = 0xF4
    guests.halted_at(vp.run(), 0xFFF0)


def test_a_fault_of_the_sidecar_in_a_run_is_contained(session: Session, cpu: Cpu, vp: HostedVp) -> None:
    """An XSAVE image that the processor refuses, which nobody but a broken driver can make."""
    guests.start_long(vp, "hlt")
    guests.halted(vp.run())
    image = vp.free.ram.view(vp.pages_pa + VpPage.XSAVE * 4096, XsaveHeader.SIZE)
    struct.pack_into("<Q", image, int(XsaveHeader.xcomp_bv), 0x1234)
    with pytest.raises(CpuFaulted) as caught:
        vp.run()
    assert (caught.value.fault.vector, caught.value.fault.command) == (Vector.GENERAL_PROTECTION, SidecarCommand.RUN_VP)
    for other in cpus.others(session, cpu):
        cpus.assert_answers(other)
    cpu.restart()
    vp.memory[guests.RESET_VECTOR] = 0xF4
    guests.halted_at(vp.run(), 0xFFF0)


def test_an_nmi_in_the_guest_is_a_fault_of_the_cpu(session: Session, cpu: Cpu, vp: HostedVp) -> None:
    guests.start_long(vp, f"cli\n{COUNT}")
    run = vp.start()
    wait_for_guest(vp, guests.DATA)
    interrupt(session.backing, cpu.numbers, Icr.NMI)
    with pytest.raises(CpuFaulted) as caught:
        run.wait(seconds=cpus.SECONDS)
    assert caught.value.fault.vector == Vector.NMI
    cpu.restart()
    vp.memory[guests.RESET_VECTOR] = 0xF4
    guests.halted_at(vp.run(), 0xFFF0)


def test_two_at_once(session: Session) -> None:
    with guests.virtual_processor(session, 1) as one, HostedVp(session, 2) as two:
        guests.write_tables(two)
        for vp in (one, two):
            guests.start_long(vp, COUNT)
        runs = [vp.start() for vp in (one, two)]
        for vp in (one, two):
            wait_for_guest(vp, guests.DATA)
        for run in runs:
            assert run.stop()
            run.wait(seconds=cpus.SECONDS)
        assert [vp.outcome().end for vp in (one, two)] == [RunEnd.CANCELLED] * 2
