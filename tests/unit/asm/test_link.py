"""Addresses: fixups, relocations, absolute symbols, and the errors of placement."""

import pytest

from sidecar.builder.asm import AssemblyError, Object, Routine, assemble
from tests.unit.asm.helpers import assemble_text


def link_error(assembled: Object, addresses: dict[str, int], *, allow_absolute: bool = True) -> str:
    with pytest.raises(AssemblyError) as caught:
        assembled.link(addresses, absolute={"page": 0x206000}, allow_absolute=allow_absolute)
    return str(caught.value)


def test_pointers_in_data_are_relocations() -> None:
    assembled = assemble_text("ret\n.section .rodata\n.quad main, page + 8, end - main, 5\nend:")
    linked = assembled.link({".text": 0x1000, ".rodata": 0x2000}, absolute={"page": 0x206000}, allow_absolute=False)
    assert linked.relocations == ((0x2000, 0x1000), (0x2008, 0x206008))
    assert linked.sections[".rodata"] == b"".join(
        value.to_bytes(8, "little") for value in (0x1000, 0x206008, 0x1020, 5)
    )


def test_differences_of_labels() -> None:
    text = "mov eax, end - start\nadd rax, [rdi + start - end]\nstart: ret\nend:\n.section .rodata\n.byte end - start"
    linked = assemble_text(text).link({".text": 0x1000, ".rodata": 0x2000}, allow_absolute=False)
    assert linked.sections[".text"].hex(" ") == "b8 01 00 00 00 48 03 87 ff ff ff ff c3"
    assert linked.sections[".rodata"] == b"\x01"
    assert linked.relocations == ()


def test_an_object_can_be_linked_twice() -> None:
    assembled = assemble_text("lea rax, [rip + there]\n.section .data\nthere: .quad there")
    first = assembled.link({".text": 0x1000, ".data": 0x2000}, allow_absolute=False)
    second = assembled.link({".text": 0x5000, ".data": 0x6000}, allow_absolute=False)
    assert first.sections[".text"] == second.sections[".text"]
    assert (first.relocations, second.relocations) == (((0x2000, 0x2000),), ((0x6000, 0x6000),))
    assert second.symbols == {"main": 0x5000, "there": 0x6000}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mov edi, main", "main, line 2: 'mov edi, main': the 4-byte address of 'main' cannot move with the image"),
        (".long main", "main, line 2: '.long main': the 4-byte address of 'main' cannot move with the image"),
        (".word main", "main, line 2: '.word main': the 2-byte address of 'main' cannot move with the image"),
    ],
)
def test_short_absolute_addresses_do_not_move(text: str, message: str) -> None:
    assert link_error(assemble_text(text), {".text": 0x1000}, allow_absolute=False) == message


@pytest.mark.parametrize(
    ("text", "address", "message"),
    [
        (".long main", 1 << 32, "main, line 2: '.long main': the value 0x100000000 of 'main' does not fit in 32 bits"),
        (".word main", 0x10000, "main, line 2: '.word main': the value 0x10000 of 'main' does not fit in 16 bits"),
        (
            "lea rax, [rip + page]",
            1 << 33,
            "main, line 2: 'lea rax, [rip + page]': the value -0x1ffdfa007 of 'page' does not fit in 32 bits",
        ),
        (
            "mov rax, [rdi + page - main]",
            0x90206000,
            "main, line 2: 'mov rax, [rdi + page - main]': "
            "the value -0x90000000 of 'page - main' does not fit in 32 bits",
        ),
        (
            "call nowhere",
            0,
            "main, line 2: 'call nowhere': 'nowhere' is neither a constant nor a label nor an absolute symbol",
        ),
    ],
)
def test_values_without_room(text: str, address: int, message: str) -> None:
    assert link_error(assemble_text(text), {".text": address}) == message


def test_a_section_without_address() -> None:
    assembled = assemble_text("ret\n.section .data\nvalue: .quad 1")
    message = link_error(assembled, {".text": 0})
    assert message == "main, line 4: 'value: .quad 1': the section .data has no address"


def test_overlapping_sections() -> None:
    assembled = assemble_text("ret\n.section .data\n.quad 1")
    message = link_error(assembled, {".text": 0x1004, ".data": 0x1000})
    assert message == "main, line 1: 'main:': the section .text at 0x1004 overlaps .data"


def test_a_misaligned_section() -> None:
    message = link_error(assemble_text(".align 16\nret"), {".text": 0x1008})
    assert message == "main, line 2: '.align 16': the section .text at 0x1008 is not aligned to 16"


def test_an_absolute_symbol_with_the_name_of_a_label() -> None:
    message = link_error(assemble([Routine("main", "main: ret\npage: ret")], names={}), {".text": 0})
    assert message == "main, line 2: 'page: ret': 'page' is a label and an absolute symbol"
