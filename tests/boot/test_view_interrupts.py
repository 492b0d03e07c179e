"""The descriptor tables in live memory, decoded by the manual alone: every gate leads somewhere, on the right stack.

Where they lie is QEMU's word: its registers say the virtual address, its `gva2gpa` the physical one.
Ref: SDM vol. 3A, 3.4.5 (segment descriptors), 6.14.1 (64-bit gates), 8.7 (64-bit TSS).
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import capstone
import pytest

from sidecar.builder.image import kernel
from sidecar.layout import IMAGE_VA, PAGE_SIZE, REQUEST_VECTOR, SPURIOUS_VECTOR
from sidecar.layout.abi import TIMER_VECTOR
from sidecar.layout.address_map import absolute_symbols
from sidecar.layout.x86 import EXCEPTION_VECTORS, VECTORS_WITH_ERROR_CODE
from sidecar.qemu.session import Session
from tests.support.booted import fresh_directory, routine_at
from tests.support.qemu_view import translate
from tests.support.readelf import section

pytestmark = pytest.mark.needs("readelf")

CPU = 3
CODE64, DATA, TSS, NOT_PRESENT = 0x08, 0x10, 0x18, 0x30
INTERRUPT_GATE, TSS_BUSY = 0xE, 0xB
PRESENT = 0x80
INTERRUPT_STACKS = {2: 2, 8: 1, 18: 3}
"""NMI, #DF and #MC, and the entry of the interrupt stack table that each has for itself."""
INTERRUPT_PAGE = IMAGE_VA + absolute_symbols()["interrupt_page"]
LONGEST_STUB = 16


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=4, directory=fresh_directory(request)) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


@pytest.fixture(scope="module")
def text(session: Session) -> range:
    """The image's code, as virtual addresses."""
    elf = session.machine.directory / "kernel.elf"
    elf.write_bytes(kernel().elf)
    code = section(elf, ".text")
    return range(IMAGE_VA + code.start, IMAGE_VA + code.stop)


def read_virtual(session: Session, va: int, size: int) -> bytes:
    """Memory as the CPU sees it, a page at a time, addresses translated by QEMU."""
    data = b""
    while len(data) < size:
        at = va + len(data)
        pa = translate(session.machine, CPU, at)
        assert pa is not None, f"{at:#x} is not mapped"
        data += session.machine.read_memory(pa, min(PAGE_SIZE - at % PAGE_SIZE, size - len(data)))
    return data


@pytest.fixture(scope="module")
def gates(session: Session) -> list[tuple[int, int, int, int]]:
    """(target, selector, interrupt stack, type and attributes) of each gate."""
    table = session.machine.registers(CPU).idt
    data = read_virtual(session, table.base, table.limit + 1)
    return [
        (low | middle << 16 | high << 32, selector, stack, kind)
        for low, selector, stack, kind, middle, high, _ in struct.iter_unpack("<HHBBHII", data)
    ]


def test_256_present_interrupt_gates(gates: list[tuple[int, int, int, int]], text: range) -> None:
    assert len(gates) == 256
    for vector, (target, selector, _, kind) in enumerate(gates):
        assert (kind, selector) == (PRESENT | INTERRUPT_GATE, CODE64), f"vector {vector}"
        assert target in text, f"vector {vector}"
    assert len({target for target, *_ in gates}) == 256


def test_interrupt_stacks_for_the_three_that_need_them(gates: list[tuple[int, int, int, int]]) -> None:
    assert {vector: gate[2] for vector, gate in enumerate(gates) if gate[2]} == INTERRUPT_STACKS


def test_every_gate_leads_to_its_own_handler(session: Session, gates: list[tuple[int, int, int, int]]) -> None:
    """Disassembled: exceptions end in fault_entry with an error code and their number on the stack."""
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    special = {REQUEST_VECTOR: "request", TIMER_VECTOR: "timer", SPURIOUS_VECTOR: "spurious"}
    for vector, (target, *_) in enumerate(gates):
        pushed: list[int] = []
        handler = ""
        for one in disassembler.disasm(read_virtual(session, target, LONGEST_STUB), target):
            if one.mnemonic != "push":
                assert one.mnemonic == "jmp"
                handler = routine_at(int(one.op_str, 16))
                break
            pushed.append(int(one.op_str, 16) & 0xFF)
        if vector < EXCEPTION_VECTORS:
            assert handler == "fault_entry"
            assert pushed == ([vector] if vector in VECTORS_WITH_ERROR_CODE else [0, vector]), f"vector {vector}"
        else:
            assert handler == special.get(vector, "stray")
            assert pushed == ([] if vector in special else [vector]), f"vector {vector}"


def test_segment_descriptors(session: Session) -> None:
    table = session.machine.registers(CPU).gdt
    data = read_virtual(session, table.base, table.limit + 1)
    entries = {at: int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)}
    assert entries[0] == 0
    kind = {at: entry >> 40 & 0xFF for at, entry in entries.items()}
    assert kind[CODE64] & 0x98 == 0x98, "present, a code segment"
    assert entries[CODE64] >> 53 & 3 == 1, "64-bit"
    assert kind[DATA] & 0x9A == 0x92, "present, data, writable"
    assert kind[TSS] == PRESENT | TSS_BUSY
    assert not kind[NOT_PRESENT] & PRESENT
    assert {at for at, entry in entries.items() if entry} == {CODE64, DATA, TSS, TSS + 8, NOT_PRESENT}


def test_task_state_gives_three_stacks_in_one_page(session: Session) -> None:
    task = session.machine.registers(CPU).segments["TR"]
    data = read_virtual(session, task.base, task.limit + 1)
    stacks = struct.unpack_from("<7Q", data, 36)
    assert struct.unpack_from("<3Q", data, 4) == (0, 0, 0), "there is no other ring to come from"
    assert stacks[3:] == (0, 0, 0, 0)
    assert len(set(stacks[:3])) == 3
    for stack in stacks[:3]:
        assert stack % 16 == 0
        assert INTERRUPT_PAGE < stack <= INTERRUPT_PAGE + PAGE_SIZE
    (io_map,) = struct.unpack_from("<H", data, 102)
    assert io_map > task.limit
    lowest = min(stacks[:3])
    assert min(b - a for a, b in zip(sorted(stacks[:3]), sorted(stacks[:3])[1:], strict=False)) >= 0x400
    assert lowest - 0x400 >= task.base + task.limit + 1, "the lowest stack does not grow into the TSS"
