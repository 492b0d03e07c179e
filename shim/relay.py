"""The relay: without Linux, the boot CPU sends the interrupts that the host asks for, and counts the answers.

The host puts x2APIC ICR values into the relay page's ring and wakes this CPU by a byte to the second UART. Between
them the CPU is halted. Who owns which field: `layout/boot.py`, RelayPage.
Ref: Intel 82093AA data sheet, 3.2.4 (I/O redirection table); SDM vol. 3A, 11.12.9.
"""

COM2_GSI = 3
IO_APIC_SELECT = 0
IO_APIC_WINDOW = 0x10


def relay() -> str:
    """Set the relay up, then serve for ever.

    In: relay_page zero, x2APIC enabled. Never returns. Interrupts: opened between STI and HLT.
    """
    return f"""
    relay:  mov     edi, Port.COM2
            call    serial_init
            mov     eax, dword ptr [rip + io_apic_pa]
            mov     ecx, 0x10 + 2 * {COM2_GSI} + 1
            mov     dword ptr [rax + {IO_APIC_SELECT}], ecx
            mov     edx, dword ptr [rip + bsp_apic_id]
            shl     edx, 24
            mov     dword ptr [rax + {IO_APIC_WINDOW}], edx     # destination
            dec     ecx
            mov     dword ptr [rax + {IO_APIC_SELECT}], ecx
            mov     dword ptr [rax + {IO_APIC_WINDOW}], ShimVector.KICK     # fixed, edge, physical, not masked
            lea     rbx, [rip + relay_page]
            mov     dword ptr [rbx + RelayPage.response_vector], ShimVector.RESPONSE
            mov     eax, dword ptr [rip + bsp_apic_id]
            mov     dword ptr [rbx + RelayPage.bsp_apic_id], eax
            mov     rax, RELAY_MAGIC
            mov     qword ptr [rbx + RelayPage.magic], rax
            mov     dword ptr [rbx + RelayPage.flags], RelayFlags.READY
            mov     edx, Port.COM2 + Uart.INTERRUPT_ENABLE
            mov     eax, Uart.ENABLE_RECEIVE
            out     dx, al
            lea     rsi, [rip + text_relay]
            call    say
            mov     edi, Port.COM2
            lea     rsi, [rip + text_ready]
            mov     ecx, 1
            call    serial_write

    relay_serve:
            cli
            mov     ecx, dword ptr [rbx + RelayPage.tail]
            cmp     ecx, dword ptr [rbx + RelayPage.head]
            je      .sleep
            movzx   eax, cl                         # RELAY_RING is 256
            mov     rax, qword ptr [rbx + rax*8 + RelayPage.ring]
            mov     rdx, rax
            shr     rdx, 32
            mov     esi, ecx
            mfence                                  # the host's stores first
            lfence
            mov     ecx, Msr.X2APIC_ICR
            wrmsr
            inc     esi
            mov     dword ptr [rbx + RelayPage.tail], esi
            jmp     relay_serve
    .sleep: sti
            hlt
            jmp     relay_serve
            .section .rodata
    text_relay:
            .asciz  "relay: serving the host"
    text_ready:
            .ascii  "R"
    """


def relay_kick() -> str:
    """Interrupt of the second UART: swallow the bytes, the serving loop looks at the ring.

    In: interrupt frame. Interrupts: off. Stack: 24 bytes.
    """
    return """
    relay_kick:
            push    rax
            push    rcx
            push    rdx
            inc     qword ptr [rip + relay_page + RelayPage.wakeups]
    .byte:  mov     edx, Port.COM2 + Uart.LINE_STATUS
            in      al, dx
            test    al, Uart.STATUS_DATA_READY
            je      .done
            mov     edx, Port.COM2 + Uart.DATA
            in      al, dx
            jmp     .byte
    .done:  xor     eax, eax
            xor     edx, edx
            mov     ecx, Msr.X2APIC_EOI
            wrmsr
            pop     rdx
            pop     rcx
            pop     rax
            iretq
    """


def relay_response() -> str:
    """Interrupt of a sidecar CPU: counted.

    In: interrupt frame. Interrupts: off. Stack: 24 bytes.
    """
    return """
    relay_response:
            push    rax
            push    rcx
            push    rdx
            inc     qword ptr [rip + relay_page + RelayPage.responses]
            xor     eax, eax
            xor     edx, edx
            mov     ecx, Msr.X2APIC_EOI
            wrmsr
            pop     rdx
            pop     rcx
            pop     rax
            iretq
    """


ROUTINES = (relay, relay_kick, relay_response)
