"""Branches to labels, encoded here: keystone truncates distances and adds size prefixes in 16-bit code.

`jmp` and the conditional jumps take their short form where the label is near enough in the same section; `placement`
decides that. `call` has only the near form, `loop` and `jrcxz` only the short one. A far jump names its selector:

    ljmp 8:label            16-bit code: ea off16 sel     32-bit code: ea off32 sel
    ljmp dword 8:label      16-bit code: 66 ea off32 sel

Ref: Intel SDM volume 2, Jcc, JMP, CALL, LOOP/LOOPcc.
"""

import re
from typing import Final

from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.expressions import Linear, Scope, number_text, parse_constant, parse_expression
from sidecar.builder.asm.fields import make_target
from sidecar.builder.asm.fragments import Branch, Code, Field, FieldKind
from sidecar.builder.asm.tables import CONDITION_CODES

# Mnemonic -> (short opcode, near opcode), empty where the form does not exist.
_OPCODES: Final[dict[str, tuple[bytes, bytes]]] = {
    "jmp": (b"\xeb", b"\xe9"),
    "call": (b"", b"\xe8"),
    **{f"j{name}": (bytes([0x70 + code]), bytes([0x0F, 0x80 + code])) for name, code in CONDITION_CODES.items()},
    **dict.fromkeys(("loopne", "loopnz"), (b"\xe0", b"")),
    **dict.fromkeys(("loope", "loopz"), (b"\xe1", b"")),
    "loop": (b"\xe2", b""),
}
# Jump if the count register is zero -> mode -> opcode; 0x67 selects the register that is not the mode's own.
_COUNT_JUMPS: Final[dict[str, dict[int, bytes]]] = {
    "jcxz": {16: b"\xe3", 32: b"\x67\xe3"},
    "jecxz": {16: b"\x67\xe3", 32: b"\xe3", 64: b"\x67\xe3"},
    "jrcxz": {64: b"\xe3"},
}
FAR_BRANCHES: Final = {"ljmp": b"\xea", "lcall": b"\x9a"}
_FAR = re.compile(r"(?P<wide>dword\s+)?(?P<selector>[^:]+):(?P<offset>[^:]+)")


def is_branch(mnemonic: str) -> bool:
    """True for the branches that take a label."""
    return mnemonic in _OPCODES or mnemonic in _COUNT_JUMPS


def branch(mnemonic: str, value: Linear, bits: int) -> Branch:
    """A branch to a label, perhaps plus a constant."""
    if value.is_constant:
        raise RefusalError(f"a branch goes to a label, not to the number {number_text(value.constant)}")
    target = make_target(value)
    if target.minus:
        raise RefusalError("a branch goes to a label, not to the difference of two")
    if mnemonic in _COUNT_JUMPS:
        if bits not in _COUNT_JUMPS[mnemonic]:
            raise RefusalError(f"'{mnemonic}' does not exist in {bits}-bit code")
        return Branch(mnemonic, target, _COUNT_JUMPS[mnemonic][bits], b"", 0)
    short, near = _OPCODES[mnemonic]
    return Branch(mnemonic, target, short, near, 2 if bits == 16 else 4)


def far_branch(mnemonic: str, text: str, bits: int, scope: Scope) -> Code:
    """ljmp or lcall to a selector and an offset; 64-bit code has none."""
    match = _FAR.fullmatch(text)
    if match is None:
        raise RefusalError(f"'{text}' is not selector:offset")
    if bits == 64:
        raise RefusalError(f"'{mnemonic} selector:offset' does not exist in 64-bit code: write retfq")
    if match["wide"] and bits == 32:
        raise RefusalError("'dword' is written in 16-bit code only: the offset has 32 bits here anyway")
    selector = parse_constant(match["selector"].strip(), scope)
    if not 0 <= selector <= 0xFFFF:
        raise RefusalError(f"the selector {number_text(selector)} does not fit in 16 bits")
    width = 4 if match["wide"] or bits == 32 else 2
    opcode = (b"\x66" if match["wide"] else b"") + FAR_BRANCHES[mnemonic]
    offset = parse_expression(match["offset"].strip(), scope)
    if offset.registers:
        raise RefusalError("the offset of a far branch is a label or a number, not a register")
    tail = selector.to_bytes(2, "little")
    wide = "dword " if match["wide"] else ""
    if offset.is_constant:
        if not 0 <= offset.constant < 1 << 8 * width:
            raise RefusalError(f"the offset {number_text(offset.constant)} does not fit in {8 * width} bits")
        code = opcode + offset.constant.to_bytes(width, "little") + tail
        return Code(code, (), f"{mnemonic} {wide}{number_text(selector)}:{offset}")
    target = make_target(offset)
    kind = FieldKind.DIFFERENCE if target.minus else FieldKind.ABSOLUTE
    field = Field(len(opcode), width, kind, target, signed=False)
    return Code(opcode + bytes(width) + tail, (field,), f"{mnemonic} {wide}{number_text(selector)}:{{{target.text}}}")
