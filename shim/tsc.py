"""The TSC's frequency, measured against the PIT. Ref: Intel 8254 data sheet; ICH9 data sheet, 13.7.3 (port 0x61)."""

PIT_HZ = 1_193_182
MEASURED_MS = 4
ROUNDS = 3
"""A measurement includes whatever delays the CPU, so it is never too short; the shortest is the best."""

POLLS = 100_000_000
"""Then there is no PIT, and waits are made long by assuming a fast TSC."""

ASSUMED_KHZ = 4_000_000


def calibrate_tsc() -> str:
    """Count TSC ticks while channel 2 of the PIT counts down, several times.

    In: nothing. Out: tsc_khz. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: as say.
    """
    count = PIT_HZ * MEASURED_MS // 1000
    return f"""
    calibrate_tsc:
            mov     r9, -1                          # fewest ticks
            mov     r10d, {ROUNDS}
            in      al, Port.SYSTEM_CONTROL_B
            and     al, 0xfd                        # speaker off,
            or      al, 1                           # gate on
            out     Port.SYSTEM_CONTROL_B, al
    .round: rdtsc                                   # before the count begins
            shl     rdx, 32
            or      rax, rdx
            mov     r8, rax
            mov     al, 0xb0                        # channel 2, both bytes, mode 0
            out     Port.PIT_COMMAND, al
            mov     al, {count & 0xFF}
            out     Port.PIT_CHANNEL2, al
            mov     al, {count >> 8}
            out     Port.PIT_CHANNEL2, al
            mov     ecx, {POLLS}
    .wait:  in      al, Port.SYSTEM_CONTROL_B
            test    al, 0x20                        # output of channel 2: counted down
            jne     .over
            dec     ecx
            jne     .wait
            mov     dword ptr [rip + tsc_khz], {ASSUMED_KHZ}
            lea     rsi, [rip + text_no_pit]
            mov     edx, {ASSUMED_KHZ}
            jmp     say
    .over:  rdtsc
            shl     rdx, 32
            or      rax, rdx
            sub     rax, r8
            cmp     rax, r9
            cmovb   r9, rax
            dec     r10d
            jne     .round
            mov     rax, r9
            xor     edx, edx
            mov     ecx, {MEASURED_MS}
            div     rcx
            mov     dword ptr [rip + tsc_khz], eax
            ret
            .section .rodata
    text_no_pit:
            .asciz  "note: no PIT to measure the TSC with; assuming %u kHz"
            .section .bss
            .align  8
    tsc_khz:
            .zero   4
            .zero   4
    """


ROUTINES = (calibrate_tsc,)
