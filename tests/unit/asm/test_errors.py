"""Each kind of error that concerns lines, labels and sections: one bad input, and the message in full."""

import pytest

from sidecar.builder.asm import AssemblyError, Routine, assemble
from tests.unit.asm.helpers import assemble_text


def message_of(*routines: Routine, names: dict[str, object] | None = None) -> str:
    with pytest.raises(AssemblyError) as caught:
        assemble(routines, names=names or {})
    return str(caught.value)


def test_the_message_names_routine_line_and_text() -> None:
    text = """

        raise_attention:
                mfence          # so that the store is seen

                mvo     eax, 1  # a slip
    """
    message = message_of(Routine("raise_attention", text))
    assert message == "raise_attention, line 4: 'mvo     eax, 1': invalid mnemonic"


def test_the_parts_of_the_message_are_attributes() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text("mvo eax, 1")
    error = caught.value
    assert (error.routine, error.number, error.source, error.reason) == ("main", 2, "mvo eax, 1", "invalid mnemonic")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nop", "main, line 1: 'nop': the routine does not define its own label 'main:'"),
        ("", "main, line 1: '': the routine does not define its own label 'main:'"),
        ("main:\nmain:", "main, line 2: 'main:': the label 'main' is already defined in main, line 1"),
        ("main:\n.a:\n.a: nop", "main, line 3: '.a: nop': the label '.a' is already defined in main, line 2"),
        ("main:\nrax: nop", "main, line 2: 'rax: nop': 'rax' is a register, not a label"),
        ("main:\nbyte: nop", "main, line 2: 'byte: nop': 'byte' is a word of the syntax, not a label"),
        ("main:\nCOUNT: nop", "main, line 2: 'COUNT: nop': 'COUNT' is a label and a constant"),
        ("main:\njmp .again", "main, line 2: 'jmp .again': '.again' is neither a constant nor a label"),
        ('main:\n.asciz "text', "main, line 2: '.asciz \"text': a quote is opened and not closed"),
        ("main:\n.section text", "main, line 2: '.section text': 'text' is not a section name like .rodata"),
        ("main:\n.section .bss\nnop", "main, line 3: 'nop': .bss holds no instructions: only labels, .zero and .align"),
        ("main:\n.section .bss\n.byte 1", "main, line 3: '.byte 1': .bss holds no data: only labels, .zero and .align"),
        ("main:\n.code32 x", "main, line 2: '.code32 x': .code32 takes no operand"),
        ("main:\n.text", "main, line 2: '.text': unknown directive '.text'"),
        ("main:\n.globl main", "main, line 2: '.globl main': unknown directive '.globl'"),
        ("main:\n.align 3", "main, line 2: '.align 3': .align 3: an alignment is a power of two"),
        ("main:\n.align", "main, line 2: '.align': .align needs a number"),
        ("main:\n.align 0", "main, line 2: '.align 0': .align 0: the number is not between 1 and 0x200000"),
        ("main:\n.align main", "main, line 2: '.align main': 'main' must be a constant"),
        ("main:\n.zero -1", "main, line 2: '.zero -1': .zero -1: the number is not between 0 and 0x40000000"),
        ("main:\n.byte 256", "main, line 2: '.byte 256': 0x100 does not fit in .byte"),
        ("main:\n.word -0x8001", "main, line 2: '.word -0x8001': -0x8001 does not fit in .word"),
        ("main:\n.long 1 << 32", "main, line 2: '.long 1 << 32': 0x100000000 does not fit in .long"),
        ("main:\n.quad rax", "main, line 2: '.quad rax': 'rax' names a register, data cannot"),
        ("main:\n.quad 1,", "main, line 2: '.quad 1,': .quad needs values, with one comma between two"),
        ("main:\n.quad", "main, line 2: '.quad': .quad needs values, with one comma between two"),
        (
            "main:\n.byte main",
            "main, line 2: '.byte main': 'main' is no constant, and the address of a label does not fit in .byte",
        ),
        ("main:\n.ascii text", "main, line 2: '.ascii text': text is not an ASCII string in double quotes"),
        ('main:\n.ascii "\\q"', "main, line 2: '.ascii \"\\q\"': unknown escape '\\q' in a string"),
    ],
)
def test_messages(text: str, message: str) -> None:
    assert message_of(Routine("main", text), names={"COUNT": 5}) == message


def test_a_label_of_another_routine() -> None:
    first, second = Routine("first", "first: nop"), Routine("second", "second: nop\nfirst: nop")
    assert message_of(first, second) == (
        "second, line 2: 'first: nop': the label 'first' is already defined in first, line 1"
    )


def test_a_local_label_of_another_routine_is_not_seen() -> None:
    first, second = Routine("first", "first:\n.here: nop"), Routine("second", "second: jmp .here")
    assert message_of(first, second) == "second, line 1: 'second: jmp .here': '.here' is neither a constant nor a label"


def test_a_label_out_of_reach() -> None:
    message = message_of(Routine("main", "main: loop .far\n.zero 200\n.far: ret"))
    assert message == (
        "main, line 1: 'main: loop .far': 'main.far' is out of reach: "
        "loop goes at most 128 bytes far, within its section"
    )


def test_a_constant_with_the_name_of_a_register() -> None:
    with pytest.raises(ValueError, match="the constant 'rax' has the name of a register"):
        assemble([], names={"rax": 5})


def test_undefined_names_are_found_early_if_the_absolute_ones_are_known() -> None:
    routine = Routine("main", "main: call elsewhere\ncall nowhere")
    assemble([routine], names={})
    with pytest.raises(AssemblyError) as caught:
        assemble([routine], names={}, absolute_names=["elsewhere"])
    assert str(caught.value) == "main, line 2: 'call nowhere': 'nowhere' is neither a constant nor a label"
