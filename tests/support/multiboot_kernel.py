"""A Multiboot kernel of a few instructions, as an ELF file: sends its command line and its first module to the UART.

It ends with 0 in the debug-exit port, with 1 if it was not entered as the specification says.
"""

from __future__ import annotations

import struct

from sidecar.client.vmm.loaders.multiboot import BOOT_MAGIC, HEADER_MAGIC, MultibootInfo, MultibootModule
from tests.support.vmm_machine import assembled

BASE = 0x100000
NAMES = {"BOOT_MAGIC": BOOT_MAGIC, "MultibootInfo": MultibootInfo, "MultibootModule": MultibootModule}

CODE = """
    start:
            .code32
            mov     esp, 0x180000
            cmp     eax, BOOT_MAGIC
            jne     .bad
            mov     esi, dword ptr [ebx + MultibootInfo.cmdline]
    .line:  mov     al, byte ptr [esi]
            inc     esi
            test    al, al
            je      .module
            call    send
            jmp     .line
    .module:
            cmp     dword ptr [ebx + MultibootInfo.mods_count], 0
            je      .good
            mov     ebx, dword ptr [ebx + MultibootInfo.mods_addr]
            mov     esi, dword ptr [ebx + MultibootModule.mod_start]
    .byte:  cmp     esi, dword ptr [ebx + MultibootModule.mod_end]
            jae     .good
            mov     al, byte ptr [esi]
            inc     esi
            call    send
            jmp     .byte
    .good:  xor     eax, eax
            jmp     .end
    .bad:   mov     eax, 1
    .end:   mov     edx, 0xf4
            out     dx, al
            hlt
    send:   mov     edx, 0x3f8
            out     dx, al
            ret
"""


def kernel() -> bytes:
    """The ELF file: one segment for BASE, with the Multiboot header at its begin."""
    flags = 3
    header = struct.pack("<III4x", HEADER_MAGIC, flags, -(HEADER_MAGIC + flags) & 0xFFFFFFFF)
    body = header + assembled(CODE, BASE + len(header), NAMES)
    identity = b"\x7fELF" + bytes((1, 1, 1)).ljust(12, b"\0")
    head = struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, BASE + len(header), 0x34, 0, 0, 52, 32, 1, 0, 0, 0)
    table = struct.pack("<8I", 1, 0x100, BASE, BASE, len(body), len(body) + 0x1000, 7, 0x1000)
    return (identity + head + table).ljust(0x100, b"\0") + body
