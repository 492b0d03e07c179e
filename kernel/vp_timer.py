"""The time limit of a run: a deadline in TSC ticks, and the CPU's own APIC timer that makes the guest exit for it.

The timer is only the alarm: the run loop compares the TSC, and sets the timer again if it rang too early. So its rate
need not be known exactly; it is measured once, on the first run with a limit, in a way that errs towards ringing early.

Ref: SDM vol. 3A, 11.5.4 (APIC timer), 11.12.1.2 (its MSRs).
"""

MEASURED_TICKS = 1 << 18
"""TSC ticks for which the timer's rate is measured: about a tenth of a millisecond."""

SMALLEST_COUNT = 64


def set_time_limit() -> str:
    """Note the end of the run in VpState.time_end; 0 if there is no limit.

    In: rdi TSC ticks from now on, 0 for no limit. Clobbers: rax, rcx, rdx, rdi, r8. Interrupts: off. Stack: 8 bytes.
    """
    return """
    set_time_limit:
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.time_end], 0
            test    rdi, rdi
            je      .done
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            add     rax, rdi
            jae     .fits
            mov     rax, -1                         # later than the TSC goes
    .fits:  mov     qword ptr [rip + vp_globals + VpGlobals.vp.time_end], rax
            cmp     qword ptr [rip + vp_globals + VpGlobals.vp.timer_ratio], 0
            je      measure_timer
    .done:  ret
    """


def measure_timer() -> str:
    """Measure the APIC timer: counts per 2^32 TSC ticks, rounded down, at least 1.

    The TSC is read before and after the counts, so a delay in between makes the ratio smaller and the alarm early.
    In: nothing. Clobbers: rax, rcx, rdx, rdi, r8. Interrupts: off. Stack: none.
    """
    return f"""
    measure_timer:
            mov     ecx, Msr.X2APIC_LVT_TIMER
            mov     eax, Lvt.MASKED | TIMER_VECTOR
            xor     edx, edx
            wrmsr
            mov     ecx, Msr.X2APIC_TIMER_DIVIDE
            mov     eax, TimerDivide.BY_1
            wrmsr
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     rdi, rax
            mov     ecx, Msr.X2APIC_TIMER_INITIAL
            mov     eax, -1
            xor     edx, edx
            wrmsr
    .wait:  rdtsc
            shl     rdx, 32
            or      rax, rdx
            sub     rax, rdi
            cmp     rax, {MEASURED_TICKS:#x}
            jb      .wait
            mov     ecx, Msr.X2APIC_TIMER_CURRENT
            rdmsr
            not     eax                             # counts that have passed
            mov     r8d, eax
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            sub     rax, rdi
            mov     rdi, rax                        # ticks that have passed
            mov     rax, r8
            shl     rax, 32
            xor     edx, edx
            div     rdi
            test    rax, rax
            jne     .store
            inc     eax
    .store: mov     qword ptr [rip + vp_globals + VpGlobals.vp.timer_ratio], rax
            ret
    """


def arm_timer() -> str:
    """Before an entry, with a limit: has the time come? If not, set the alarm.

    Out: rax 0 if the time has come. Clobbers: rcx, rdx. Interrupts: off. Stack: 8 bytes.
    """
    return f"""
    arm_timer:
            rdtsc
            shl     rdx, 32
            or      rdx, rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.time_end]
            sub     rax, rdx
            jbe     .over
            mul     qword ptr [rip + vp_globals + VpGlobals.vp.timer_ratio]
            shrd    rax, rdx, 32
            shr     rdx, 32
            jne     .long
            mov     ecx, -1
            cmp     rax, rcx
            jbe     .least
    .long:  mov     eax, -1
    .least: cmp     rax, {SMALLEST_COUNT}
            jae     .set
            mov     eax, {SMALLEST_COUNT}
    .set:   push    rax
            mov     ecx, Msr.X2APIC_LVT_TIMER
            mov     eax, TIMER_VECTOR
            xor     edx, edx
            wrmsr
            pop     rax
            mov     ecx, Msr.X2APIC_TIMER_INITIAL
            wrmsr
            mov     eax, 1
            ret
    .over:  xor     eax, eax
            ret
    """


def clear_time_limit() -> str:
    """After a run: no alarm any more. One that is already pending is counted in the park loop.

    In: nothing. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: none.
    """
    return """
    clear_time_limit:
            cmp     qword ptr [rip + vp_globals + VpGlobals.vp.time_end], 0
            je      .done
            mov     ecx, Msr.X2APIC_LVT_TIMER
            mov     eax, Lvt.MASKED | TIMER_VECTOR
            xor     edx, edx
            wrmsr
            mov     ecx, Msr.X2APIC_TIMER_INITIAL
            xor     eax, eax
            wrmsr
    .done:  ret
    """


ROUTINES = (set_time_limit, measure_timer, arm_timer, clear_time_limit)
