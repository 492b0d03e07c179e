"""The options on the command line: `sidecar=on|off|log`, `sidecar.linux_cpus=LIST`, `sidecar.fan_out` (each arriving
CPU starts another one), and for tests `sidecar.tests` (the sidecar may be made to fault) and `sidecar.phantom=ID` (a
CPU of that APIC id that is not there).

A word of ours is blanked, so that Linux does not take it for a parameter of its module sidecar; everything else is
Linux's and left alone. Runs on the boot CPU, on the shim's copy of the line.
"""

from enum import IntFlag

MAX_CPUS_BITS = 2048


class Option(IntFlag):
    """Bits of `options`."""

    OFF = 1
    LOG = 2
    TESTS = 4
    PHANTOM = 8
    FAN_OUT = 16


WORDS = (
    # (word, what it sets or clears)
    ("sidecar=on", "and     dword ptr [rip + options], ~Option.OFF"),
    ("sidecar=off", "or      dword ptr [rip + options], Option.OFF"),
    ("sidecar=log", "or      dword ptr [rip + options], Option.LOG"),
    ("sidecar.tests", "or      dword ptr [rip + options], Option.TESTS"),
    ("sidecar.fan_out", "or      dword ptr [rip + options], Option.FAN_OUT"),
)


def read_options() -> str:
    """Look at each word of the command line, and put blanks where ours were.

    In: command_line. Out: command_line, options, linux_cpus. Clobbers: rax, rbx, rcx, rdx, rsi, rdi, r8 to r11.
    Stack: as say.
    """
    tests = "".join(
        f"""
            lea     rdi, [rip + text_word_{index}]
            call    match_word
            jne     .not_{index}
            {action}
            jmp     .ours
    .not_{index}:"""
        for index, (_, action) in enumerate(WORDS)
    )
    texts = "".join(
        f"""
    text_word_{index}:
            .asciz  "{word}\""""
        for index, (word, _) in enumerate(WORDS)
    )
    return f"""
    read_options:
            lea     rbx, [rip + command_line]
    .word:  movzx   eax, byte ptr [rbx]
            inc     rbx
            test    al, al
            je      .done
            cmp     al, ' '
            jbe     .word
            dec     rbx{tests}
            lea     rdi, [rip + text_word_linux_cpus]
            call    match_prefix
            jne     .not_list
            call    read_cpu_list
            jmp     .ours
    .not_list:
            lea     rdi, [rip + text_word_phantom]
            call    match_prefix
            jne     .unknown
            call    read_number
            jb      .unknown
            cmp     byte ptr [rsi], ' '
            ja      .unknown
            mov     dword ptr [rip + phantom_apic_id], eax
            or      dword ptr [rip + options], Option.PHANTOM
            jmp     .ours
    .unknown:
            lea     rdi, [rip + text_word_sidecar]
            call    match_prefix
            jne     .skip
            lea     rsi, [rip + text_unknown_option]
            mov     rdx, rbx
            call    say
    .skip:  movzx   eax, byte ptr [rbx]
            test    al, al
            je      .done
            inc     rbx
            cmp     al, ' '
            ja      .skip
            jmp     .word
    .blank: mov     byte ptr [rbx], ' '
            inc     rbx
    .ours:  cmp     byte ptr [rbx], ' '
            ja      .blank
            jmp     .word
    .done:  ret

    match_word:                                     # is the word at rbx the text at rdi? Out: ZF
            call    match_prefix
            jne     .no
            movzx   eax, byte ptr [rsi]
            cmp     al, ' '
            ja      .no
            cmp     eax, eax
    .no:    ret

    match_prefix:                                   # does the word at rbx begin so? Out: ZF, rsi behind the prefix
            mov     rsi, rbx
    .byte:  movzx   eax, byte ptr [rdi]
            test    al, al
            je      .same
            cmp     al, byte ptr [rsi]
            jne     .same
            inc     rsi
            inc     rdi
            jmp     .byte
    .same:  ret
            .section .rodata{texts}
    text_word_linux_cpus:
            .asciz  "sidecar.linux_cpus="
    text_word_phantom:
            .asciz  "sidecar.phantom="
    text_word_sidecar:
            .asciz  "sidecar"
    text_unknown_option:
            .asciz  "note: no option of the shim, left to Linux, at: %s"
            .section .bss
            .align  8
    options:
            .zero   8
    linux_cpus:                                     # bit per Linux number
            .zero   {MAX_CPUS_BITS // 8}
    """


def read_cpu_list() -> str:
    """Read a list such as 1,4-7 into linux_cpus; at the first mistake say so and ignore the rest of the list.

    In: rsi the list, ended by a blank or zero. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Stack: as say.
    """
    return f"""
    read_cpu_list:
            mov     r10, rsi
    .item:  call    read_number
            jb      .bad
            mov     ecx, eax                        # first
            mov     edx, eax                        # last
            cmp     byte ptr [rsi], '-'
            jne     .range
            inc     rsi
            call    read_number
            jb      .bad
            mov     edx, eax
    .range: cmp     edx, {MAX_CPUS_BITS}
            jae     .bad
            cmp     ecx, edx
            ja      .bad
    .bit:   bts     dword ptr [rip + linux_cpus], ecx
            inc     ecx
            cmp     ecx, edx
            jbe     .bit
            movzx   eax, byte ptr [rsi]
            inc     rsi
            cmp     al, ','
            je      .item
            cmp     al, ' '
            ja      .bad
            ret
    .bad:   lea     rsi, [rip + text_cpu_list]
            mov     rdx, r10
            jmp     say

    read_number:                                    # rsi -> eax, CF if there is no digit
            xor     eax, eax
            movzx   edi, byte ptr [rsi]
            sub     edi, '0'
            cmp     edi, 10
            cmc
            jb      .none
    .digit: imul    eax, eax, 10
            add     eax, edi
            cmp     eax, 100000                     # larger than any CPU number: stop before it wraps
            ja      .none
            inc     rsi
            movzx   edi, byte ptr [rsi]
            sub     edi, '0'
            cmp     edi, 10
            jb      .digit
            clc
            ret
    .none:  stc
            ret
            .section .rodata
    text_cpu_list:
            .asciz  "note: sidecar.linux_cpus: expected numbers and ranges below 2048 such as 1,4-7, got: %s"
    """


ROUTINES = (read_options, read_cpu_list)
