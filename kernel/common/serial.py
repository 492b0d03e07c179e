"""A 16550 UART, written by polling. Runs on any CPU, in any mode that may use I/O ports.

Ref: National Semiconductor PC16550D data sheet, section 8.
"""

from enum import IntEnum


class Uart(IntEnum):
    """Register offsets and bits of the 16550."""

    DATA = 0
    INTERRUPT_ENABLE = 1
    FIFO_CONTROL = 2
    LINE_CONTROL = 3
    MODEM_CONTROL = 4
    LINE_STATUS = 5
    STATUS_DATA_READY = 1
    STATUS_TRANSMIT_EMPTY = 0x20
    ENABLE_RECEIVE = 1
    LINE_8N1 = 3
    LINE_DIVISOR = 0x80
    FIFO_ENABLE_CLEAR = 7
    MODEM_DTR_RTS_OUT2 = 0xB


POLLS_PER_BYTE = 100_000
"""Then the byte is dropped: a port without a UART must not stop a CPU."""


def serial_init() -> str:
    """Set a UART to 115200 8N1 with FIFOs, interrupts off.

    In: edi I/O base. Clobbers: rax, rdx. Interrupts: any. Stack: none.
    """
    steps = (
        ("INTERRUPT_ENABLE", "0"),
        ("LINE_CONTROL", "Uart.LINE_DIVISOR"),
        ("DATA", "1"),
        ("INTERRUPT_ENABLE", "0"),
        ("LINE_CONTROL", "Uart.LINE_8N1"),
        ("FIFO_CONTROL", "Uart.FIFO_ENABLE_CLEAR"),
        ("MODEM_CONTROL", "Uart.MODEM_DTR_RTS_OUT2"),
    )
    writes = "".join(
        f"""
            lea     edx, [rdi + Uart.{register}]
            mov     eax, {value}
            out     dx, al"""
        for register, value in steps
    )
    return f"""
    serial_init:{writes}
            ret
    """


def serial_write() -> str:
    """Write bytes to a UART.

    In: edi I/O base, rsi bytes, ecx how many. Clobbers: rax, rcx, rdx, rsi, r8. Interrupts: any. Stack: none.
    """
    return f"""
    serial_write:
            test    ecx, ecx
            je      .done
    .byte:  mov     r8d, {POLLS_PER_BYTE}
            lea     edx, [rdi + Uart.LINE_STATUS]
    .wait:  in      al, dx
            test    al, Uart.STATUS_TRANSMIT_EMPTY
            jne     .send
            dec     r8d
            jne     .wait
    .send:  mov     edx, edi
            movzx   eax, byte ptr [rsi]
            out     dx, al
            inc     rsi
            dec     ecx
            jne     .byte
    .done:  ret
    """


ROUTINES = (serial_init, serial_write)
