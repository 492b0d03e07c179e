"""Every form in use against GNU as, and the bytes of those that the encoder alone gets wrong or does not know."""

import pytest

from tests.gnu_as import differences, judge
from tests.unit.asm.forms import FORMS
from tests.unit.asm.helpers import code_of, link_instructions


@pytest.mark.needs("as")
@pytest.mark.parametrize("bits", FORMS)
def test_gnu_as_gives_the_same_bytes(bits: int) -> None:
    judge(link_instructions(bits, FORMS[bits]))


@pytest.mark.needs("as")
def test_the_judge_sees_a_wrong_byte() -> None:
    linked = link_instructions(64, ["mov eax, ecx"])
    wrong = link_instructions(64, ["mov eax, edx"])
    object.__setattr__(linked.lines[1], "data", wrong.lines[1].data)
    assert differences(linked) == [
        "main, line 3: 'mov eax, ecx', as 'mov eax, ecx' in 64-bit code: 89 d0, GNU as 89 c8",
    ]


@pytest.mark.parametrize(
    ("bits", "text", "code"),
    [
        # What keystone has no spelling for.
        (64, "endbr64", "f3 0f 1e fa"),
        (64, "sysretq", "48 0f 07"),
        (64, "retfq", "48 cb"),
        (64, "rep movsd", "f3 a5"),
        (64, "wbnoinvd", "f3 0f 09"),
        (64, "vmgexit", "f3 0f 01 d9"),
        (64, "invlpgb", "0f 01 fe"),
        (64, "tlbsync", "0f 01 ff"),
        (64, "icebp", "f1"),
        (64, "iretq", "48 cf"),
        (64, "pushfq", "9c"),
        # A true absolute address, not one relative to rip.
        (64, "mov rcx, gs:[0x10]", "65 48 8b 0c 25 10 00 00 00"),
        (64, "mov rax, gs:[0x10]", "65 48 8b 04 25 10 00 00 00"),
        (64, "mov eax, [0x1000]", "8b 04 25 00 10 00 00"),
        (64, "jmp qword ptr [rax*8 + 0x100]", "ff 24 c5 00 01 00 00"),
        # rsp is never an index.
        (64, "mov rax, [rcx + rsp]", "48 8b 04 0c"),
        # Sums, differences and products of constants in an address.
        (64, "mov al, [rdi + 0x10 + 8]", "8a 47 18"),
        (64, "mov al, [rdi + 0x10 - 8]", "8a 47 08"),
        (64, "mov al, [rdi - 0x10]", "8a 47 f0"),
        (64, "mov al, [rdi + 0x10*8]", "8a 87 80 00 00 00"),
        (64, "mov rax, -0x10", "48 c7 c0 f0 ff ff ff"),
        (64, "and rax, ~0x10", "48 83 e0 ef"),
        (64, "mov eax, 16", "b8 10 00 00 00"),
        # The distance counts from the end of the instruction, behind the immediate.
        (64, "mov dword ptr [rip + outside], 1", "c7 05 f6 4f 00 00 01 00 00 00"),
        (64, "mov byte ptr [rip + outside], 1", "c6 05 f9 4f 00 00 01"),
        (64, "mov eax, [rip + outside + 8]", "8b 05 02 50 00 00"),
        # The operand size of 32-bit code.
        (32, "lgdt [target]", "0f 01 15 00 90 00 00"),
        (32, "ljmp 8:0x12345678", "ea 78 56 34 12 08 00"),
        (32, "iretd", "cf"),
        (32, "pushfd", "9c"),
        (32, "push cs", "0e"),
        (32, "pop es", "07"),
        # The operand size of 16-bit code.
        (16, "ret", "c3"),
        (16, "retf", "cb"),
        (16, "lgdt [target]", "0f 01 16 00 90"),
        (16, "lgdtd [target]", "66 0f 01 16 00 90"),
        (16, "ljmp 8:0x1234", "ea 34 12 08 00"),
        (16, "ljmp dword 8:0x12345678", "66 ea 78 56 34 12 08 00"),
        (16, "ljmp fword ptr [target]", "66 ff 2e 00 90"),
        (16, "ljmp dword ptr [target]", "ff 2e 00 90"),
        (16, "call target", "e8 fd 7f"),
    ],
)
def test_bytes(bits: int, text: str, code: str) -> None:
    assert code_of(text, bits) == code


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("mov [rip + outside + 8], eax", "mov dword ptr [rip + 0x5002], eax"),
        ("LABEL: lock inc qword ptr gs:[0x10]", "lock inc qword ptr gs:[0x10]"),
        ("mov ds, ax", "mov ds, eax"),
        ("mov rax, [rcx*1 + rsp - 8]", "mov rax, qword ptr [rsp + rcx - 8]"),
        ("mov rax, [rdi + first - second]", "mov rax, qword ptr [rdi - 5]"),
        ("call target", "call 0x9000"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    line = link_instructions(64, [text]).lines
    assert canonical in [found.canonical for found in line]
