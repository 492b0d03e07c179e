"""The trampoline's bytes: they fit below the page's data, run at any page, and read nothing but that page."""

import capstone
from capstone import x86

from sidecar.builder import image
from sidecar.builder.asm import assemble
from sidecar.kernel.trampoline import trampoline
from sidecar.layout import TrampolinePage
from tests.image.helpers import memory_of
from tests.support.control_flow import ControlFlow

SYMBOLS = image.kernel().linked.symbols
START, LONG_MODE, END = (SYMBOLS[name] for name in ("trampoline", "trampoline_long_mode", "trampoline_end"))
CODE = memory_of("kernel")[START:END]
FAR_JUMP = bytes.fromhex("66 ff 2e")
"""JMP m16:32 at a 16-bit displacement, under the operand-size prefix. Ref: SDM vol. 2A, JMP."""


def real_mode() -> list[capstone.CsInsn]:
    """The 16-bit part as capstone reads it, at the offsets it has in its page."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16)
    decoder.detail = True
    return list(decoder.disasm(CODE[: LONG_MODE - START], 0))


def test_the_code_ends_below_the_data_of_its_page() -> None:
    assert 0 < END - START <= TrampolinePage.gdt


def test_the_16_bit_part_is_code_without_gaps_that_ends_in_the_far_jump() -> None:
    steps = real_mode()
    assert sum(step.size for step in steps) == LONG_MODE - START
    branches = [step for step in steps if {x86.X86_GRP_JUMP, x86.X86_GRP_CALL} & set(step.groups)]
    assert [step.address for step in branches] == [steps[-1].address]
    assert bytes(branches[0].bytes[:3]) == FAR_JUMP


def test_memory_is_addressed_by_the_fields_of_the_page() -> None:
    """With DS at the page and no base register an operand is an offset in the page."""
    operands = [one for step in real_mode() for one in step.operands if one.type == x86.X86_OP_MEM]
    assert {(one.mem.base, one.mem.index, one.mem.segment) for one in operands} == {(0, 0, 0)}
    assert {one.mem.disp for one in operands} == {
        TrampolinePage.gdt_limit, TrampolinePage.transition_cr3, TrampolinePage.long_mode_offset,
    }  # fmt: skip


def test_ds_is_cs_before_anything_is_read() -> None:
    steps = [(step.mnemonic, step.op_str) for step in real_mode()]
    loads = [number for number, (_, operands) in enumerate(steps) if "[" in operands]
    assert ("mov", "ax, cs") in steps[: loads[0]]
    assert any(mnemonic == "mov" and operands.startswith("ds, ") for mnemonic, operands in steps[: loads[0]])


def test_no_step_writes_memory() -> None:
    """Any number of CPUs is in the page at once."""
    written = [step for step in real_mode() for one in step.operands if _is_stored(one)]
    assert [f"{step.mnemonic} {step.op_str}" for step in written] == []


def _is_stored(operand: x86.X86Op) -> bool:
    return operand.type == x86.X86_OP_MEM and bool(operand.access & capstone.CS_AC_WRITE)


def test_the_64_bit_part_reads_the_address_of_arrive_and_jumps() -> None:
    steps = ControlFlow(image.kernel().linked).steps
    load = steps[LONG_MODE]
    jump = steps[load.vaddr + load.size]
    assert load.refers_to == START + TrampolinePage.arrive_va
    assert (jump.mnemonic, jump.indirect) == ("jmp", True)
    assert jump.vaddr + jump.size == END


def test_the_bytes_are_the_same_wherever_it_is_linked() -> None:
    names = image.NAMES_FOR_TEXT
    first, second = (
        assemble([trampoline], names=names).link({".text": at}, allow_absolute=False) for at in (0, 0x7F000)
    )
    assert first.sections == second.sections
    assert first.sections[".text"][: END - START] == CODE
    assert first.relocations == ()
