"""The params page: checked field by field on the BSP before anything is built from it, then kept.

The page is the shim's; it is not used after the entry has returned.
"""

CHECKS = (
    # (template with the value and the expectation, text of the test that jumps to .bad when the value in rdx is wrong)
    ("abi_version", "abi_version %u, expected %u", "mov edx, dword ptr [r15 + SidecarParams.abi_version]",
     "mov ecx, ABI_VERSION", "cmp rdx, rcx", "jne"),
    ("abi_hash", "abi_hash %x, expected %x", "mov rdx, qword ptr [r15 + SidecarParams.abi_hash]",
     "mov rcx, ABI_HASH", "cmp rdx, rcx", "jne"),
    ("hypercall_page", "hypercall_page %x, expected %x", "mov rdx, qword ptr [r15 + SidecarParams.hypercall_page]",
     "xor ecx, ecx", "cmp rdx, rcx", "jne"),
    ("initial_state", "initial_state.per_cpu_state_specified %u, expected %u: the CPU map says who starts a CPU",
     "movzx edx, byte ptr [r15 + SidecarParams.initial_state.per_cpu_state_specified]", "xor ecx, ecx",
     "cmp rdx, rcx", "jne"),
    ("node_count_low", "node_count %u, expected at least %u", "mov edx, dword ptr [r15 + SidecarParams.node_count]",
     "mov ecx, 1", "cmp rdx, rcx", "jb"),
    ("node_count", "node_count %u, expected at most %u", "mov edx, dword ptr [r15 + SidecarParams.node_count]",
     "mov ecx, MAX_NODES", "cmp rdx, rcx", "ja"),
    ("cpu_map_count_low", "cpu_map_count %u, expected at least %u",
     "mov edx, dword ptr [r15 + SidecarParams.cpu_map_count]", "mov ecx, 2", "cmp rdx, rcx", "jb"),
    ("cpu_map_count", "cpu_map_count %u, expected at most %u",
     "mov edx, dword ptr [r15 + SidecarParams.cpu_map_count]", "mov ecx, MAX_CPUS", "cmp rdx, rcx", "ja"),
    ("cpu_map_pa", "cpu_map_pa %x, expected a multiple of %x", "mov rdx, qword ptr [r15 + SidecarParams.cpu_map_pa]",
     "mov ecx, PAGE_SIZE", "test rdx, PAGE_SIZE - 1", "jne"),
    ("trampoline_low", "trampoline_pa %x, expected at least %x",
     "mov rdx, qword ptr [r15 + SidecarParams.trampoline_pa]", "mov ecx, PAGE_SIZE", "cmp rdx, rcx", "jb"),
    ("trampoline_high", "trampoline_pa %x, expected at most %x",
     "mov rdx, qword ptr [r15 + SidecarParams.trampoline_pa]", "mov ecx, 0x9f000", "cmp rdx, rcx", "ja"),
    ("trampoline_align", "trampoline_pa %x, expected a multiple of %x",
     "mov rdx, qword ptr [r15 + SidecarParams.trampoline_pa]", "mov ecx, PAGE_SIZE", "test rdx, PAGE_SIZE - 1", "jne"),
    ("tsc_khz", "tsc_khz %u, expected at least %u", "mov edx, dword ptr [r15 + SidecarParams.tsc_khz]",
     "mov ecx, 1", "cmp rdx, rcx", "jb"),
    ("image", "the image is loaded at %x, expected below %x", "lea rdx, [rip + _end]", "mov ecx, 0xffffffff",
     "cmp rdx, rcx", "ja"),
    ("image_align", "the image is loaded at %x, expected a multiple of %x", "lea rdx, [rip + __ehdr_start]",
     "mov ecx, PAGE_SIZE", "test rdx, PAGE_SIZE - 1", "jne"),
)


def check_params() -> str:
    """Refuse a params page that contradicts itself or this image; the nodes are checked as they are prepared.

    In: r15 params, r14 output. Out: returns, or entry_fail. Clobbers: rax, rcx, rdx, rsi. Interrupts: off. Stack: none.
    """
    code = "".join(
        f"""
            lea     rsi, [rip + text_params_{name}]
            {value}
            {limit}
            {test}
            {jump}  entry_fail"""
        for name, _, value, limit, test, jump in CHECKS
    )
    texts = "".join(
        f"""
    text_params_{name}:
            .asciz  "sidecar params: {text}\""""
        for name, text, *_ in CHECKS
    )
    return f"""
    check_params:{code}
            ret
            .section .rodata{texts}
    """


def keep_params() -> str:
    """Copy what is needed after the entry has returned.

    In: r15 params, r14 output. Clobbers: rax. Interrupts: off. Stack: none.
    """
    return """
    keep_params:
            mov     eax, dword ptr [r15 + SidecarParams.node_count]
            mov     dword ptr [rip + node_count], eax
            mov     eax, dword ptr [r15 + SidecarParams.cpu_map_count]
            mov     dword ptr [rip + cpu_count], eax
            mov     rax, qword ptr [r15 + SidecarParams.trampoline_pa]
            shr     rax, 12
            or      eax, Icr.STARTUP
            mov     dword ptr [rip + startup_command], eax
            mov     eax, dword ptr [r15 + SidecarParams.flags]
            and     eax, ParamsFlags.ALLOW_RAISE
            mov     dword ptr [rip + raise_allowed], eax
            movzx   eax, byte ptr [r15 + SidecarParams.enable_logging]
            mov     dword ptr [rip + log_requests], eax
            test    eax, eax
            je      .quiet
            movzx   eax, word ptr [r15 + SidecarParams.log_port]
    .quiet: mov     dword ptr [rip + log_port], eax
            mov     dword ptr [r14 + SidecarOutput.abi_version], ABI_VERSION
            mov     rax, ABI_HASH
            mov     qword ptr [r14 + SidecarOutput.abi_hash], rax
            lea     rax, [rip + __ehdr_start]
            mov     qword ptr [r14 + SidecarOutput.image_pa], rax
            lea     rax, [rip + _end]
            sub     rax, qword ptr [r14 + SidecarOutput.image_pa]
            mov     qword ptr [r14 + SidecarOutput.image_bytes], rax
            ret
            .section .bss
            .align  8
    node_count:
            .zero   4
    cpu_count:
            .zero   4
    startup_command:                                # low half of the ICR for SIPI
            .zero   4
    raise_allowed:
            .zero   4
    log_requests:                                   # each command is logged
            .zero   4
    log_port:                                       # I/O base of the serial log, 0 for none
            .zero   4
    """


ROUTINES = (check_params, keep_params)
