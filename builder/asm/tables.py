"""What the encoder cannot be trusted with: bytes for what it lacks, refusals for what it gets wrong, and its aliases.

keystone 0.9.2 reports an error for some instructions (they get bytes here) and encodes something else than was written
for others (they are refused here, with what to write instead, or get bytes too). Everything that the encoder emits is
decoded and compared on top of this, see `encoder`.

Ref: Intel SDM volume 2 and AMD APM volume 3, the opcode column of each instruction.
"""

from typing import Final

_CONDITIONS: Final = (
    ("o",), ("no",), ("b", "c", "nae"), ("ae", "nb", "nc"), ("e", "z"), ("ne", "nz"), ("be", "na"), ("a", "nbe"),
    ("s",), ("ns",), ("p", "pe"), ("np", "po"), ("l", "nge"), ("ge", "nl"), ("le", "ng"), ("g", "nle"),
)  # fmt: skip

# Condition suffix -> its number in the opcode.
CONDITION_CODES: Final = {name: code for code, names in enumerate(_CONDITIONS) for name in names}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LOCKABLE: Final = _words("""
    adc add and btc btr bts cmpxchg cmpxchg8b cmpxchg16b dec inc neg not or sbb sub xadd xchg xor
""")
_STRING_OPCODES: Final = {
    "movs": 0xA4, "cmps": 0xA6, "stos": 0xAA, "lods": 0xAC, "scas": 0xAE, "ins": 0x6C, "outs": 0x6E,
}  # fmt: skip
PREFIXES: Final = {"lock": 0xF0, "rep": 0xF3, "repe": 0xF3, "repz": 0xF3, "repne": 0xF2, "repnz": 0xF2}


def _string_instructions() -> dict[str, dict[int, bytes]]:
    """movsb ... outsd: the operand-size prefix depends on the mode, which keystone does not get right everywhere."""
    table: dict[str, dict[int, bytes]] = {}
    for name, opcode in _STRING_OPCODES.items():
        wide = bytes([opcode + 1])
        prefixed = b"\x66" + wide
        table[name + "b"] = dict.fromkeys((16, 32, 64), bytes([opcode]))
        table[name + "w"] = {16: wide, 32: prefixed, 64: prefixed}
        table[name + "d"] = {16: prefixed, 32: wide, 64: wide}
        if name not in ("ins", "outs"):
            table[name + "q"] = {64: b"\x48" + wide}
    return table


STRING_INSTRUCTIONS: Final = _string_instructions()


def _repeatable() -> dict[str, frozenset[str]]:
    compare = frozenset(name for name in STRING_INSTRUCTIONS if name.startswith(("cmps", "scas")))
    move = frozenset(STRING_INSTRUCTIONS) - compare
    return {"rep": move, **dict.fromkeys(("repe", "repz", "repne", "repnz"), compare)}


# Repeat prefix -> the instructions it means something for.
REPEATABLE: Final = _repeatable()


def _in_all_modes(**table: str) -> dict[str, dict[int, bytes]]:
    return {name: dict.fromkeys((16, 32, 64), bytes.fromhex(code)) for name, code in table.items()}


def _in_long_mode(**table: str) -> dict[str, dict[int, bytes]]:
    return {name: {64: bytes.fromhex(code)} for name, code in table.items()}


# Instruction without operands -> mode -> bytes.
BYTES: Final[dict[str, dict[int, bytes]]] = {
    **STRING_INSTRUCTIONS,
    **_in_all_modes(
        ret="c3", retf="cb", icebp="f1", int1="f1", endbr64="f30f1efa", endbr32="f30f1efb", wbnoinvd="f30f09",
        vmgexit="f30f01d9", serialize="0f01e8", invlpgb="0f01fe", tlbsync="0f01ff", rdpru="0f01fd", pconfig="0f01c5",
    ),
    **_in_long_mode(retfq="48cb", iretq="48cf", sysretq="480f07", pushfq="9c", popfq="9d", clui="f30f01ee"),
    "iretd": {16: b"\x66\xcf", 32: b"\xcf"},
    "iretw": {16: b"\xcf"},
    "pushfd": {16: b"\x66\x9c", 32: b"\x9c"},
    "popfd": {16: b"\x66\x9d", 32: b"\x9d"},
    "pushfw": {16: b"\x9c"},
    "popfw": {16: b"\x9d"},
}  # fmt: skip

# Bytes that capstone 5 does not decode, or shows under another name: the table is taken at its word.
UNCHECKED: Final = frozenset({"serialize", "invlpgb", "tlbsync", "rdpru", "vmgexit", "clui", "pconfig"})

_ANY: Final = (16, 32, 64)


def _ban(modes: tuple[int, ...], **reasons: str) -> dict[tuple[str, int], str]:
    reasons = {mnemonic: f"'{mnemonic}' is refused: {reason}" for mnemonic, reason in reasons.items()}
    return {(mnemonic, mode): reason for mnemonic, reason in reasons.items() for mode in modes}


_OF_VIA: Final = _words("montmul xcryptcbc xcryptcfb xcryptctr xcryptecb xcryptofb xsha1 xsha256 xstore")

# (mnemonic, mode) -> why it is refused and what to write instead.
BANNED: Final[dict[tuple[str, int], str]] = {
    **_ban((64,), iret="write iretq", pushf="write pushfq", popf="write popfq", sysret="write sysretq"),
    **_ban((64,), retf="it pops 32 bits each, write retfq"),
    **_ban((64,), sysexit="AMD processors do not have it in long mode"),
    **_ban((64,), iretd="write iretq", iretw="write iretq", pushfd="write pushfq", popfd="write popfq"),
    **_ban((32,), iret="write iretd", pushf="write pushfd", popf="write popfd"),
    **_ban((16,), iret="write iretw or iretd", pushf="write pushfw or pushfd", popf="write popfw or popfd"),
    **_ban(_ANY, finit="it is two instructions, write fninit", fsave="it is two instructions, write fnsave"),
    **_ban(_ANY, fstcw="it is two instructions, write fnstcw", fstsw="it is two instructions, write fnstsw"),
    **_ban(_ANY, fclex="it is two instructions, write fnclex", fstenv="it is two instructions, write fnstenv"),
    **_ban(_ANY, lret="write retf", lretq="write retfq", lretl="write retf", lretw="write retf"),
    **_ban(_ANY, enter="its operands cannot be checked, write push and mov"),
    **_ban(_ANY, movabs="write mov, the size of the number decides; the address of a label is lea reg, [rip + label]"),
    **_ban(_ANY, xlatb="write the table access with movzx", xlat="write the table access with movzx"),
    **_ban(_ANY, data16="the operands decide the size", data32="the operands decide the size"),
    **_ban(_ANY, addr16="the address decides the size", addr32="the address decides the size"),
    **_ban(_ANY, rex="the operands decide", rex64="the operands decide"),
    **_ban(_ANY, lds="write mov", les="write mov", lfs="write mov", lgs="write mov", lss="write mov"),
    **_ban(_ANY, salc="write sbb al, al", fsetpm="only the 80287 knows it", bound="write cmp and a jump"),
    **_ban(_ANY, pushal="write pushad", popal="write popad"),
    **_ban((32, 16), swapgs="it exists in 64-bit code only"),
    **_ban(_ANY, **dict.fromkeys(_OF_VIA, "only VIA processors have it")),
    **_ban((64, 32), lgdtd="write lgdt", lidtd="write lidt"),
}

# Source mnemonic -> what capstone calls it, where the two differ.
ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "sal": ("shl",),
    "mov": ("mov", "movabs"),
    "icebp": ("int1",),
    "pushad": ("pushal",),
    "popad": ("popal",),
    "fwait": ("wait",),
    "ljmp": ("jmp", "ljmp"),
    "lcall": ("call", "lcall"),
    "lgdtd": ("lgdt",),
    "lidtd": ("lidt",),
    "iretw": ("iret",),
    "pushfw": ("pushf",),
    "popfw": ("popf",),
    **{
        prefix + name: (prefix + names[0],) for prefix in ("set", "cmov") for names in _CONDITIONS for name in names[1:]
    },
}

# 16-bit GDTR and IDTR loads take 24 bits of base without the operand-size prefix; in 32-bit code the prefix does that.
DESCRIPTOR_TABLE: Final = frozenset({"lgdt", "lidt", "sgdt", "sidt", "lgdtd", "lidtd"})
FAR_THROUGH_MEMORY: Final = {"ljmp": 5, "lcall": 3}  # mnemonic -> the opcode extension in ModRM, after 0xff

# Memory operands whose size is no choice: a size keyword is not asked for.
FIXED_SIZE: Final = DESCRIPTOR_TABLE | _words("""
    lea invlpg fxsave fxrstor fxsave64 fxrstor64 xsave xrstor xsave64 xrstor64 xsavec xsavec64 xsaveopt
    xsaveopt64 xsaves xrstors xsaves64 xrstors64 ldmxcsr stmxcsr clflush clflushopt clwb prefetcht0 prefetcht1
    prefetcht2 prefetchnta prefetchw cmpxchg8b cmpxchg16b invpcid invept invvpid vmptrld vmptrst vmclear vmxon
    fldcw fnstcw fnstsw fldenv fnstenv frstor fnsave
""")
# A register operand does not fix the size of the memory operand beside it.
SIZE_NEEDED: Final = _words("""
    shl sal shr sar rol ror rcl rcr movzx movsx movsxd crc32 cvtsi2sd cvtsi2ss vcvtsi2sd vcvtsi2ss in out lar
    lsl pinsrw vcvtpd2dq vcvtpd2ps vcvttpd2dq
""")
SHIFTS: Final = _words("shl sal shr sar rol ror rcl rcr shld shrd")
BIT_TESTS: Final = _words("bt bts btr btc")
# In these, 0x66 is part of the opcode although no operand is 16 bits wide.
MANDATORY_66: Final = _words("clflushopt clwb invpcid invept invvpid vmclear adcx")
COMMUTATIVE: Final = frozenset({"xchg", "test"})
