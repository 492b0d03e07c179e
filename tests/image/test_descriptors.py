"""GDT, TSS and IDT of the built image, decoded by what the manual says and not by what built them.

Ref: SDM vol. 3A, 3.4.5 (segment descriptors), 6.14.1 (64-bit gates), 8.2.3 and 8.7 (TSS in 64-bit mode).
"""

import struct
from dataclasses import dataclass

from sidecar.builder import image
from sidecar.kernel import descriptors, interrupts
from sidecar.layout import IMAGE_VA, REQUEST_VECTOR, SPURIOUS_VECTOR, TIMER_VECTOR
from sidecar.layout.address_map import PER_CPU_MAP
from sidecar.layout.private import INTERRUPT_STACK_BYTES, InterruptPage
from sidecar.layout.x86 import EXCEPTION_VECTORS, VECTORS_WITH_ERROR_CODE, Ist, Selector, Vector
from tests.image.helpers import memory_of
from tests.support.control_flow import ControlFlow, Step

SYMBOLS = image.kernel().linked.symbols
MEMORY = memory_of("kernel")
PAGE_VA = next(mapping.va for mapping in PER_CPU_MAP if mapping.symbol == "interrupt_page")
HEAD = MEMORY[SYMBOLS["interrupt_page_head"] :]
"""What every CPU copies to the beginning of its interrupt page."""

CODE, DATA, TSS_AVAILABLE, INTERRUPT_GATE = 0b11011, 0b10011, 0b01001, 0b01110
"""S and type: code, execute and read, accessed; data, read and write, accessed; system types."""


@dataclass(frozen=True)
class Segment:
    """A descriptor of 8 bytes, and the upper half of the base if it has 16."""

    base: int
    limit: int
    kind: int
    privilege: int
    present: bool
    long: bool
    pages: bool


def segment(selector: int, *, wide: bool = False) -> Segment:
    low, high = struct.unpack_from("<II", HEAD, InterruptPage.gdt + selector)
    base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
    if wide:
        upper, reserved = struct.unpack_from("<II", HEAD, InterruptPage.gdt + selector + 8)
        assert reserved == 0
        base |= upper << 32
    return Segment(
        base=base,
        limit=low & 0xFFFF | high & 0xF0000,
        kind=high >> 8 & 0x1F,
        privilege=high >> 13 & 3,
        present=bool(high & 1 << 15),
        long=bool(high & 1 << 21),
        pages=bool(high & 1 << 23),
    )


def test_code_is_64_bit_and_data_flat() -> None:
    assert segment(Selector.CODE64) == Segment(0, 0, CODE, 0, present=True, long=True, pages=False)
    assert segment(Selector.DATA) == Segment(0, 0xFFFFF, DATA, 0, present=True, long=False, pages=True)


def test_the_null_descriptor_is_null() -> None:
    assert HEAD[InterruptPage.gdt : InterruptPage.gdt + 8] == bytes(8)


def test_one_descriptor_is_a_data_segment_that_is_not_there() -> None:
    absent = segment(Selector.NOT_PRESENT)
    assert (absent.kind & 0b11000, absent.present) == (0b10000, False)


def test_the_task_register_finds_the_tss_of_this_cpu() -> None:
    tss = segment(Selector.TSS, wide=True)
    assert tss == Segment(PAGE_VA + InterruptPage.tss, 103, TSS_AVAILABLE, 0, present=True, long=False, pages=False)


def test_lgdt_gets_the_gdt_of_this_cpu() -> None:
    limit, base = struct.unpack_from("<HQ", HEAD, InterruptPage.gdt_limit)
    assert base == PAGE_VA + InterruptPage.gdt
    assert limit + 1 == InterruptPage.gdt.SIZE
    assert max(Selector.TSS + 16, Selector.NOT_PRESENT + 8) <= limit + 1


def test_the_tss_has_three_interrupt_stacks_apart() -> None:
    """IST1 stands at 0x24, the I/O map base at 0x66."""
    tss = HEAD[InterruptPage.tss : InterruptPage.tss + 104]
    stacks = struct.unpack_from("<7Q", tss, 0x24)
    assert stacks[len(Ist) :] == (0,) * (7 - len(Ist))
    page = range(PAGE_VA + InterruptPage.stacks, PAGE_VA + InterruptPage.SIZE + 1)
    tops = [stacks[ist - 1] for ist in Ist]
    assert all(top in page and top - INTERRUPT_STACK_BYTES in page and top % 16 == 0 for top in tops)
    assert all(high - low >= INTERRUPT_STACK_BYTES for low, high in zip(sorted(tops), sorted(tops)[1:], strict=False))
    assert struct.unpack_from("<H", tss, 0x66) == (104,), "an I/O permission map within the limit"
    assert tss[4:0x24] == bytes(0x20), "ring 0 to 2 stacks"


@dataclass(frozen=True)
class Gate:
    target: int
    selector: int
    ist: int
    kind: int
    privilege: int
    present: bool


def gate(vector: int) -> Gate:
    low, selector, ist, access, middle, high, reserved = struct.unpack_from(
        "<HHBBHII", MEMORY, SYMBOLS["idt"] + 16 * vector
    )
    assert reserved == 0
    return Gate(high << 32 | middle << 16 | low, selector, ist, access & 0x1F, access >> 5 & 3, bool(access & 0x80))


OWN_STACK = {Vector.DOUBLE_FAULT: Ist.DOUBLE_FAULT, Vector.NMI: Ist.NMI, Vector.MACHINE_CHECK: Ist.MACHINE_CHECK}


def test_every_vector_has_a_present_interrupt_gate_to_its_stub() -> None:
    stubs = IMAGE_VA + SYMBOLS["interrupt_stubs"]
    assert {vector: gate(vector) for vector in range(256)} == {
        vector: Gate(
            target=stubs + vector * descriptors.STUB_BYTES,
            selector=Selector.CODE64,
            ist={int(key): ist for key, ist in OWN_STACK.items()}.get(vector, 0),
            kind=INTERRUPT_GATE,
            privilege=0,
            present=True,
        )
        for vector in range(256)
    }


def test_lidt_gets_the_whole_table() -> None:
    limit, base = struct.unpack_from("<HQ", MEMORY, SYMBOLS["idt_pointer"])
    assert (limit, base) == (256 * 16 - 1, SYMBOLS["idt"])
    assert (SYMBOLS["idt_pointer"] + 2, base) in image.kernel().linked.relocations, "base is not moved to IMAGE_VA"


def test_every_stub_pushes_its_vector_over_an_error_code_and_goes_on() -> None:
    assert {vector: pushed_and_next(vector) for vector in range(256)} == {
        vector: expected_of(vector) for vector in range(256)
    }


def test_the_vectors_with_a_handler_of_their_own() -> None:
    assert interrupts.HANDLERS == {REQUEST_VECTOR: "request", TIMER_VECTOR: "timer", SPURIOUS_VECTOR: "spurious"}


def expected_of(vector: int) -> tuple[list[int], int]:
    """What a stub has to push, and the handler's address."""
    if vector < EXCEPTION_VECTORS:
        return ([] if vector in VECTORS_WITH_ERROR_CODE else [0]) + [vector], SYMBOLS["fault_entry"]
    if vector in interrupts.HANDLERS:
        return [], SYMBOLS[interrupts.HANDLERS[vector]]
    return [vector], SYMBOLS["stray"]


def pushed_and_next(vector: int) -> tuple[list[int], int]:
    *pushes, jump = stub_steps(vector)
    assert {step.mnemonic for step in pushes} <= {"push"}
    assert len(jump.targets) == 1
    return [int(step.text.removeprefix("push "), 0) for step in pushes], jump.targets[0]


FLOW = ControlFlow(image.kernel().linked)


def stub_steps(vector: int) -> list[Step]:
    """The instructions of a stub, up to its jump, which lies within STUB_BYTES."""
    start = SYMBOLS["interrupt_stubs"] + vector * descriptors.STUB_BYTES
    steps = [FLOW.steps[start]]
    while steps[-1].mnemonic != "jmp":
        steps.append(FLOW.steps[steps[-1].vaddr + steps[-1].size])
    assert steps[-1].vaddr + steps[-1].size <= start + descriptors.STUB_BYTES
    return steps
