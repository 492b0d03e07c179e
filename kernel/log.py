"""The log: a ring per CPU that everyone may read, and with `sidecar=log` a serial port that all CPUs share.

A line is written to the port under a lock, so lines of several CPUs never mix. A CPU that faulted while it held the
lock must not silence the others: one that has held it for longer than a line takes loses it to one who waits.

Ref: OpenHCL sidecar, `mod.rs` (one lock per log line).
"""

from sidecar.layout.diagnostics import LOG_TEXT_BYTES

LINE_BYTES = 192
LOCK_POLLS = 1_000_000
"""So often is the lock found with the same CPU before that CPU is taken for dead."""


def log_line() -> str:
    """Append one line to this CPU's ring, and write it to the serial log if there is one.

    In: rsi template, rdx arguments (see format_text). Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11.
    Interrupts: off. Stack: 320 bytes.
    """
    return f"""
    log_line:
            push    rbx
            push    rbp
            sub     rsp, {LINE_BYTES + 24}
            mov     qword ptr [rsp + 8], rsi
            mov     qword ptr [rsp + 16], rdx
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.linux_number]
            mov     qword ptr [rsp], rax
            lea     rdi, [rsp + 24]
            mov     ecx, {LINE_BYTES}
            lea     rsi, [rip + text_log_prefix]
            mov     rdx, rsp
            call    format_text
            mov     ebx, eax                        # bytes of the prefix
            lea     rdi, [rsp + rax + 24]
            mov     ecx, {LINE_BYTES - 1}
            sub     ecx, eax
            mov     rsi, qword ptr [rsp + 8]
            mov     rdx, qword ptr [rsp + 16]
            call    format_text
            add     eax, ebx
            mov     byte ptr [rsp + rax + 24], 10
            lea     ebp, [rax + 1]                  # bytes of the line
            lea     rsi, [rsp + 24]
            mov     ecx, ebp
            call    ring_append
            mov     edi, dword ptr [rip + log_port]
            test    edi, edi
            je      .done
            lea     rsi, [rsp + 24]
            mov     ecx, ebp
            call    serial_log
    .done:  add     rsp, {LINE_BYTES + 24}
            pop     rbp
            pop     rbx
            ret
            .section .rodata
    text_log_prefix:
            .asciz  "sidecar: cpu %u: "
    """


def ring_append() -> str:
    """Append bytes to this CPU's log ring; `written` is stored last.

    In: rsi bytes, ecx how many, less than the ring. Clobbers: rax, rcx, rdx, rsi, rdi, r8. Interrupts: off.
    Stack: none.
    """
    return f"""
    ring_append:
            mov     rax, qword ptr [rip + log_page + LogRing.written]
            lea     r8, [rax + rcx]
            xor     edx, edx
            mov     edi, {LOG_TEXT_BYTES}
            div     rdi                             # edx: where the next byte goes
    .byte:  movzx   eax, byte ptr [rsi]
            lea     rdi, [rip + log_page + LogRing.text]
            mov     byte ptr [rdi + rdx], al
            inc     rsi
            inc     edx
            cmp     edx, {LOG_TEXT_BYTES}
            jne     .inside
            xor     edx, edx
    .inside:
            dec     ecx
            jne     .byte
            mov     qword ptr [rip + log_page + LogRing.written], r8
            ret
    """


def serial_log() -> str:
    """Write a whole line to the serial log.

    serial_lock has the holder's Linux number and 1, or 0. The polls are counted for one holder, and each that goes has
    written a line; of all who wait for a dead one, the compare-exchange lets the first follow it.
    In: edi port, rsi bytes, ecx how many. Clobbers: rax, rcx, rdx, rsi, r8 to r10. Interrupts: off. Stack: 8 bytes.
    """
    return f"""
    serial_log:
            mov     r10d, dword ptr [rip + vp_globals + VpGlobals.linux_number]
            inc     r10d
            xor     r8d, r8d                        # nobody
    .wait:  mov     r9d, {LOCK_POLLS}
    .try:   xor     eax, eax
            lock cmpxchg dword ptr [rip + serial_lock], r10d
            je      .write
            cmp     eax, r8d
            mov     r8d, eax
            jne     .wait                           # another one has it now
            pause
            dec     r9d
            jne     .try
            lock cmpxchg dword ptr [rip + serial_lock], r10d
            mov     r8d, eax
            jne     .wait
    .write: call    serial_write
            mov     eax, r10d
            xor     edx, edx
            lock cmpxchg dword ptr [rip + serial_lock], edx     # unless one thought us dead
            ret
            .section .bss
            .align  64
    serial_lock:
            .zero   64
    """


ROUTINES = (log_line, ring_append, serial_log)
