"""Data directives, sections and alignment."""

import capstone
import pytest

from sidecar.builder.asm import Routine, assemble
from tests.unit.asm.helpers import assemble_text, link_text


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (".byte 1, 0xff, -1, 'a'", "01 ff ff 61"),
        (".word 0x1234, -2", "34 12 fe ff"),
        (".long 0xdeadbeef", "ef be ad de"),
        (".quad -1, 1", "ff ff ff ff ff ff ff ff 01 00 00 00 00 00 00 00"),
        (".byte ~0", "ff"),
        ('.ascii "a,b", "#"', "61 2c 62 23"),
        ('.asciz "hi"', "68 69 00"),
        ('.asciz  "two  words"', "74 77 6f 20 20 77 6f 72 64 73 00"),
        (r'.ascii "\n\t\x80\\\"\0"', "0a 09 80 5c 22 00"),
        (".zero 3", "00 00 00"),
        (".byte 1\n.align 4\n.byte 2", "01 00 00 00 02"),
        (".byte\t1 # comment", "01"),
    ],
)
def test_data(text: str, data: str) -> None:
    assert assemble_text(f".section .rodata\n{text}").sections[".rodata"].data.hex(" ") == data


def test_sections_grow_across_routines_and_start_in_text() -> None:
    first = Routine("first", "first: hlt\n.section .data\n.byte 1\n.section .text\nnop\n.section .note.Xen\n.long 4")
    second = Routine("second", "second: ret\n.section .data\n.byte 2")
    sections = assemble([first, second], names={}).sections
    assert {name: section.data.hex() for name, section in sections.items()} == {
        ".text": "f490c3",
        ".data": "0102",
        ".note.Xen": "04000000",
    }


def test_bss_has_a_size_and_no_bytes() -> None:
    assembled = assemble_text("nop\n.section .bss\n.align 0x1000\nstack: .zero 0x4000\nstack_top:")
    section = assembled.sections[".bss"]
    assert (section.data, section.size, section.align) == (b"", 0x4000, 0x1000)
    assert assembled.symbols["stack_top"].offset == 0x4000
    assert assembled.symbols["stack"].size == 0x4000


def test_symbols_have_sizes() -> None:
    text = "nop\ninner: nop\nret\n.section .rodata\nx: .quad 1\ny: .byte 2"
    symbols = assemble_text(text).symbols
    found = {name: (symbol.section, symbol.offset, symbol.size, symbol.is_routine) for name, symbol in symbols.items()}
    assert found == {
        "main": (".text", 0, 3, True),
        "inner": (".text", 1, 2, False),
        "x": (".rodata", 0, 8, False),
        "y": (".rodata", 8, 1, False),
    }


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("filled", range(16))
def test_code_is_padded_with_instructions_that_do_nothing(bits: int, filled: int) -> None:
    linked = link_text(f".code{bits}\n" + "cli\n" * filled + ".align 16\nret")
    decoder = capstone.Cs(capstone.CS_ARCH_X86, getattr(capstone, f"CS_MODE_{bits}"))
    code = linked.sections[".text"]
    found = [(insn.address, insn.mnemonic) for insn in decoder.disasm(code, 0)]
    assert found[-1] == (len(code) - 1, "ret")
    assert (len(code) - 1) % 16 == 0
    assert {name for _, name in found[filled:-1]} <= {"nop"}
