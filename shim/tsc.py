"""The TSC's frequency, measured against the ACPI power-management timer.

The ratio of two readings of both clocks: a delay between the readings does not falsify it, as it would a countdown.
Runs on the boot CPU. Ref: ACPI 6.5, 4.8.2.1 (power management timer), 5.2.9 (FADT).
"""

PM_TIMER_HZ = 3_579_545
PM_TIMER_MASK = 0xFFFFFF
"""Older timers count 24 bits, 4.7 s; nothing here takes so long."""

MEASURED_TICKS = PM_TIMER_HZ * 8 // 1000
SAMPLES = 16
POLLS = 10_000_000
"""Then the timer does not count, and waits are made long by assuming a fast TSC."""

ASSUMED_KHZ = 4_000_000


def calibrate_tsc() -> str:
    """Read both clocks, wait until the timer has counted 8 ms, read both again.

    In: ACPI found. Out: tsc_khz. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: as say.
    """
    return f"""
    calibrate_tsc:
            push    rbx
            push    rbp
            mov     esi, FADT_SIGNATURE
            call    find_table
            test    rax, rax
            je      .none
            mov     ebx, dword ptr [rax + FADT_PM_TIMER_BLOCK]
            test    ebx, ebx
            je      .none
            call    read_clocks
            mov     rbp, r8                         # TSC,
            mov     r11d, r9d                       # timer
            mov     edi, {POLLS}
    .wait:  mov     edx, ebx
            in      eax, dx
            sub     eax, r11d
            and     eax, {PM_TIMER_MASK:#x}
            cmp     eax, {MEASURED_TICKS}
            jae     .over
            dec     edi
            jne     .wait
    .none:  mov     dword ptr [rip + tsc_khz], {ASSUMED_KHZ}
            lea     rsi, [rip + text_no_timer]
            mov     edx, {ASSUMED_KHZ}
            call    say
            jmp     .done
    .over:  call    read_clocks
            sub     r9d, r11d
            and     r9d, {PM_TIMER_MASK:#x}         # ticks of the timer
            sub     r8, rbp                         # ticks of the TSC
            mov     rax, r8
            mov     ecx, {PM_TIMER_HZ}
            mul     rcx
            imul    rcx, r9, 1000
            div     rcx
            mov     dword ptr [rip + tsc_khz], eax
    .done:  pop     rbp
            pop     rbx
            ret
            .section .rodata
    text_no_timer:
            .asciz  "note: no ACPI timer to measure the TSC with; assuming %u kHz"
            .section .bss
            .align  8
    tsc_khz:
            .zero   4
            .zero   4
    """


def read_clocks() -> str:
    """The TSC and the timer at the same moment: of several readings, the one that took the least time.

    In: ebx port. Out: r8 TSC, r9d timer. Clobbers: rax, rcx, rdx, rsi, rdi, r10. Interrupts: off. Stack: none.
    """
    return f"""
    read_clocks:
            mov     r10, -1                         # shortest time so far
            mov     ecx, {SAMPLES}
    .next:  rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     rsi, rax
            mov     edx, ebx
            in      eax, dx
            mov     edi, eax
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            sub     rax, rsi                        # how long it took
            cmp     rax, r10
            jae     .slower
            mov     r10, rax
            shr     rax, 1
            lea     r8, [rsi + rax]
            mov     r9d, edi
    .slower:
            dec     ecx
            jne     .next
            ret
    """


ROUTINES = (calibrate_tsc, read_clocks)
