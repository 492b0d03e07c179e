"""Spellings that keystone takes and gets wrong, or that mean two things: each is refused, and the reason says why."""

import pytest

from tests.unit.asm.helpers import reason_of


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("iret", "'iret' is refused: write iretq"),
        ("pushf", "'pushf' is refused: write pushfq"),
        ("popf", "'popf' is refused: write popfq"),
        ("sysret", "'sysret' is refused: write sysretq"),
        ("sysexit", "'sysexit' is refused: AMD processors do not have it in long mode"),
        ("retf", "'retf' is refused: it pops 32 bits each, write retfq"),
        ("lretq", "'lretq' is refused: write retfq"),
        ("finit", "'finit' is refused: it is two instructions, write fninit"),
        ("data16 -1", "'data16' is refused: the operands decide the size"),
        ("mov rax, [rcx + rsp*2]", "rsp cannot be an index"),
        ("mov rax, [rsp + rsp]", "rsp cannot be an index"),
        ("mov rax, [eip + 5]", "'eip' cannot stand in an expression"),
        ("mov rax, gs:[riz*1 + 0x10]", "'riz' cannot stand in an expression"),
        ("jmp rip", "rip can only stand in an address, as [rip + label]"),
        ("pop rip", "rip can only stand in an address, as [rip + label]"),
        ("mov rax, [rip + 4]", "an address relative to rip needs a label: [rip + label]"),
        ("mov rax, [rip + rcx + target]", "rip can only stand in 64-bit code, as [rip + label]"),
        ("mov rax, [rip + first - second]", "an address relative to rip takes one label, not a difference"),
        ("nop dword ptr [rax + rax]", "nop takes no operand: padding is made by .align"),
        ("ljmp 8:0x1000", "'ljmp selector:offset' does not exist in 64-bit code: write retfq"),
        ("ljmp qword ptr [rdi]", "a far pointer is fword ptr (32-bit offset) or dword ptr (16-bit offset)"),
        ("call 0x100001000", "a branch goes to a label, not to the number 0x100001000"),
        ("jmp 5", "a branch goes to a label, not to the number 5"),
        ("jne first - second", "a branch goes to a label, not to the difference of two"),
        ("jmp short target", "'short' is not written: branches choose their size, and a label alone is its address"),
        ("lea rax, offset target", None),
        ("int 3", "write int3, which is the instruction debuggers know"),
        ("lar eax, ax", "invalid operands"),
        ("lar rax, ecx", "write the 32-bit register, which clears the upper half as well"),
        ("str rax", "write the 32-bit register, which clears the upper half as well"),
        ("mov rax, ds", "write the 32-bit register, which clears the upper half as well"),
        ("mov cs, eax", "cs is loaded by a far jump or return, not by mov"),
        ("push ax", "'push' takes 64-bit operands in 64-bit code"),
        ("jmp eax", "'jmp' takes 64-bit operands in 64-bit code"),
        ("movsb byte ptr [rdi], byte ptr [rsi]", "movsb takes no operands: it works on rsi, rdi and rax by itself"),
        ("add dword ptr [rdi], dword ptr [rsi]", "only one operand can be in memory"),
        ("mov ah, r8b", "ah cannot stand beside an operand that needs a REX prefix"),
        ("mov ah, [r8]", "ah cannot stand beside an operand that needs a REX prefix"),
        ("movzx rax, ah", "ah cannot stand beside an operand that needs a REX prefix"),
        ("xchg rax, rax", "it would encode as 'nop' (48 90): write that if it is meant"),
        ("imul rax, 5", "it would encode as 'imul rax, rax, 5' (48 6b c0 05): write that if it is meant"),
        ("vcvtss2si ecx, dword ptr [rdi]", "it would need an EVEX prefix, which is AVX-512"),
        ("mov rax, es:[rdi]", "es: means nothing in 64-bit code, only fs: and gs: do"),
        ("lock mov [rdi], rax", "'lock' means nothing before 'mov'"),
        ("lock add rax, rcx", "'lock' needs a memory operand to change"),
        ("rep ret", "'rep' means nothing before 'ret'"),
        ("repne stosb", "'repne' means nothing before 'stosb'"),
        ("rep jmp target", "'rep' means nothing before 'jmp'"),
        ("mov rax, target", "'target' is no constant, and the address of a label is taken with lea reg, [rip + label]"),
        ("push target", "'target' is no constant, and the address of a label is taken with lea reg, [rip + label]"),
        ("mov rax, [rdi + target]", None),
        ("lea rax, [target]", None),
        ("mov al, first - second", "'first - second' is no constant, and a label does not fit in 8 bits"),
        ("movabs rax, target", None),
        ("enter 8, 0", None),
        ("mov rax, [ecx]", "an address in 64-bit code is made of 64-bit registers"),
        ("mov rax, [rdi*3]", "'rdi*3' is not a scale of 1, 2, 4 or 8"),
        ("mov rax, [rdi*2 + rsi*4]", "only one register of an address can be scaled"),
        ("mov rax, [rdi + rsi + rcx]", "an address has at most two registers"),
        ("mov rax, [rdi - rsi]", "a register can be added or scaled, not subtracted"),
        ("mov rax, [rdi + fs]", "'fs' cannot be part of an address"),
    ],
)
def test_64_bit_code(text: str, reason: str | None) -> None:
    found = reason_of(text)
    assert found == (reason or found)


@pytest.mark.parametrize(
    "text",
    [
        "mov [rdi], 5",
        "inc [rdi]",
        "shl [rdi], cl",
        "movzx eax, [rdi]",
        "jmp [rax]",
        "push [rdi]",
        "cvtsi2sd xmm0, [rdi]",
    ],
)
def test_a_memory_operand_without_size(text: str) -> None:
    assert reason_of(text) == "the size of the memory operand is open: write byte, word, dword or qword ptr"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mov eax, qword ptr [rdi]", "the memory operand has 8 bytes, the register 4"),
        ("lea rax, qword ptr [rdi]", "lea takes no size keyword"),
        ("mov rax, qword [rdi]", "'qword [rdi]' is not a memory operand: write 'qword ptr [...]'"),
        ("mov rax, quad ptr [rdi]", None),
        ("mov rax, xs:[rdi]", "'xs' is not a segment register"),
        ("mov rax, [rbx", "the brackets of '[rbx' do not make one memory operand"),
        ("mov rax, 8[rbx]", "the brackets of '8[rbx]' do not make one memory operand"),
        ("mov rax, rbx + 8", "'rbx + 8' adds to a register outside of brackets"),
        ("mov rax,", "an operand is missing"),
        ("mov , rax", "an operand is missing"),
        ("mov rax rbx", "'rax rbx' is not a well-formed expression"),
        ("mov rax, rbx, rcx", "invalid operands"),
        ("hlt 5", "invalid operands"),
        ("mvo eax, 1", "invalid mnemonic"),
        ("equ 5", "invalid mnemonic"),
        ("MOV eax, 1", "'MOV' is not a mnemonic"),
        ("(mov eax, 1", "'(mov' is not a mnemonic"),
        ("mov eax, 1; hlt", None),
        ("mov eax, 1 // hlt", None),
        ("lock", "'lock' has no instruction after it"),
    ],
)
def test_malformed_operands(text: str, reason: str | None) -> None:
    found = reason_of(text)
    assert found == (reason or found)


@pytest.mark.parametrize(
    "text",
    [
        "mov al, 256",
        "mov al, -129",
        "cmp al, 256",
        "mov ax, 0x12345",
        "mov eax, 0x100000000",
        "mov eax, -0x80000001",
        "mov rax, 0x10000000000000000",
        "mov qword ptr [rdi], 0x80000000",
        "push 0xffffffff",
        "and rax, 0xffffffff",
        "or rax, ~(1 << 31)",
        "ret 70000",
        "ret -1",
        "int 256",
        "in al, 256",
        "out 256, al",
        "shl eax, 32",
        "shr rax, 64",
        "bt eax, 32",
        "shufps xmm0, xmm1, 256",
        "mov rax, [rdi + 0x80000000]",
        "mov rax, [rdi - 0x80000001]",
        "mov rax, [0xfee00000]",
    ],
)
def test_a_number_without_room(text: str) -> None:
    assert "does not fit in" in reason_of(text)


@pytest.mark.parametrize(
    ("bits", "text", "reason"),
    [
        (32, "iret", "'iret' is refused: write iretd"),
        (32, "mov rax, 5", "rax does not exist in 32-bit code"),
        (32, "mov eax, r8d", "r8d does not exist in 32-bit code"),
        (32, "mov eax, [rdi]", "an address in 32-bit code is made of 32-bit registers"),
        (32, "mov eax, [bx]", "an address in 32-bit code is made of 32-bit registers"),
        (32, "mov eax, [rip + target]", "rip can only stand in 64-bit code, as [rip + label]"),
        (32, "retfq", "'retfq' does not exist in 32-bit code"),
        (32, "jrcxz target", "'jrcxz' does not exist in 32-bit code"),
        (32, "swapgs", "'swapgs' is refused: it exists in 64-bit code only"),
        (32, "mov eax, ds:[ebx]", "ds: is the segment of this address anyway"),
        (32, "mov eax, ss:[ebp + 4]", "ss: is the segment of this address anyway"),
        (32, "ljmp dword 8:target", "'dword' is written in 16-bit code only: the offset has 32 bits here anyway"),
        (32, "ljmp 0x10000:target", "the selector 0x10000 does not fit in 16 bits"),
        (32, "lgdtd [target]", "'lgdtd' is refused: write lgdt"),
        (16, "ljmp 8:0x12345678", "the offset 0x12345678 does not fit in 16 bits"),
        (16, "push 5", "it would encode with an operand-size prefix that it does not ask for (66 6a 05)"),
        (16, "ret 4", "it would encode with an operand-size prefix that it does not ask for (66 c2 04 00)"),
        (16, "jmp dword ptr [bx]", None),
        (16, "mov ax, [bx + cx]", "a 16-bit address is bx or bp, plus si or di"),
        (16, "mov ax, [bx*2]", "a 16-bit address is bx or bp, plus si or di"),
        (16, "mov al, [0x12345]", "the displacement 0x12345 does not fit in its field"),
    ],
)
def test_16_and_32_bit_code(bits: int, text: str, reason: str | None) -> None:
    found = reason_of(text, bits)
    assert found == (reason or found)
