"""Tiny guests for the tests of the machine itself: a few bytes of 32-bit code in an ELF file with a PVH note.

QEMU loads the code at ENTRY and jumps there in 32-bit protected mode without paging; only the first CPU runs it.

Ref: Xen "x86/HVM direct boot ABI" (PVH); ELF-64 Object File Format 1.5.
"""

import struct
from pathlib import Path

ENTRY = 0x10_0000
PROBE = 0x20_0000  # a page that the guests below read or write

# cli; hlt; jmp back to hlt
HALT = bytes.fromhex("fa f4 eb fd")
# mov al, 5; out 0xf4, al: isa-debug-exit with 5
EXIT_5 = bytes.fromhex("b0 05 e6 f4") + HALT
# lidt [PROBE], where the page is zero: no gate at all; ud2
TRIPLE_FAULT = bytes.fromhex("0f 01 1d 00 00 20 00 0f 0b")
# mov al, 'h'; mov dx, 0x3f8; out dx, al; mov al, 10; out dx, al
GREET = bytes.fromhex("b0 68 66 ba f8 03 ee b0 0a ee") + HALT
# wait: mov eax, [PROBE]; test eax, eax; jz wait; inc eax; mov [PROBE + 4], eax; halt
ANSWER = bytes.fromhex("a1 00 00 20 00 85 c0 74 f7 40 a3 04 00 20 00") + HALT

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III4sQ")
_PT_LOAD, _PT_NOTE, _PHYS32_ENTRY = 1, 4, 18
_CODE_OFFSET = 0x1000


def write_guest(path: Path, code: bytes) -> Path:
    """Writes an ELF file that runs `code`, and returns its path."""
    headers = _HEADER.size + 2 * _SEGMENT.size
    note = _NOTE.pack(4, 8, _PHYS32_ENTRY, b"Xen\0", ENTRY)
    parts = (
        _HEADER.pack(
            b"\x7fELF\x02\x01\x01", 2, 62, 1, ENTRY, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, 2, 0, 0, 0
        ),
        _SEGMENT.pack(_PT_LOAD, 5, _CODE_OFFSET, ENTRY, ENTRY, len(code), len(code), 0x1000),
        _SEGMENT.pack(_PT_NOTE, 4, headers, 0, 0, len(note), len(note), 4),
        note,
    )
    path.write_bytes(b"".join(parts).ljust(_CODE_OFFSET, b"\0") + code)
    return path
