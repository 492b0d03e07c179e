"""QEMU's own view of the sidecar's CPUs: threads, registers and local APICs, as its monitor shows them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.builder.image import kernel
from sidecar.layout import IMAGE_VA, SPURIOUS_VECTOR, PrivatePage
from sidecar.layout.address_map import absolute_symbols
from sidecar.layout.private import InterruptPage, Tss
from sidecar.layout.x86 import Cr0, Cr4, Dr, Efer, Mxcsr, Rflags, Selector
from sidecar.qemu.registers import CpuRegisters, DescriptorTable
from sidecar.qemu.session import Session
from tests.support.booted import fresh_directory, routine_at, wait_parked
from tests.support.qemu_view import local_apic

SMP = 64
INTERRUPT_PAGE = IMAGE_VA + absolute_symbols()["interrupt_page"]
STACK_END = IMAGE_VA + absolute_symbols()["stack_end"]
CR0 = Cr0.PG | Cr0.WP | Cr0.NE | Cr0.ET | Cr0.MP | Cr0.PE
CR4 = Cr4.PAE | Cr4.MCE | Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE
EFER = Efer.LME | Efer.LMA | Efer.NXE
LONG_MODE_CODE = 1 << 21
"""The L bit of a code segment in the flags that QEMU shows. Ref: SDM vol. 3A, 3.4.5."""
X87_RESET = 0x37F


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=SMP, directory=fresh_directory(request)) as booted:
        for cpu in booted.cpus.values():
            cpu.none()
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


@pytest.fixture(scope="module")
def parked(session: Session) -> dict[int, CpuRegisters]:
    return wait_parked(session)


def test_a_thread_per_cpu(session: Session) -> None:
    listed = session.machine.qmp("query-cpus-fast")
    threads = {cpu["thread-id"] for cpu in listed}
    assert len(listed) == len(threads) == SMP
    running = {int(task.name) for task in Path(f"/proc/{session.machine.pid}/task").iterdir()}
    assert threads <= running


def test_every_sidecar_cpu_is_halted_in_its_park_loop(parked: dict[int, CpuRegisters]) -> None:
    assert len(parked) == 62
    for registers in parked.values():
        assert registers.halted
        assert routine_at(registers.rip) == "park"
        assert registers.rflags & Rflags.IF, "or nothing could wake it"
        assert not registers.rflags & Rflags.TF
        assert registers.values["RSP"] == STACK_END


def test_every_sidecar_cpu_has_its_own_page_tables(session: Session, parked: dict[int, CpuRegisters]) -> None:
    found = session.found
    roots = {number: registers.cr3 for number, registers in parked.items()}
    assert len(set(roots.values())) == len(roots)
    assert roots == {number: found.private_page_pa(found.cpu(number), PrivatePage.PML4) for number in roots}


def test_control_registers_are_exactly_as_set(parked: dict[int, CpuRegisters]) -> None:
    for number, registers in parked.items():
        assert (registers.cr0, registers.cr4, registers.efer) == (CR0, CR4, EFER), f"CPU {number}"


def test_descriptor_tables_are_the_sidecars(parked: dict[int, CpuRegisters]) -> None:
    idt = DescriptorTable(IMAGE_VA + kernel().linked.symbols["idt"], 0xFFF)
    gdt = DescriptorTable(INTERRUPT_PAGE + InterruptPage.gdt, InterruptPage.gdt.SIZE - 1)
    for number, registers in parked.items():
        assert (registers.gdt, registers.idt) == (gdt, idt), f"CPU {number}"


def test_segments_are_flat_and_64_bit(parked: dict[int, CpuRegisters]) -> None:
    for registers in parked.values():
        segments = registers.segments
        assert segments["CS"].selector == Selector.CODE64
        assert segments["CS"].flags & LONG_MODE_CODE
        assert {segments[name].selector for name in ("DS", "ES", "SS")} == {Selector.DATA}
        assert {(segments[name].selector, segments[name].base) for name in ("FS", "GS")} == {(0, 0)}
        task = segments["TR"]
        expected = (Selector.TSS, INTERRUPT_PAGE + InterruptPage.tss, Tss.SIZE - 1)
        assert (task.selector, task.base, task.limit) == expected


def test_debug_and_floating_point_state_is_that_of_reset(parked: dict[int, CpuRegisters]) -> None:
    for registers in parked.values():
        values = registers.values
        assert [values[f"DR{n}"] for n in range(4)] == [0, 0, 0, 0]
        assert (values["DR6"], values["DR7"]) == (Dr.DR6_RESET, Dr.DR7_RESET)
        assert (values["MXCSR"], values["FCW"], values["FSW"]) == (Mxcsr.RESET, X87_RESET, 0)


def test_local_apics_are_enabled_and_quiet(session: Session, parked: dict[int, CpuRegisters]) -> None:
    for number in parked:
        apic = local_apic(session.machine, number)
        assert apic["SPIV"].startswith(f"{0x100 | SPURIOUS_VECTOR:#010x} APIC enabled"), f"CPU {number}"
        assert (apic["ISR"], apic["IRR"]) == ("(none)", "(none)"), f"CPU {number}"
        assert all("masked" in text for name, text in apic.items() if name.startswith("LVT")), f"CPU {number}"
        assert int(apic["ESR"], 16) == 0


def test_the_boot_cpu_and_the_first_of_the_second_node_are_not_the_sidecars(
    session: Session, parked: dict[int, CpuRegisters]
) -> None:
    relay, first = session.machine.registers(0), session.machine.registers(32)
    assert (relay.halted, first.halted) == (True, True)
    for other in (relay, first):
        assert other.cr3 not in {registers.cr3 for registers in parked.values()}
        assert other.idt != parked[1].idt
    assert not first.efer & Efer.LMA, "Linux's CPU is as the firmware left it"
