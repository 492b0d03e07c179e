"""Starting the other CPUs: the first alone, then the others by the boot CPU, and by every CPU that is up if wanted.

One atomic counter per node says whose turn is next. `fan_out` runs on the BSP and on every arriving CPU at once;
`start_all` and `wait_for_all` on the BSP alone. Where virtual CPUs outnumber the host's, help only keeps the started
ones from running (docs/decisions.md has the measurement), so it is off unless the params ask for it.

Ref: SDM vol. 3A, 9.4 (INIT-SIPI), 11.12.9 (x2APIC ICR, not serialising); OpenHCL sidecar, `init.rs` (fan-out).
"""

ATTEMPTS = 3
INIT_MS = 10
"""How long a CPU may take to obey INIT, where something relies on it. Ref: SDM vol. 3A, 9.4.4.1."""

FIRST_MS = 20
"""How long the first CPU may take to arrive before the others are started."""

HELPED_BY_EACH = 1
"""CPUs that an arriving CPU starts before it goes idle, with ParamsFlags.FAN_OUT. The boot CPU goes on until none is
left, so none is forgotten."""


def start_cpu() -> str:
    """Send INIT and SIPI to one CPU. Modern CPUs need no delay between the two; a lost SIPI is sent again.

    In: esi x2APIC id. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: none.
    """
    return """
    start_cpu:
            mfence                                  # the ICR write must not pass the stores it announces
            lfence
            mov     ecx, Msr.X2APIC_ICR
            mov     edx, esi
            mov     eax, Icr.INIT
            wrmsr

    send_startup:                                   # esi as above
            mov     ecx, Msr.X2APIC_ICR
            mov     edx, esi
            mov     eax, dword ptr [rip + startup_command]
            wrmsr
            ret
    """


def fan_out() -> str:
    """Claim and start CPUs until none is left in any node, or as many as were asked for.

    In: rdi CPU map, r10d how many at most. Out: eax CPUs started. Clobbers: rcx, rdx, rsi, r8, r9. Interrupts: off.
    Stack: 16 bytes.
    """
    return """
    fan_out:
            push    rbx
            xor     ebx, ebx
            lea     r8, [rip + node_states]
            mov     r9d, dword ptr [rip + node_count]
    .node:  cmp     ebx, r10d
            jae     .done
            mov     eax, dword ptr [r8 + NodeState.next_vp]     # look first: the counter must not wrap
            cmp     eax, dword ptr [r8 + NodeState.vp_count]
            jae     .next
            mov     eax, 1
            lock xadd dword ptr [r8 + NodeState.next_vp], eax
            cmp     eax, dword ptr [r8 + NodeState.vp_count]
            jae     .next
            add     eax, dword ptr [r8 + NodeState.base_vp]
            shl     rax, 4                          # CpuMapEntry.SIZE
            cmp     dword ptr [rdi + rax + CpuMapEntry.policy], CpuPolicy.SIDECAR
            jne     .node
            mov     esi, dword ptr [rdi + rax + CpuMapEntry.apic_id]
            call    start_cpu
            inc     ebx
            jmp     .node
    .next:  add     r8, NodeState.SIZE
            dec     r9d
            jne     .node
    .done:  mov     eax, ebx
            pop     rbx
            ret
    """


def start_all() -> str:
    """Start one CPU, wait until it is idle, then start all others, if wanted with their help.

    An emulator translates code when it is first executed, under locks for which CPUs that come at once queue; after the
    first CPU there is nothing left to translate. If that one is late, the others do not wait for it.
    In: r15 params. Clobbers: rax, rcx, rdx, rsi, rdi, rbx, r8 to r11. Interrupts: off. Stack: 24 bytes.
    """
    return f"""
    start_all:
            call    first_starting
            call    next_starting
            test    rax, rax
            je      .all
            mov     rbx, rax                        # its status byte
            mov     rdi, qword ptr [r15 + SidecarParams.cpu_map_pa]
            mov     r10d, 1
            call    fan_out
            imul    r9d, dword ptr [r15 + SidecarParams.tsc_khz], {FIRST_MS}
            rdtsc
            mov     r8d, eax                        # 32 bits are enough for {FIRST_MS} ms
    .look:  cmp     byte ptr [rbx], CpuStatus.RUN
            jne     .all
            pause
            rdtsc
            sub     eax, r8d
            cmp     eax, r9d
            jb      .look
    .all:   test    dword ptr [r15 + SidecarParams.flags], ParamsFlags.FAN_OUT
            je      .alone
            mov     dword ptr [rip + helped_by_each], {HELPED_BY_EACH}
    .alone: mov     rdi, qword ptr [r15 + SidecarParams.cpu_map_pa]
            mov     r10d, MAX_CPUS
            jmp     fan_out

            .section .data
            .align  4
    helped_by_each:                                 # CPUs that an arriving one starts
            .long   0
    """


def next_starting() -> str:
    """Iterate over the CPUs whose status is RUN: started, but not yet idle. Or, next_with_status, over those with cl.

    In and out: r8 node state, r9d nodes left, r10d next index. In: r15 params.
    Out: rax address of the status byte, esi x2APIC id; rax 0 at the end. Clobbers: rcx. Interrupts: off. Stack: none.
    """
    return """
    next_starting:
            mov     cl, CpuStatus.RUN
    next_with_status:
            test    r9d, r9d
            je      .none
            mov     rax, qword ptr [r8 + NodeState.memory_base]
    .cpu:   cmp     r10d, dword ptr [r8 + NodeState.vp_count]
            jae     .next
            cmp     byte ptr [rax + r10 + ControlPage.cpu_status], cl
            je      .found
            inc     r10d
            jmp     .cpu
    .next:  add     r8, NodeState.SIZE
            dec     r9d
            xor     r10d, r10d
            jmp     next_with_status
    .found: lea     rax, [rax + r10 + ControlPage.cpu_status]
            mov     esi, dword ptr [r8 + NodeState.base_vp]
            add     esi, r10d
            shl     rsi, 4                          # CpuMapEntry.SIZE
            add     rsi, qword ptr [r15 + SidecarParams.cpu_map_pa]
            mov     esi, dword ptr [rsi + CpuMapEntry.apic_id]
            inc     r10d
            ret
    .none:  xor     eax, eax
            ret
    """


def wait_for_all() -> str:
    """Wait until no CPU is RUN; start missing ones again, at last revoke their claims and report them by APIC id.

    Each of the attempts ends when no CPU has arrived for start_timeout_ms, so the wait is bounded. A CPU that arrives
    after its claim was revoked finds its status REMOVED and halts. Before the last attempt sends INIT again it takes
    the claim back: a CPU that became idle just then would arrive a second time while its driver has it run a command.
    In: r15 params, r14 output. Out: output's counts and all_idle_tsc; a CPU whose arrival faulted is counted apart.
    Clobbers: rax, rcx, rdx, rsi, rbx, rbp, r8 to r13. Interrupts: off. Stack: 8 bytes and those of its callees.
    """
    return f"""
    wait_for_all:
            mov     r13d, {ATTEMPTS}
            mov     eax, dword ptr [r15 + SidecarParams.start_timeout_ms]
            mov     r12d, dword ptr [r15 + SidecarParams.tsc_khz]
            imul    r12, rax                        # ticks without progress that end an attempt
    .attempt:
            mov     ebp, -1                         # CPUs missing when last looked at
    .poll:  call    first_starting
            xor     ebx, ebx
    .count: call    next_starting
            test    rax, rax
            je      .counted
            inc     ebx
            jmp     .count
    .counted:
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            test    ebx, ebx
            je      .all
            cmp     ebx, ebp
            je      .same
            mov     ebp, ebx
            lea     r11, [rax + r12]                # deadline
    .same:  cmp     rax, r11
            jae     .late
            pause
            jmp     .poll
    .late:  dec     r13d
            je      .revoke
            call    first_starting
    .again: call    next_starting
            test    rax, rax
            je      .attempt
            cmp     r13d, 1
            je      .init
            call    send_startup                    # first SIPI alone: a CPU that is on its way ignores it
            jmp     .again
    .init:  mov     rbp, rax                        # its status byte
            mov     eax, CpuStatus.RUN
            mov     ecx, CpuStatus.REMOVED
            lock cmpxchg byte ptr [rbp], cl         # without a claim its former life cannot become idle any more
            jne     .again                          # it has arrived after all
            mfence
            lfence
            mov     ecx, Msr.X2APIC_ICR
            mov     edx, esi
            mov     eax, Icr.INIT
            wrmsr
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            imul    ebx, dword ptr [r15 + SidecarParams.tsc_khz], {INIT_MS}
            add     rbx, rax
    .halt:  pause                                   # until INIT has taken effect
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            cmp     rax, rbx
            jb      .halt
            mov     byte ptr [rbp], CpuStatus.RUN
            call    start_cpu
            jmp     .again
    .revoke:
            call    first_starting
    .missing:
            call    next_starting
            test    rax, rax
            je      .attempts_over
            mov     rdx, rax
            mov     eax, CpuStatus.RUN
            mov     ecx, CpuStatus.REMOVED
            lock cmpxchg byte ptr [rdx], cl
            jne     .missing                        # it has arrived after all
            mov     eax, dword ptr [r14 + SidecarOutput.missing_count]
            inc     dword ptr [r14 + SidecarOutput.missing_count]
            dec     dword ptr [r14 + SidecarOutput.started_count]
            cmp     eax, MISSING_LISTED
            jae     .missing
            mov     dword ptr [r14 + rax*4 + SidecarOutput.missing_apic_ids], esi
            jmp     .missing
    .attempts_over:
            rdtsc
            shl     rdx, 32
            or      rax, rdx
    .all:   mov     qword ptr [r14 + SidecarOutput.all_idle_tsc], rax
            mov     cl, CpuStatus.FAULTED           # not RUN any more, but not idle either
            call    first_starting
    .fault: call    next_with_status
            test    rax, rax
            je      .ready
            inc     dword ptr [r14 + SidecarOutput.faulted_count]
            dec     dword ptr [r14 + SidecarOutput.started_count]
            jmp     .fault
    .ready: ret

    first_starting:
            lea     r8, [rip + node_states]
            mov     r9d, dword ptr [rip + node_count]
            xor     r10d, r10d
            ret
    """


ROUTINES = (start_cpu, start_all, fan_out, next_starting, wait_for_all)
