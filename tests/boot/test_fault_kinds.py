"""Every exception that RAISE can provoke: what the fault record says, who is told, and that a restart heals it.

The judge of the record is QEMU's own view of the halted CPU, and the listing of the kernel.
"""

from dataclasses import dataclass, field

import pytest

from sidecar.layout import IMAGE_VA, PAGE_SIZE, ControlPage, CpuStatus, PrivatePage, RaiseKind, SidecarCommand
from sidecar.layout.address_map import absolute_symbols
from sidecar.layout.diagnostics import BootPhase
from sidecar.layout.registry import abi_hash
from sidecar.layout.x86 import Cr0, Cr4, Fcw, Rflags, Selector, Vector
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CpuFaulted
from sidecar.qemu.session import Session
from tests.support import cpus

NOT_MAPPED = 0x1234000
NON_CANONICAL = 1 << 63
STACK_END = IMAGE_VA + absolute_symbols()["stack_end"]
STACK = STACK_END - PAGE_SIZE
CONTROL = IMAGE_VA + absolute_symbols()["control_page"]


@dataclass(frozen=True)
class Expected:
    """What a kind of RAISE gives: `at` is the instruction a fault points at, `after` the one a trap has executed."""

    kind: RaiseKind
    vector: Vector
    at: str = ""
    after: str = ""
    error_code: int = 0
    argument: int = 0
    rsp: int = STACK_END - 8  # the return address into `execute`
    registers: dict[str, int] = field(default_factory=dict)


KINDS = (
    Expected(
        RaiseKind.DIVIDE_ERROR, Vector.DIVIDE_ERROR, at="div ecx", registers={"rax": 1, "rcx": 0, "rdx": 0}
    ),
    Expected(RaiseKind.DEBUG, Vector.DEBUG, after="icebp"),
    Expected(RaiseKind.NMI, Vector.NMI),
    Expected(RaiseKind.BREAKPOINT, Vector.BREAKPOINT, after="int3"),
    Expected(RaiseKind.INVALID_OPCODE, Vector.INVALID_OPCODE, at="ud2"),
    Expected(RaiseKind.DEVICE_NOT_AVAILABLE, Vector.DEVICE_NOT_AVAILABLE, at="fninit"),
    Expected(RaiseKind.DOUBLE_FAULT, Vector.DOUBLE_FAULT, at="push rax", rsp=STACK),
    Expected(
        RaiseKind.SEGMENT_NOT_PRESENT, Vector.SEGMENT_NOT_PRESENT, at="mov ds, eax",
        error_code=Selector.NOT_PRESENT, registers={"rax": Selector.NOT_PRESENT},
    ),
    Expected(
        RaiseKind.STACK_FAULT, Vector.STACK_FAULT, at="mov ss, eax",
        error_code=Selector.NOT_PRESENT, registers={"rax": Selector.NOT_PRESENT},
    ),
    Expected(
        RaiseKind.GENERAL_PROTECTION, Vector.GENERAL_PROTECTION, at="mov rax, qword ptr [rax]",
        registers={"rax": NON_CANONICAL},
    ),
    Expected(
        RaiseKind.PAGE_FAULT, Vector.PAGE_FAULT, at="mov rax, qword ptr [rdi]",
        argument=NOT_MAPPED, registers={"rdi": NOT_MAPPED},
    ),
    Expected(
        RaiseKind.X87_FLOATING_POINT, Vector.X87_FLOATING_POINT, at="fwait",
        registers={"rax": Fcw.UNMASKED_ZERO_DIVIDE},
    ),
    Expected(RaiseKind.MACHINE_CHECK, Vector.MACHINE_CHECK, after="int 0x12"),
)

every_kind = pytest.mark.parametrize("expected", KINDS, ids=lambda expected: expected.kind.name.lower())


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[2]


@every_kind
def test_the_record_names_vector_and_instruction(cpu: Cpu, expected: Expected) -> None:
    fault = cpus.fault_of(cpu, expected.kind, expected.argument)
    assert (fault.vector, fault.error_code) == (expected.vector, expected.error_code)
    line = cpus.line_before(fault.rip) if expected.after else cpus.line_at(fault.rip)
    assert line.routine == f"raise_{expected.kind.name.lower()}"
    if text := expected.at or expected.after:
        assert cpus.instruction(line) == text
    assert (fault.status, fault.command, fault.nested) == (CpuStatus.RUN, SidecarCommand.RAISE, False)
    if expected.vector == Vector.PAGE_FAULT:
        assert fault.cr2 == expected.argument


@every_kind
def test_the_record_has_the_registers(cpu: Cpu, expected: Expected) -> None:
    fault = cpus.fault_of(cpu, expected.kind, expected.argument)
    wanted = {
        "rbx": CONTROL + ControlPage.cpu_status + cpu.numbers.index,
        "rsp": expected.rsp,
        "r12": int(cpu.pages.command.sequence),
        **expected.registers,
    }
    assert {name: fault.registers[name] for name in wanted} == wanted
    assert (fault.rsp, fault.cs, fault.ss) == (expected.rsp, Selector.CODE64, Selector.DATA)
    assert fault.rflags & (Rflags.IF | Rflags.TF | Rflags.FIXED) == Rflags.FIXED


@every_kind
def test_the_record_agrees_with_qemu(session: Session, cpu: Cpu, expected: Expected) -> None:
    """After the fault the CPU has executed nothing that changes these registers."""
    fault = cpus.fault_of(cpu, expected.kind, expected.argument)
    cpus.assert_halted_in(session, cpu, "halt_forever")
    seen = session.machine.registers(cpu.number)
    assert (fault.cr0, fault.cr2, fault.cr3, fault.cr4) == (seen.cr0, seen.cr2, seen.cr3, seen.cr4)
    assert fault.dr6 == seen.values["DR6"]
    assert fault.cr3 == session.found.private_page_pa(session.found.cpu(cpu.number), PrivatePage.PML4)
    assert fault.cr0 & (Cr0.PG | Cr0.WP | Cr0.NE | Cr0.PE) == Cr0.PG | Cr0.WP | Cr0.NE | Cr0.PE
    assert bool(fault.cr0 & Cr0.TS) == (expected.vector == Vector.DEVICE_NOT_AVAILABLE)
    assert fault.cr4 & Cr4.PAE


@every_kind
def test_the_driver_is_told_and_the_others_answer(session: Session, cpu: Cpu, expected: Expected) -> None:
    count, before = cpus.faults(cpu), cpus.settled_responses(session)
    neighbours = {other.number: cpus.faults(other) for other in cpus.others(session, cpu)}
    attention = session.driver.nodes[0].attention
    attention.exchange(0)
    fault = cpus.fault_of(cpu, expected.kind, expected.argument)
    assert (cpu.status, fault.count) == (CpuStatus.FAULTED, count + 1)
    assert cpus.settled_responses(session) == before + 1
    assert attention.load() == 1
    for other in cpus.others(session, cpu):
        cpus.assert_answers(other)
    assert {other.number: cpus.faults(other) for other in cpus.others(session, cpu)} == neighbours


@every_kind
def test_a_restart_heals_it(cpu: Cpu, expected: Expected) -> None:
    cpu.set_registers({"HvX64RegisterDr0": 0x1000})
    fault = cpus.fault_of(cpu, expected.kind, expected.argument)
    before = cpus.arrivals(cpu)
    cpu.driver.command_memory(cpu.number)[:] = b"\xaa" * PAGE_SIZE
    cpu.pages.register[:] = b"\xaa" * PAGE_SIZE
    cpu.restart()
    assert (cpu.status, cpus.arrivals(cpu)) == (CpuStatus.IDLE, before + 1)
    assert cpus.shared_bytes(cpu) == bytes(PAGE_SIZE) == bytes(cpu.pages.register)
    assert cpu.pages.command.abi_hash == abi_hash()
    assert_fresh_boot_record(cpu, after_tsc=fault.tsc)
    assert cpu.driver.fault(cpu.number) == fault
    cpus.assert_answers(cpu)
    assert cpu.get_registers(["HvX64RegisterDr0"]) == {"HvX64RegisterDr0": 0}


def test_a_faulted_cpu_takes_no_command(cpu: Cpu) -> None:
    fault = cpus.fault_of(cpu, RaiseKind.INVALID_OPCODE)
    with pytest.raises(CpuFaulted, match=r"CPU 2 .* faulted: #UD \(vector 6\).*; restart it to use it again") as caught:
        cpu.none()
    assert caught.value.fault == fault


def test_simd_floating_point(session: Session, cpu: Cpu) -> None:
    """TCG delivers no #XM: there the command returns as if the exception were masked."""
    if session.accelerator.kind == "tcg":
        cpu.raise_fault(RaiseKind.SIMD_FLOATING_POINT, seconds=cpus.SECONDS)
        cpus.assert_answers(cpu)
    else:
        fault = cpus.fault_of(cpu, RaiseKind.SIMD_FLOATING_POINT)
        assert fault.vector == Vector.SIMD_FLOATING_POINT
        assert cpus.instruction(cpus.line_at(fault.rip)) == "divss xmm0, xmm1"


def test_page_faults_name_their_address(cpu: Cpu) -> None:
    for address in (0, 0x10, 0xDEAD000, IMAGE_VA - 8, STACK - 8, STACK_END, 0x7FFF_FFFF_FFF8):
        fault = cpus.fault_of(cpu, RaiseKind.PAGE_FAULT, address)
        assert (fault.vector, fault.error_code, fault.cr2) == (Vector.PAGE_FAULT, 0, address)
        cpu.restart()


def test_a_page_fault_that_is_none(cpu: Cpu) -> None:
    cpu.raise_fault(RaiseKind.PAGE_FAULT, IMAGE_VA, seconds=cpus.SECONDS)
    cpus.assert_answers(cpu)


def assert_fresh_boot_record(cpu: Cpu, *, after_tsc: int) -> None:
    boot = cpu.pages.diagnostic.boot
    stamps = [int(boot.stamps[phase]) for phase in BootPhase]
    assert [after_tsc, *stamps] == sorted([after_tsc, *stamps])
    assert (boot.apic_id, boot.linux_number, boot.started_by_it) == (cpu.numbers.apic_id, cpu.number, 0)
