"""The shim's voice: lines on the first serial port, each beginning with `shim: `, and the end of the machine.

`shim: note: ` begins what a user should know though the boot goes on, `shim: fatal: ` what ends it.
"""

from enum import IntEnum


class Port(IntEnum):
    """I/O ports. Ref: QEMU `hw/misc/debugexit.c` for DEBUG_EXIT; Intel ICH9 data sheet, 13.7.5 for RESET_CONTROL."""

    COM1 = 0x3F8
    COM2 = 0x2F8
    COM3 = 0x3E8
    PIC_MASTER_MASK = 0x21
    PIC_SLAVE_MASK = 0xA1
    DEBUG_EXIT = 0xF4
    RESET_CONTROL = 0xCF9


class ExitCode(IntEnum):
    """Written to isa-debug-exit; QEMU ends with status (code << 1) | 1."""

    NOTHING_TO_RUN = 0x10
    FATAL = 0x11


LINE_BYTES = 384


def say() -> str:
    """Print one line.

    In: rsi template; rdx, rcx, r8, r9 its arguments. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Stack: 480 bytes.
    """
    return f"""
    say:    push    rbx
            sub     rsp, {LINE_BYTES + 32}
            mov     qword ptr [rsp], rdx
            mov     qword ptr [rsp + 8], rcx
            mov     qword ptr [rsp + 16], r8
            mov     qword ptr [rsp + 24], r9
            lea     rdi, [rsp + 32]
            mov     ecx, {LINE_BYTES - 1}
            mov     rdx, rsp
            call    format_text
            mov     ebx, eax
            mov     byte ptr [rsp + rbx + 32], 10
            mov     edi, Port.COM1
            lea     rsi, [rip + text_prefix]
            mov     ecx, 6
            call    serial_write
            lea     rsi, [rsp + 32]
            lea     ecx, [rbx + 1]
            call    serial_write
            add     rsp, {LINE_BYTES + 32}
            pop     rbx
            ret
            .section .rodata
    text_prefix:
            .ascii  "shim: "
    """


def fatal() -> str:
    """Say why nothing can go on, and end the machine.

    In: rsi template that begins with `fatal: `; rdx, rcx, r8, r9 its arguments. Never returns.
    """
    return """
    fatal:  call    say
            mov     edi, ExitCode.FATAL

    end_machine:                                    # edi ExitCode; without isa-debug-exit the machine is reset
            mov     eax, edi
            mov     dx, Port.DEBUG_EXIT
            out     dx, al
            mov     eax, 6
            mov     dx, Port.RESET_CONTROL
            out     dx, al
    .halt:  cli
            hlt
            jmp     .halt
    """


ROUTINES = (say, fatal)
