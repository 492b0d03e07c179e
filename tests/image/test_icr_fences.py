"""An x2APIC ICR write serialises nothing: wherever the images have one, the stores that it announces are fenced before.

Read from the bytes: capstone decodes them, and the last instruction that loads ECX says which MSR a WRMSR writes.
Ref: SDM vol. 3A, 11.12.3; docs/memory_order.md.
"""

import re
from pathlib import Path

import capstone
import pytest
from capstone import x86

from sidecar.layout.x86 import Msr
from tests.image.helpers import BOTH, built

DRIVER = Path(__file__).resolve().parents[2] / "driver"
DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
DECODER.detail = True

UNFENCED = {"kernel": {"send_startup", "raise_nmi"}, "shim": set[str]()}
"""ICR writes that announce no store: STARTUP after an INIT that was fenced, or again; an interrupt to the sender."""

Code = list[tuple[str, capstone.CsInsn]]


def code(name: str) -> Code:
    """(the nearest label before it, the instruction) in the order of addresses; 64-bit code."""
    linked = built(name).linked
    labels = {address: label for label, address in linked.symbols.items()}
    found, label = [], ""
    for line in sorted(linked.lines, key=lambda line: line.vaddr):
        label = labels.get(line.vaddr, label)
        if line.is_instruction and line.bits == 64:
            found += [(label, instruction) for instruction in DECODER.disasm(line.data, line.vaddr)]
    return found


def msr_of(code: Code, number: int) -> int | None:
    """Which MSR the WRMSR with this number writes: what ECX was loaded with last, in straight code."""
    for _, instruction in reversed(code[:number]):
        if x86.X86_REG_ECX in instruction.regs_access()[1] or x86.X86_REG_RCX in instruction.regs_access()[1]:
            operands = instruction.operands
            is_constant = instruction.mnemonic == "mov" and operands[1].type == x86.X86_OP_IMM
            return int(operands[1].imm) if is_constant else None
    return None


def writes_memory(instruction: capstone.CsInsn) -> bool:
    operands = instruction.operands
    stores = bool(operands) and operands[0].type == x86.X86_OP_MEM and bool(operands[0].access & capstone.CS_AC_WRITE)
    return stores or instruction.mnemonic in ("push", "call", "stosq", "stosb") or "rep" in instruction.mnemonic


def fenced(code: Code, number: int) -> bool:
    """Is `mfence; lfence` before, with no store after it, and no label at which others come in?"""
    for earlier in range(number - 1, 0, -1):
        label, instruction = code[earlier]
        if label != code[number][0]:
            return False
        if instruction.mnemonic == "lfence":
            return bool(code[earlier - 1][1].mnemonic == "mfence")
        if writes_memory(instruction):
            return False
    return False


def icr_writes(code: Code) -> list[int]:
    writes = [number for number, (_, instruction) in enumerate(code) if instruction.mnemonic == "wrmsr"]
    assert all(msr_of(code, number) is not None for number in writes)
    return [number for number in writes if msr_of(code, number) == Msr.X2APIC_ICR]


@BOTH
def test_every_icr_write_is_fenced(name: str) -> None:
    instructions = code(name)
    writes = icr_writes(instructions)
    assert writes
    bare = {instructions[number][0] for number in writes if not fenced(instructions, number)}
    assert bare == UNFENCED[name]


def test_who_must_be_fenced() -> None:
    """The walk sees the writes that matter; else the test above would say nothing."""
    kernel, shim = code("kernel"), code("shim")
    assert {kernel[n][0] for n in icr_writes(kernel) if fenced(kernel, n)} >= {
        "raise_attention", "fault_nested", "start_cpu", "wait_for_all",
    }
    assert {shim[n][0] for n in icr_writes(shim)} == {"relay_serve"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0faef0 0faee8 b930080000 0f30", True),  # mfence; lfence; mov ecx, 0x830; wrmsr
        ("0faef0 0faee8 c60001 b930080000 0f30", False),  # with a store after the fences
        ("0faee8 b930080000 0f30", False),  # lfence alone
        ("0faef0 b930080000 0f30", False),  # mfence alone
    ],
)
def test_the_walk_back(text: str, expected: bool) -> None:
    code: Code = [("", one) for one in DECODER.disasm(b"\x90" + bytes.fromhex(text), 0)]
    (number,) = icr_writes(code)
    assert fenced(code, number) is expected


def test_the_driver_has_one_place_that_writes_the_icr() -> None:
    """And the fences are in it, right before."""
    places = [
        (file.name, text) for file in sorted(DRIVER.glob("*.c"))
        if re.search(r"\b(wrmsr\w*|apic_icr_write|native_x2apic_icr_write)\(", text := file.read_text())
    ]
    assert [name for name, _ in places] == ["restart.c"]
    ((_, text),) = places
    assert len(re.findall(r"wrmsr\w*\(", text)) == 1
    assert re.search(r'asm volatile\("mfence; lfence" : : : "memory"\);\n\twrmsrl\(', text)
