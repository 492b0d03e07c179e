"""ACPI tables found and checked. Runs on the boot CPU; reads firmware memory, writes nothing there.

Ref: ACPI 6.5, 5.2.5.1 (finding the RSDP), 5.2.5.3, 5.2.7 (RSDT), 5.2.8 (XSDT).
"""


def find_acpi() -> str:
    """Find the RSDP, from the start info or in the BIOS area, and with it the root table.

    In: rsdp_pa. Out: acpi_root (0: no ACPI), acpi_pointer_bytes, acpi_pointer_count. Clobbers: rax, rcx, rdx, rsi, rdi.
    Interrupts: off. Stack: 8 bytes.
    """
    return """
    find_acpi:
            mov     rsi, qword ptr [rip + rsdp_pa]
            test    rsi, rsi
            jne     .found
            mov     esi, 0xe0000
            mov     rax, RSDP_SIGNATURE
    .scan:  cmp     qword ptr [rsi], rax
            je      .found
            add     esi, 16
            cmp     esi, 0x100000
            jb      .scan
            ret
    .found: mov     qword ptr [rip + rsdp_pa], rsi
            mov     eax, dword ptr [rsi + Rsdp.rsdt_address]
            mov     ecx, 4
            cmp     byte ptr [rsi + Rsdp.revision], 2
            jb      .root
            cmp     qword ptr [rsi + Rsdp.xsdt_address], 0
            je      .root
            mov     rax, qword ptr [rsi + Rsdp.xsdt_address]
            mov     ecx, 8
    .root:  mov     dword ptr [rip + acpi_pointer_bytes], ecx
            mov     rdi, rax
            mov     esi, dword ptr [rax + AcpiHeader.length]
            sub     esi, AcpiHeader.SIZE
            jb      .none
            call    table_sum
            jne     .none
            mov     qword ptr [rip + acpi_root], rdi
            mov     eax, esi
            xor     edx, edx
            div     dword ptr [rip + acpi_pointer_bytes]
            mov     dword ptr [rip + acpi_pointer_count], eax
    .none:  ret
            .section .bss
            .align  8
    acpi_root:
            .zero   8
    acpi_pointer_bytes:
            .zero   4
    acpi_pointer_count:
            .zero   4
    """


def find_table() -> str:
    """Find a table by its signature; one with a wrong checksum is named and passed over.

    In: esi signature. Out: rax table, 0 if there is none. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Stack: as say.
    """
    return """
    find_table:
            push    rbx
            push    rbp
            push    r12
            push    r13
            mov     r12d, esi
            xor     eax, eax
            mov     rbx, qword ptr [rip + acpi_root]
            test    rbx, rbx
            je      .done
            add     rbx, AcpiHeader.SIZE
            mov     ebp, dword ptr [rip + acpi_pointer_count]
            mov     r13d, dword ptr [rip + acpi_pointer_bytes]
    .next:  xor     eax, eax
            sub     ebp, 1
            jb      .done
            mov     edi, dword ptr [rbx]
            cmp     r13d, 8
            jne     .table
            mov     rdi, qword ptr [rbx]
    .table: add     rbx, r13
            cmp     dword ptr [rdi + AcpiHeader.signature], r12d
            jne     .next
            call    table_sum
            mov     rax, rdi
            je      .done
            lea     rsi, [rip + text_table_checksum]
            mov     rdx, rdi
            call    say
            jmp     .next
    .done:  pop     r13
            pop     r12
            pop     rbp
            pop     rbx
            ret
            .section .rodata
    text_table_checksum:
            .asciz  "note: ACPI: the table at %x has a wrong checksum and is ignored"
    """


def table_sum() -> str:
    """Add up the bytes of a table, or of any memory.

    In: rdi table (for byte_sum also ecx bytes). Out: ZF and al: the sum is 0. Clobbers: rax, rcx, rdx. Stack: none.
    """
    return """
    table_sum:
            mov     ecx, dword ptr [rdi + AcpiHeader.length]

    byte_sum:
            mov     rdx, rdi
            xor     eax, eax
            test    ecx, ecx
            je      .done
    .byte:  add     al, byte ptr [rdx]
            inc     rdx
            dec     ecx
            jne     .byte
    .done:  test    al, al
            ret
    """


ROUTINES = (find_acpi, find_table, table_sum)
