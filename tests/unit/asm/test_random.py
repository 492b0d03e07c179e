"""Random operands and expressions: what the assembler accepts has the bytes GNU as gives.

One example is a whole routine, so that a run of GNU as judges many instructions at once.
"""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.builder.asm import AssemblyError
from tests.gnu_as import assemble_with_gnu, judge
from tests.unit.asm.helpers import link_instructions, link_text

pytestmark = pytest.mark.needs("as")
BATCH = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

WORDS = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"]
NEW = [f"r{number}" for number in range(8, 16)]
REGISTERS = {
    8: ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", *(f"{name}b" for name in NEW)],
    16: [*WORDS, *(f"{name}w" for name in NEW)],
    32: [f"e{name}" for name in WORDS] + [f"{name}d" for name in NEW],
    64: [f"r{name}" for name in WORDS] + NEW,
}
OLD = {8: ["al", "cl", "ah", "bh"], 16: WORDS, 32: [f"e{name}" for name in WORDS]}
KEYWORDS = {8: "byte", 16: "word", 32: "dword", 64: "qword"}
ARITHMETIC = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp", "mov", "test"]
EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF]

displacements = st.sampled_from([*EDGES, *(-edge - 1 for edge in EDGES)]) | st.integers(-(1 << 31), (1 << 31) - 1)


@st.composite
def addresses(draw: st.DrawFn) -> str:
    """An address of 64-bit code, in an arbitrary order of its parts."""
    if draw(st.integers(0, 9)) == 0:
        return f"[rip + target + {draw(st.integers(0, 64))}]"
    parts = draw(st.lists(st.sampled_from(REGISTERS[64]), max_size=1))
    if draw(st.booleans()):
        index = draw(st.sampled_from([name for name in REGISTERS[64] if name != "rsp"]))
        parts.append(f"{index}*{draw(st.sampled_from([1, 2, 4, 8]))}")
    displacement = draw(displacements)
    if displacement or not parts:
        parts.append(f"{displacement}" if displacement >= 0 else f"({displacement})")
    segment = draw(st.sampled_from(["", "", "fs:", "gs:"]))
    return f"{segment}[{' + '.join(draw(st.permutations(parts)))}]"


@st.composite
def immediates(draw: st.DrawFn, width: int) -> int:
    limit = min(width, 32)
    low, high = -(1 << limit - 1), (1 << (31 if width == 64 else limit)) - 1
    return draw(st.sampled_from([edge for edge in EDGES if edge <= high]) | st.integers(low, high))


@st.composite
def long_instructions(draw: st.DrawFn) -> str:
    """A two-operand instruction of 64-bit code."""
    width = draw(st.sampled_from([8, 16, 32, 64]))
    name = draw(st.sampled_from(ARITHMETIC))
    register, other = draw(st.sampled_from(REGISTERS[width])), draw(st.sampled_from(REGISTERS[width]))
    match draw(st.integers(0, 5)):
        case 0:
            return f"{name} {register}, {other}"
        case 1:
            return f"{name} {register}, {draw(addresses())}"
        case 2:
            return f"{name} {draw(addresses())}, {register}"
        case 3:
            return f"{name} {register}, {draw(immediates(width))}"
        case 4:
            return f"{name} {KEYWORDS[width]} ptr {draw(addresses())}, {draw(immediates(width))}"
    locked = draw(st.sampled_from(["xadd", "cmpxchg", "add", "or", "and", "xchg"]))
    return f"lock {locked} {draw(addresses())}, {register}"


@st.composite
def old_instructions(draw: st.DrawFn, bits: int) -> str:
    """A two-operand instruction of 16 or 32-bit code."""
    width = draw(st.sampled_from([8, 16, 32]))
    name = draw(st.sampled_from(ARITHMETIC))
    register = draw(st.sampled_from(OLD[width]))
    bases = ["bx", "bp + di", "si", "bx + si", "eax", "ebx + ecx*4", "ebp"] if bits == 16 else OLD[32]
    address = f"[{draw(st.sampled_from(bases))} + ({draw(st.integers(-0x8000, 0x7FFF))})]"
    match draw(st.integers(0, 3)):
        case 0:
            return f"{name} {register}, {draw(st.sampled_from(OLD[width]))}"
        case 1:
            return f"{name} {register}, {address}"
        case 2:
            return f"{name} {KEYWORDS[width]} ptr {address}, {draw(immediates(width))}"
    return f"{name} {register}, {draw(immediates(width))}"


@BATCH
@given(st.lists(long_instructions(), min_size=50, max_size=100))
def test_64_bit_operands(instructions: list[str]) -> None:
    judge(link_instructions(64, instructions))


@BATCH
@given(st.data(), st.sampled_from([16, 32]))
def test_16_and_32_bit_operands(data: st.DataObject, bits: int) -> None:
    judge(link_instructions(bits, data.draw(st.lists(old_instructions(bits), min_size=30, max_size=60))))


expressions = st.recursive(
    st.integers(0, 0xFF).map(lambda number: str(number) if number % 2 else hex(number)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "&", "|"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "<<"]), st.sampled_from(["2", "0x3"])).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        inner.map(lambda text: f"(~{text})"),
        inner.map(lambda text: f"(-{text})"),
    ),
    max_leaves=6,
)


@BATCH
@given(st.lists(expressions, min_size=20, max_size=60))
def test_expressions(texts: list[str]) -> None:
    ours = link_text("\n".join([".section .rodata", *(f".quad {text}" for text in texts)])).sections[".rodata"]
    source = [".section .judged0", "start:", *(f".quad {text}" for text in texts), "end:"]
    theirs = assemble_with_gnu("\n".join([*source, ".section .boundaries", ".long 0, 0, end - start", ""]))
    assert ours.hex(" ", 8) == theirs[0].hex(" ", 8)


@settings(max_examples=300)
@given(st.text(st.sampled_from("abcdefr xs0189[]()+-*~|&<>.,:#'\"\\{}%$"), max_size=30))
def test_any_text_is_assembled_or_refused(text: str) -> None:
    """Nothing but AssemblyError comes out, whatever goes in."""
    for mnemonic in ("mov", "jmp", "lock add", "ljmp", ".quad", ".asciz", ".align", ""):
        with suppress(AssemblyError):
            link_text(f"{mnemonic} {text}")
