"""What the machine code of an image does, read from its bytes by capstone: who goes where, which registers change.

    flow = ControlFlow(image.kernel().linked)
    flow.reachable("entry")          every instruction that can run when `entry` is called
    flow.written("format_text")      the general registers that are different after a call of it
    flow.stack("log_line")           the most bytes of stack below its return address, callees included

64-bit code only. A register that a routine pushes and pops, or moves away and back, counts as kept. A jump or call
through a register or memory leads nowhere here; `indirect` tells where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import capstone
from capstone import x86

from sidecar.builder.asm import Linked

_LEGACY: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
GENERAL: Final = (*(f"r{name}" for name in _LEGACY), *(f"r{number}" for number in range(8, 16)))
WHOLE: Final = {
    **{f"{prefix}{name}": f"r{name}" for name in _LEGACY for prefix in ("r", "e", "")},
    **{f"{name[0]}{half}": f"r{name}" for name in _LEGACY[:4] for half in "lh"},
    **{f"{name}l": f"r{name}" for name in _LEGACY[4:]},
    **{f"r{number}{suffix}": f"r{number}" for number in range(8, 16) for suffix in ("", "d", "w", "b")},
}
"""The general register that a part of one belongs to."""

_RETURNS: Final = frozenset({"ret", "retf", "retfq", "iretq"})
_WORD: Final = 8  # of every push, pop and return address in 64-bit code
_MOST_STACK: Final = 1 << 16
_STACK: Final = "the stack"
_TO: Final = (_STACK, *GENERAL)


Values: TypeAlias = frozenset[int] | None
"""What a register may hold; None: anything."""


def _either(one: Values, other: Values) -> Values:
    return None if one is None or other is None else one | other


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction. `targets` are the addresses it can go on at, besides a call's routine, which is `callee`."""

    vaddr: int
    size: int
    routine: str
    text: str
    mnemonic: str
    move: tuple[str, str]  # from one whole register to another, or to or from the stack; or ("", "")
    writes: frozenset[str]  # general registers but rsp
    constant: int | None  # what MOV puts into the register that it writes
    refers_to: int | None  # the address of an operand [rip + ...]
    targets: tuple[int, ...]
    callee: int | None
    indirect: bool
    growth: int | None  # bytes by which it makes the stack larger; None: rsp gets a new value

    @property
    def returns(self) -> bool:
        return self.mnemonic in _RETURNS


class ControlFlow:
    """The steps of one image, by address."""

    def __init__(self, linked: Linked) -> None:
        self.symbols = linked.symbols
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        decoder.detail = True
        self.steps = {
            instruction.address: _step(instruction, line.routine)
            for line in linked.lines
            if line.section == ".text" and line.bits == 64 and line.size
            for instruction in decoder.disasm(line.data, line.vaddr)
        }

    def reachable(self, label: str) -> list[Step]:
        """Every step that can run after a jump to `label`, callees included, by address."""
        seen: set[int] = set()
        waiting = [self.symbols[label]]
        while waiting:
            vaddr = waiting.pop()
            step = self.steps.get(vaddr)
            if step is not None and vaddr not in seen:
                seen.add(vaddr)
                waiting += [*step.targets, *([] if step.callee is None else [step.callee])]
        return [self.steps[vaddr] for vaddr in sorted(seen)]

    def written(self, label: str, *, ends: Iterable[str] = ()) -> frozenset[str]:
        """General registers that a call of `label` changes; a jump to one of `ends` does not come back."""
        return self._written_from(self.symbols[label], frozenset(self.symbols[end] for end in ends))

    def _written_from(self, start: int, ends: frozenset[int]) -> frozenset[str]:
        body = list(self._body(start, ends))
        written = frozenset[str]().union(*(step.writes for step in body))
        for callee in {step.callee for step in body if step.callee is not None} - ends:
            written |= self._written_from(callee, ends)
        moves = {step.move for step in body}
        return frozenset(name for name in written if not any((name, to) in moves and (to, name) in moves for to in _TO))

    def values(self, label: str, registers: tuple[str, ...]) -> dict[int, tuple[Values, ...]]:
        """By address of a step after a jump to `label`: the constants that each register may hold before it."""
        states: dict[int, tuple[Values, ...]] = {}
        waiting: list[tuple[int, tuple[Values, ...]]] = [(self.symbols[label], (None,) * len(registers))]
        while waiting:
            vaddr, state = waiting.pop()
            step = self.steps.get(vaddr)
            before = states.get(vaddr)
            merged = state if before is None else tuple(map(_either, before, state))
            if step is None or merged == before:
                continue
            states[vaddr] = merged
            changed = step.writes | (self._written_from(step.callee, frozenset()) if step.callee is not None else set())
            known = None if step.constant is None else frozenset({step.constant})
            after = tuple(known if name in changed else old for name, old in zip(registers, merged, strict=True))
            waiting += [(target, after) for target in step.targets]
        return states

    def _body(self, start: int, ends: frozenset[int]) -> Iterator[Step]:
        """The steps of a routine without its callees'."""
        seen: set[int] = set(ends) - {start}
        waiting = [start]
        while waiting:
            vaddr = waiting.pop()
            if vaddr not in seen and vaddr in self.steps:
                seen.add(vaddr)
                yield self.steps[vaddr]
                waiting += self.steps[vaddr].targets

    def stack(self, label: str, *, ends: Iterable[str] = (), callees: bool = True) -> int:
        """The most bytes of stack that are in use after a jump to `label`, counted from rsp there.

        `ends` are labels whose code uses a stack of its own, or is counted by itself. Without `callees` only their
        return address counts.
        """
        return self._depth(self.symbols[label], frozenset(self.symbols[end] for end in ends), callees=callees)

    def _depth(self, start: int, ends: frozenset[int], *, callees: bool) -> int:
        deepest: dict[int, int] = {}
        waiting = [(start, 0)]
        most = 0
        while waiting:
            vaddr, depth = waiting.pop()
            step = self.steps.get(vaddr)
            if step is None or (vaddr in ends and vaddr != start) or deepest.get(vaddr, -_MOST_STACK) >= depth:
                continue
            if depth > _MOST_STACK:
                raise RecursionError(f"{step.routine}: the stack grows in a loop at '{step.text}'")
            deepest[vaddr] = depth
            if step.callee is not None and step.callee not in ends:
                below = self._depth(step.callee, ends, callees=True) if callees else 0
                most = max(most, depth + _WORD + below)
            depth = depth + step.growth if step.growth is not None else 0
            most = max(most, depth)
            waiting += [(target, depth) for target in step.targets]
        return most


def _step(instruction: capstone.CsInsn, routine: str) -> Step:
    operands = instruction.operands
    end = instruction.address + instruction.size
    jumps, calls = instruction.group(x86.X86_GRP_JUMP), instruction.group(x86.X86_GRP_CALL)
    direct = bool(operands) and operands[0].type == x86.X86_OP_IMM
    targets = [operands[0].imm] if jumps and direct else []
    if instruction.mnemonic not in _RETURNS | {"jmp", "ljmp", "ud2"}:
        targets.append(end)
    written = (_whole(instruction, number) for number in instruction.regs_access()[1])
    return Step(
        vaddr=instruction.address,
        size=instruction.size,
        routine=routine,
        text=f"{instruction.mnemonic} {instruction.op_str}".strip(),
        mnemonic=instruction.mnemonic,
        move=_move(instruction),
        writes=frozenset(name for name in written if name and name != "rsp"),
        constant=operands[1].imm if instruction.mnemonic == "mov" and operands[1].type == x86.X86_OP_IMM else None,
        refers_to=next(
            (end + one.mem.disp for one in operands if one.type == x86.X86_OP_MEM and one.mem.base == x86.X86_REG_RIP),
            None,
        ),
        targets=tuple(targets),
        callee=operands[0].imm if calls and direct else None,
        indirect=bool((jumps or calls) and not direct),
        growth=_growth(instruction),
    )


def _whole(instruction: capstone.CsInsn, number: int) -> str:
    """The general register that capstone's register `number` is a part of; "" if it is none."""
    return WHOLE.get(instruction.reg_name(number) or "", "")


def _move(instruction: capstone.CsInsn) -> tuple[str, str]:
    names = [
        _whole(instruction, one.reg) if one.type == x86.X86_OP_REG and one.size == _WORD else ""
        for one in instruction.operands
    ]
    if instruction.mnemonic == "push":
        return names[0], _STACK
    if instruction.mnemonic == "pop":
        return _STACK, names[0]
    if instruction.mnemonic == "mov" and all(names):
        return names[1], names[0]
    return "", ""


def _growth(instruction: capstone.CsInsn) -> int | None:
    name, operands = instruction.mnemonic, instruction.operands
    if name in ("push", "pushfq"):
        return _WORD
    if name in ("pop", "popfq"):
        return -_WORD
    if not operands or operands[0].type != x86.X86_OP_REG or operands[0].reg != x86.X86_REG_RSP:
        return 0
    if name in ("add", "sub") and operands[1].type == x86.X86_OP_IMM:
        return int(operands[1].imm) * (1 if name == "sub" else -1)
    return None if x86.X86_REG_RSP in instruction.regs_access()[1] else 0
