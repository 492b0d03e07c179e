"""Numbers, names and operators in operands."""

from enum import IntEnum, IntFlag

import pytest

from tests.unit.asm.helpers import code_of, link_text, reason_of


class Cr0(IntFlag):
    PE = 1
    PG = 1 << 31


class Vector(IntEnum):
    PAGE_FAULT = 14


class Inner:
    field = 0x18


class Page:
    inner = Inner
    needs_attention = 8
    flag = True
    name = "page"


NAMES = {"Cr0": Cr0, "Vector": Vector, "Page": Page, "COUNT": 5, "ENABLED": True}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("10", 10),
        ("0x1F", 31),
        ("0b101", 5),
        ("'A'", 65),
        ("'#'", 35),
        ("','", 44),
        ("'\\n'", 10),
        ("2 + 3*4", 14),
        ("(2 + 3)*4", 20),
        ("-7 // 2", -4),
        ("1 << 4 | 1", 17),
        ("0xff & ~0xf", 0xF0),
        ("-(1 << 31)", -(1 << 31)),
        ("+5", 5),
        ("- -5", 5),
        ("256 >> 4", 16),
        ("COUNT*8", 40),
        ("Cr0.PG | Cr0.PE", 0x80000001),
        ("~(Cr0.PG | Cr0.PE)", 0x7FFFFFFE),
        ("Vector.PAGE_FAULT", 14),
        ("Page.inner.field + 1", 0x19),
        ("main - main + 3", 3),
    ],
)
def test_values(expression: str, value: int) -> None:
    linked = link_text(f".section .rodata\n.long {expression}", NAMES)
    assert linked.sections[".rodata"] == (value % (1 << 32)).to_bytes(4, "little")


def test_names_in_addresses() -> None:
    assert code_of("mov al, [rdi + Page.needs_attention]", names=NAMES) == "8a 47 08"
    assert code_of("mov al, [rdi + Page.needs_attention + rcx*8 + COUNT]", names=NAMES) == "8a 44 cf 0d"
    assert code_of("and eax, ~(Cr0.PG | Cr0.PE)", names=NAMES) == "25 fe ff ff 7f"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("017", "'017' is not a number: write decimal without leading zeros, 0x or 0b"),
        ("10h", "'10h' is not a number: write decimal without leading zeros, 0x or 0b"),
        ("1.5", "'1.5' is not a number: write decimal without leading zeros, 0x or 0b"),
        ("1e3", "'1e3' is not a number: write decimal without leading zeros, 0x or 0b"),
        ("1_000", "'1_000' is not a number: write decimal without leading zeros, 0x or 0b"),
        ("'ab'", "'ab' is not one ASCII character"),
        ("Page.nope", "unknown name 'Page.nope': type object 'Page' has no attribute 'nope'"),
        ("Nope.field", "unknown name 'Nope' in 'Nope.field'"),
        ("Page", "'Page' is not an integer but type"),
        ("Page.flag", "'Page.flag' is not an integer but bool"),
        ("Page.name", "'Page.name' is not an integer but str"),
        ("ENABLED", "'ENABLED' is not an integer but bool"),
        ("5 / 2", "cannot read '/ 2' in the expression '5 / 2'"),
        ("5 ^ 2", "cannot read '^ 2' in the expression '5 ^ 2'"),
        ("5 ** 2", "'5 ** 2' is not a well-formed expression"),
        ("$", "cannot read '$' in the expression '$'"),
        ("(5", "'(5' is not a well-formed expression"),
        ("5 5", "'5 5' is not a well-formed expression"),
        ("COUNT(5)", "only + - * // << >> & | ~ and parentheses are understood in expressions"),
        ("5 // 0", "division by zero in an expression"),
        ("1 << 65", "a shift by 65 is out of range 0 to 64"),
        ("1 << -1", "a shift by -1 is out of range 0 to 64"),
        ("~target", "'~' cannot be applied to a label"),
        ("target | 1", "'|' cannot be applied to a label"),
        ("target*target", "one side of '*' must be a constant"),
        ("target*2", "'target*2' is neither a label nor the difference of two labels"),
        ("target + first", "'target + first' is neither a label nor the difference of two labels"),
        ("-target", "'-target' is neither a label nor the difference of two labels"),
    ],
)
def test_refusals(expression: str, reason: str) -> None:
    text = f"mov edi, {expression}"
    assert reason_of(text, names=NAMES) == reason


def test_a_failing_attribute_names_itself() -> None:
    class Layout:
        def __getattr__(self, name: str) -> int:
            raise AttributeError(f"ControlPage has no field '{name}'")

    reason = reason_of("mov eax, [rdi + ControlPage.nope]", names={"ControlPage": Layout()})
    assert reason == "unknown name 'ControlPage.nope': ControlPage has no field 'nope'"
