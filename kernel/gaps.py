"""MEASURE_GAPS: how evenly time passes on a CPU that nobody interrupts. A kind of RAISE, for measurements.

Runs as a command, interrupts off: what it finds is what firmware, hypervisor or emulator take, and NMIs.

Ref: SDM vol. 2B, RDTSC; vol. 2A, BSR.
"""
from sidecar.layout import GapsAnswer


def raise_measure_gaps() -> str:
    """Look at the TSC for so many ticks, or until the command is cancelled, and note how far one look is from the next.

    In: rdi ticks. Out: GapsAnswer in request_data. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    """
    return f"""
    raise_measure_gaps:
            mov     r10, rdi
            lea     rdi, [rip + command_page + CommandPage.request_data]
            mov     r11, rdi
            xor     eax, eax
            mov     ecx, {GapsAnswer.SIZE // 8}
            rep stosq
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.node_cpu_index]
            lea     rsi, [rip + control_page + ControlPage.cpu_status]
            add     rsi, rcx
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     r8, rax                         # the first look
            mov     r9, rax                         # the last look
    .look:  rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     rdx, rax
            sub     rdx, r9
            mov     r9, rax
            cmp     rdx, qword ptr [r11 + GapsAnswer.longest]
            jbe     .note
            mov     qword ptr [r11 + GapsAnswer.longest], rdx
    .note:  mov     rcx, rdx
            or      rcx, 1                          # BSR of nothing is undefined
            bsr     rcx, rcx
            lea     rdi, [r11 + GapsAnswer.sums]
            add     qword ptr [rdi + rcx*8], rdx
            lea     rdi, [r11 + GapsAnswer.counts]
            inc     dword ptr [rdi + rcx*4]
            sub     rax, r8
            cmp     rax, r10
            jae     .over
            cmp     byte ptr [rsi], CpuStatus.RUN
            je      .look
    .over:  mov     qword ptr [r11 + GapsAnswer.ticks], rax
            ret
    """


ROUTINES = (raise_measure_gaps,)
