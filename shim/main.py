"""The shim's story, and its decision whether the sidecar is used. Runs on the boot CPU, 64-bit, interrupts off."""


def main() -> str:
    """From 64-bit mode to the end of the shim.

    In: rbx HvmStartInfo. Out: boot_linux, relay or end_machine.
    """
    return """
    main:   mov     qword ptr [rip + main_stack], rsp
            mov     edi, Port.COM1
            call    serial_init
            mov     al, 0xff                        # no interrupt comes from the legacy controllers
            out     Port.PIC_MASTER_MASK, al
            out     Port.PIC_SLAVE_MASK, al
            call    load_idt
            call    read_start_info
            lea     rsi, [rip + text_banner]
            mov     edx, ABI_VERSION
            mov     rcx, ABI_HASH
            call    say
            call    check_bundle
            call    add_bundle_line
            call    read_options
            call    find_linux
            call    find_acpi
            call    list_cpus
            call    decide
            call    assign_numa
            call    list_free_memory
            call    split_nodes
            call    load_image
            call    calibrate_tsc
            call    call_sidecar
            call    report_sidecar

    after_sidecar:
            cmp     dword ptr [rip + node_count], 0
            je      .no_nodes
            call    publish_sdcr
    .no_nodes:
            cmp     qword ptr [rip + linux_part], 0
            jne     boot_linux
            cmp     dword ptr [rip + node_count], 0
            jne     relay
            lea     rsi, [rip + text_nothing]
            call    say
            mov     edi, ExitCode.NOTHING_TO_RUN
            jmp     end_machine
            .section .rodata
    text_banner:
            .asciz  "boot shim, ABI version %u, hash %x"
    text_nothing:
            .asciz  "nothing to run: no sidecar, and no Linux in the bundle"
            .section .bss
            .align  8
    main_stack:
            .zero   8
    """


def decide() -> str:
    """What can be known before the machine is divided: is the sidecar wanted, is it there, can these CPUs run it?

    In: options, sidecar_part, cpu_count. Out: returns, or no_sidecar. Clobbers: rax, rbx, rcx, rdx, rsi. Stack: none.
    """
    return """
    decide: lea     rsi, [rip + text_off]
            test    dword ptr [rip + options], Option.OFF
            jne     no_sidecar
            lea     rsi, [rip + text_no_image]
            cmp     qword ptr [rip + sidecar_part], 0
            je      no_sidecar
            mov     eax, Cpuid.FEATURES
            cpuid
            lea     rsi, [rip + text_no_x2apic]
            bt      ecx, Cpuid.ECX_X2APIC_BIT
            jae     no_sidecar
            xor     eax, eax
            cpuid
            lea     rsi, [rip + text_no_topology]
            cmp     eax, Cpuid.TOPOLOGY
            jb      no_sidecar
            mov     eax, Cpuid.EXTENDED_FEATURES
            cpuid
            lea     rsi, [rip + text_no_nx]
            bt      edx, Cpuid.EXT_EDX_NX_BIT
            jae     no_sidecar
            ret
            .section .rodata
    text_off:
            .asciz  "sidecar=off on the command line"
    text_no_image:
            .asciz  "the bundle carries no sidecar image"
    text_no_x2apic:
            .asciz  "the CPUs have no x2APIC"
    text_no_topology:
            .asciz  "the CPUs do not tell their x2APIC id (CPUID leaf 0xB)"
    text_no_nx:
            .asciz  "the CPUs have no no-execute pages"
    """


def no_sidecar() -> str:
    """Say why the sidecar is not used, give all CPUs to Linux and go on without it. From anywhere below main.

    In: rsi template of the reason; rdx, rcx, r8 its arguments. Out: after_sidecar.
    """
    return """
    no_sidecar:
            mov     rsp, qword ptr [rip + main_stack]
            sub     rsp, 288
            mov     qword ptr [rsp], rdx
            mov     qword ptr [rsp + 8], rcx
            mov     qword ptr [rsp + 16], r8
            lea     rdi, [rsp + 32]
            mov     ecx, 255
            mov     rdx, rsp
            call    format_text
            mov     byte ptr [rsp + rax + 32], 0
            lea     rdx, [rsp + 32]
            lea     rsi, [rip + text_not_used]
            call    say
            mov     dword ptr [rip + node_count], 0
            lea     rdi, [rip + cpu_map]
            mov     ecx, dword ptr [rip + cpu_count]
    .cpu:   test    ecx, ecx
            je      .done
            mov     word ptr [rdi + CpuMapEntry.node], NO_NODE
            mov     dword ptr [rdi + CpuMapEntry.policy], CpuPolicy.LINUX
            add     rdi, CpuMapEntry.SIZE
            dec     ecx
            jmp     .cpu
    .done:  mov     rsp, qword ptr [rip + main_stack]
            jmp     after_sidecar
            .section .rodata
    text_not_used:
            .asciz  "not using the sidecar: %s"
    """


ROUTINES = (main, decide, no_sidecar)
