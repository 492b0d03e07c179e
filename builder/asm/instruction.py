"""One instruction as the encoder takes it: prefix, mnemonic and operands, all names resolved."""

from dataclasses import dataclass

from sidecar.builder.asm.operands import Memory, Operand


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction whose text is canonical: the same instruction is always written the same way.

    >>> from sidecar.builder.asm.expressions import Linear
    >>> str(Instruction("lock", "inc", (Memory(4, "", "rdi", "", 1, Linear(8)),)))
    'lock inc dword ptr [rdi + 8]'
    """

    prefix: str
    mnemonic: str
    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        return self.text("")

    def text(self, no_base: str) -> str:
        """The canonical text; `no_base` is written in front of an address that has no register."""
        operands = (operand.text(no_base) if isinstance(operand, Memory) else str(operand) for operand in self.operands)
        return f"{self.prefix} {self.mnemonic} {', '.join(operands)}".strip()
