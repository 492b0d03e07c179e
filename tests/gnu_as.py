"""The judge of the assembler: GNU as assembles the same instructions, and every byte is compared.

Each instruction of a linked image is written once more in canonical form, with numbers for all operands, between two
labels. Instructions whose bytes do not depend on their address stand one after another. Branches need their place: each
section that has any is written out with everything else as plain bytes, and the targets at their distance from its
start, so that GNU as chooses between short and near by itself.

    .code64
    a0: mov rax, qword ptr [rip + 0x1234]
    b0:
    a7: jne start1 + 0x15
    b7:
"""

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from sidecar.builder.asm import Linked, LinkedLine
from tests.equivalent_encodings import is_equivalent

_BRANCH = re.compile(r"(j[a-z]+|call|loop[a-z]*) (0x[0-9a-f]+|\d)")
_FAR = re.compile(r"(ljmp|lcall) (dword )?(\w+):(\w+)")
_FAR_THROUGH_MEMORY = re.compile(r"l(jmp|call) (fword|dword) ptr (.*)")


@dataclass(frozen=True, slots=True)
class _Item:
    """A line as GNU as is asked for it."""

    line: LinkedLine
    text: str


def judge(linked: Linked) -> None:
    """Raise AssertionError that lists every instruction for which GNU as gives other bytes."""
    found = differences(linked)
    assert not found, "GNU as disagrees:\n" + "\n".join(found)


def differences(linked: Linked) -> list[str]:
    """One sentence for each instruction for which GNU as gives other bytes, except the equivalent encodings."""
    instructions = [line for line in linked.lines if line.is_instruction]
    groups = [[_Item(line, _spelling(line)) for line in instructions if not _BRANCH.fullmatch(line.canonical)]]
    sections = {line.section for line in instructions if _BRANCH.fullmatch(line.canonical)}
    for section in sorted(sections):
        lines = [line for line in linked.lines if line.section == section and line.size]
        groups.append([_in_place(line, lines, len(groups)) for line in lines])
    items = [item for group in groups for item in group]
    return list(_compare(items, assemble_with_gnu(_source(groups))))


def _spelling(line: LinkedLine) -> str:
    """The canonical text as GNU as wants it."""
    if line.canonical == "icebp":
        return "int1"
    if match := _FAR.fullmatch(line.canonical):  # only the AT&T spelling says how wide the offset is
        suffix = "l" if match[2] or line.bits == 32 else "w"
        return f".att_syntax prefix\n{match[1]}{suffix} ${match[3]}, ${match[4]}\n.intel_syntax noprefix"
    if match := _FAR_THROUGH_MEMORY.fullmatch(line.canonical):
        mnemonic, size, address = match.groups()
        if size == "fword":
            return f"{mnemonic} fword ptr {address}"
        # m16:16 has no Intel spelling outside of 16-bit code: it is m16:32 with the operand-size prefix.
        return f"l{mnemonic} {address}" if line.bits == 16 else f".byte 0x66\n{mnemonic} fword ptr {address}"
    return _with_symbols(line)


def _with_symbols(line: LinkedLine) -> str:
    """The canonical text with a symbol for each open value, defined behind it, so that GNU as leaves the same room."""
    head, *tails = re.split(r"\{[^}]*\}", line.template)
    definitions: list[str] = []
    for value, tail in zip(line.values, tails, strict=True):
        name = f"value_{line.vaddr:x}_{len(definitions)}"
        definitions.append(f"\n.set {name}, {value}")
        if head.endswith("[rip + "):
            name = str(value)
        elif not head.endswith(("[", "+ ")):
            name = f"offset {name}"
        head += name + tail
    return head + "".join(definitions)


def _in_place(line: LinkedLine, lines: Sequence[LinkedLine], group: int) -> _Item:
    """A branch with its target as distance from the section's start; anything else as its bytes."""
    match = _BRANCH.fullmatch(line.canonical)
    if not match or not line.is_instruction:
        return _Item(line, f".byte {', '.join(str(byte) for byte in line.data)}")
    start, end, target = lines[0].vaddr, lines[-1].vaddr + lines[-1].size, int(match[2], 0)
    # Another section may move, so a branch into it is near.
    outside = "" if start <= target <= end else f"{{disp{min(line.bits, 32)}}} "
    return _Item(line, f"{outside}{match[1]} start{group} + {target - start}")


def _source(groups: Sequence[Sequence[_Item]]) -> str:
    text = [".intel_syntax noprefix"]
    table = [".section .boundaries"]
    number = 0
    for group, items in enumerate(groups):
        text += [f'.section .judged{group}, "ax"', f"start{group}:"]
        for item in items:
            text += [f".code{item.line.bits}", f"a{number}:", item.text, f"b{number}:"]
            table.append(f".long {group}, a{number} - start{group}, b{number} - start{group}")
            number += 1
    return "\n".join([*text, *table, ""])


def assemble_with_gnu(source: str) -> list[bytes]:
    """The bytes of each entry of the source's .boundaries: group, start and end in the section .judged<group>."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "judged.o")
        result = subprocess.run(
            ["as", "--64", "-o", str(path)], input=source, text=True, capture_output=True, check=False
        )
        if result.returncode:
            lines = source.splitlines()
            shown = re.sub(r"\{standard input\}:(\d+)", lambda match: f"'{lines[int(match[1]) - 1]}'", result.stderr)
            raise AssertionError(f"GNU as refuses: {shown}")
        with path.open("rb") as file:
            sections = {section.name: section.data() for section in ELFFile(file).iter_sections()}
    entries = struct.iter_unpack("<III", sections[".boundaries"])
    return [sections[f".judged{group}"][start:end] for group, start, end in entries]


def _compare(items: Sequence[_Item], codes: Sequence[bytes]) -> Iterator[str]:
    for item, code in zip(items, codes, strict=True):
        line = item.line
        if line.data != code and not is_equivalent(line.canonical, line.data, code):
            where = (
                f"{line.routine}, line {line.number}: '{line.source}', as '{line.canonical}' in {line.bits}-bit code"
            )
            yield f"{where}: {line.data.hex(' ')}, GNU as {code.hex(' ')}"
