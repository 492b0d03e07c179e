"""Sentences with numbers in them. Runs anywhere: no memory but its arguments, no page tables assumed.

Sample of a template: `node %u: memory at %x`, with an array of u64 arguments.
"""


def format_text() -> str:
    """Expand a template into a buffer.

    In: rdi buffer, ecx its bytes, rsi zero-terminated template with %x (hex, 0x), %u (decimal), %s (address of
    zero-terminated text), rdx array of u64 arguments. Out: eax bytes written, never more than ecx.
    Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: any. Stack: 56 bytes.
    """
    return """
    format_text:
            push    rbx
            push    rdi
            sub     rsp, 32                         # digits, last one first
            mov     ecx, ecx                        # zero-extend
            lea     r8, [rdi + rcx]                 # end of the buffer
            mov     rbx, rdx                        # next argument
    .next:  movzx   eax, byte ptr [rsi]
            inc     rsi
            test    al, al
            je      .done
            cmp     al, '%'
            je      .argument
    .put:   cmp     rdi, r8
            jae     .done
            mov     byte ptr [rdi], al
            inc     rdi
            jmp     .next
    .argument:
            movzx   eax, byte ptr [rsi]
            inc     rsi
            mov     r9, qword ptr [rbx]
            add     rbx, 8
            cmp     al, 's'
            je      .string
            lea     r10, [rsp + 32]
            mov     ecx, 10
            cmp     al, 'u'
            je      .digit
            mov     ecx, 16
    .digit: mov     rax, r9
            xor     edx, edx
            div     rcx
            mov     r9, rax
            lea     r11, [rip + digits]
            movzx   eax, byte ptr [r11 + rdx]
            dec     r10
            mov     byte ptr [r10], al
            test    r9, r9
            jne     .digit
            cmp     ecx, 10
            je      .copy
            sub     r10, 2
            mov     byte ptr [r10], '0'
            mov     byte ptr [r10 + 1], 'x'
    .copy:  lea     rcx, [rsp + 32]
    .one:   cmp     r10, rcx
            je      .next
            cmp     rdi, r8
            jae     .done
            movzx   eax, byte ptr [r10]
            mov     byte ptr [rdi], al
            inc     r10
            inc     rdi
            jmp     .one
    .string:
            movzx   eax, byte ptr [r9]
            test    al, al
            je      .next
            cmp     rdi, r8
            jae     .done
            mov     byte ptr [rdi], al
            inc     r9
            inc     rdi
            jmp     .string
    .done:  mov     rax, rdi
            add     rsp, 32
            pop     rdi
            sub     rax, rdi
            pop     rbx
            ret
            .section .rodata
    digits: .ascii  "0123456789abcdef"
    """


ROUTINES = (format_text,)
