"""The call of the sidecar's entry: params page in, output page back.

Runs on the boot CPU. The pages are the shim's; what the sidecar says in them is checked where it is used.
Ref: System V ABI, AMD64 supplement, 3.2.3.
"""

START_TIMEOUT_MS = 1000


def call_sidecar() -> str:
    """Fill the params page and call the entry.

    In: nodes, image, tsc_khz, trampoline_pa. Out: output_page, or no_sidecar with the sidecar's own sentence.
    Clobbers: all. Interrupts: off. Stack: the sidecar's.
    """
    return f"""
    call_sidecar:
            sub     rsp, 8                          # 16-byte alignment at the call
            lea     rsi, [rip + text_no_trampoline]
            cmp     qword ptr [rip + trampoline_pa], 0
            je      no_sidecar
            call    enable_x2apic
            lea     rbx, [rip + params_page]
            xor     eax, eax
            mov     edx, Port.COM3
            test    dword ptr [rip + options], Option.LOG
            je      .quiet
            mov     word ptr [rbx + SidecarParams.log_port], dx
            inc     eax
            mov     byte ptr [rbx + SidecarParams.enable_logging], al
            mov     edi, edx
            call    serial_init
    .quiet: mov     eax, dword ptr [rip + node_count]
            mov     dword ptr [rbx + SidecarParams.node_count], eax
            mov     dword ptr [rbx + SidecarParams.abi_version], ABI_VERSION
            mov     rax, ABI_HASH
            mov     qword ptr [rbx + SidecarParams.abi_hash], rax
            test    dword ptr [rip + options], Option.TESTS
            je      .no_tests
            mov     dword ptr [rbx + SidecarParams.flags], ParamsFlags.ALLOW_RAISE
    .no_tests:
            test    dword ptr [rip + options], Option.FAN_OUT
            je      .no_fan_out
            or      dword ptr [rbx + SidecarParams.flags], ParamsFlags.FAN_OUT
    .no_fan_out:
            cmp     qword ptr [rip + linux_part], 0
            je      .no_linux
            or      dword ptr [rbx + SidecarParams.flags], ParamsFlags.SERIAL_UNTIL_RETURN
    .no_linux:
            lea     rax, [rip + cpu_map]
            mov     qword ptr [rbx + SidecarParams.cpu_map_pa], rax
            mov     eax, dword ptr [rip + cpu_count]
            mov     dword ptr [rbx + SidecarParams.cpu_map_count], eax
            mov     eax, dword ptr [rip + tsc_khz]
            mov     dword ptr [rbx + SidecarParams.tsc_khz], eax
            mov     rax, qword ptr [rip + trampoline_pa]
            mov     qword ptr [rbx + SidecarParams.trampoline_pa], rax
            lea     rax, [rip + sdcr]
            mov     qword ptr [rbx + SidecarParams.sdcr_pa], rax
            mov     dword ptr [rbx + SidecarParams.start_timeout_ms], {START_TIMEOUT_MS}
            mov     rdi, rbx
            lea     rsi, [rip + output_page]
            call    qword ptr [rip + image_entry]
            add     rsp, 8
            test    al, al
            jne     .started
            movzx   eax, byte ptr [rip + output_page + SidecarOutput.error.length]
            lea     rdx, [rip + output_page + SidecarOutput.error.text]
            mov     byte ptr [rdx + rax], 0         # the page goes on behind it
            lea     rsi, [rip + text_refused]
            jmp     no_sidecar
    .started:
            ret
            .section .rodata
    text_no_trampoline:
            .asciz  "no free page below 640 KiB for the trampoline"
    text_refused:
            .asciz  "%s"
            .section .bss
            .align  PAGE_SIZE
    params_page:
            .zero   PAGE_SIZE
    output_page:
            .zero   PAGE_SIZE
    """


def report_sidecar() -> str:
    """Say what was started, and which CPUs are missing, by APIC id.

    In: output_page. Clobbers: all. Stack: as say.
    """
    return """
    report_sidecar:
            mov     rax, qword ptr [rip + output_page + SidecarOutput.all_idle_tsc]
            sub     rax, qword ptr [rip + output_page + SidecarOutput.first_init_tsc]
            mov     ecx, 1000
            mul     rcx
            mov     ecx, dword ptr [rip + tsc_khz]
            div     rcx
            mov     r8, rax                         # microseconds
            mov     edx, dword ptr [rip + output_page + SidecarOutput.started_count]
            mov     ecx, dword ptr [rip + node_count]
            lea     rsi, [rip + text_started]
            call    say
            xor     ebx, ebx
            mov     edx, dword ptr [rip + output_page + SidecarOutput.faulted_count]
            test    edx, edx
            je      .next
            lea     rsi, [rip + text_faulted]
            call    say
    .next:  cmp     ebx, dword ptr [rip + output_page + SidecarOutput.missing_count]
            jae     .done
            cmp     ebx, MISSING_LISTED
            jae     .done
            lea     rdx, [rip + output_page + SidecarOutput.missing_apic_ids]
            mov     edx, dword ptr [rdx + rbx*4]
            lea     rsi, [rip + text_missing]
            call    say
            inc     ebx
            jmp     .next
    .done:  ret
            .section .rodata
    text_started:
            .asciz  "sidecar: %u CPUs idle in %u nodes, %u us after the first INIT"
    text_faulted:
            .asciz  "note: %u CPUs faulted during their arrival; their fault records say why"
    text_missing:
            .asciz  "note: the CPU with APIC id %u did not start"
    """


ROUTINES = (call_sidecar, report_sidecar)
