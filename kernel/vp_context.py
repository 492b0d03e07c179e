"""The registers that VMRUN does not switch: x87, SSE and AVX state, XCR0, debug addresses, TSC_AUX.

Loaded when a run begins and stored when it ends, not at each exit: the sidecar itself uses none of them in between. So
the guest's XCR0 is live while its exits are handled.

Ref: SDM vol. 1, 13.4 to 13.8 (XSAVE, XRSTOR: what makes them fault), 10.2.3 (MXCSR); APM vol. 2, 15.5.1 (state that
VMRUN does not load).
"""

from sidecar.layout.command import VP_REGISTERS

DEBUG_ADDRESSES = 4
GUEST_COMPONENTS = 0x2FF
"""State components that a guest may have: x87, SSE, AVX, MPX, AVX-512, PKRU. They fit into XSAVE_PAGES."""

_INDEX = {register.name.removeprefix("HvX64Register"): n for n, register in enumerate(VP_REGISTERS)}


def vp_register(name: str) -> str:
    """Text: the memory operand of a register in VP_REGISTERS, by its name without HvX64Register."""
    return f"qword ptr [rip + vp_globals + VpGlobals.registers + {8 * _INDEX[name]}]"


def reset_xsave() -> str:
    """Clear the XSAVE image to the initial configuration, and find out which components there are.

    In: nothing. Clobbers: rax, rcx, rdx, rdi. Interrupts: off. Stack: none.
    """
    return f"""
    reset_xsave:
            lea     rdi, [rip + vp_xsave]
            xor     eax, eax
            mov     ecx, XSAVE_PAGES * PAGE_SIZE // 8
            rep stosq
            lea     rdi, [rip + vp_xsave]
            fxsave64 [rdi]
            mov     eax, dword ptr [rdi + {28}]     # MXCSR_MASK
            test    eax, eax
            jne     .mask
            mov     eax, 0xffbf                     # what a CPU without the field means
    .mask:  mov     dword ptr [rip + vp_globals + VpGlobals.vp.mxcsr_mask], eax
            xor     eax, eax
            mov     ecx, 512 // 8
            rep stosq
            mov     rax, cr4
            test    eax, Cr4.OSXSAVE
            je      .done
            xor     ecx, ecx
            xgetbv
            shl     rdx, 32
            or      rax, rdx
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.host_xcr0], rax
            and     eax, {GUEST_COMPONENTS:#x}
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.xcr0_mask], rax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.xcr0], 1
    .done:  ret
    """


def reset_context() -> str:
    """Put the registers after RESET into the command page, for the client to change before the first run.

    In: own tables. Clobbers: rax, rcx, rdx, rdi. Interrupts: off. Stack: 8 bytes.
    Ref: SDM vol. 3A, table 10-1; FNINIT's control word, as KVM and Linux have it.
    """
    return """
    reset_context:
            lea     rdi, [rip + command_page + CommandPage.cpu_context]
            xor     eax, eax
            mov     ecx, CpuContextX64.SIZE // 8
            rep stosq
            push    rbx
            mov     eax, Cpuid.FEATURES
            cpuid
            pop     rbx
            mov     dword ptr [rip + command_page + CommandPage.cpu_context.gps + 8 * 2], eax   # RDX: signature
            mov     word ptr [rip + command_page + CommandPage.cpu_context.fx_state], Fcw.INITIAL
            mov     dword ptr [rip + command_page + CommandPage.cpu_context.fx_state + 24], Mxcsr.RESET
            ret
    """


def load_context() -> str:
    """Guest's extended state, debug addresses and TSC_AUX into the CPU.

    In: a virtual processor. Clobbers: rax, rcx, rdx, rsi, rdi. Interrupts: off. Stack: none.
    """
    debug = "".join(
        f"""
            mov     rax, {vp_register(f"Dr{n}")}
            mov     dr{n}, rax"""
        for n in range(DEBUG_ADDRESSES)
    )
    return f"""
    load_context:
            lea     rsi, [rip + command_page + CommandPage.cpu_context.fx_state]
            lea     rdi, [rip + vp_xsave]
            mov     ecx, 512 // 8
            rep movsq
            lea     rdi, [rip + vp_xsave]
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.mxcsr_mask]
            and     dword ptr [rdi + {24}], eax     # other bits would fault
            or      qword ptr [rdi + XsaveHeader.xstate_bv], 3  # the legacy part is given
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.xcr0_mask]
            xor     edx, edx
            test    eax, eax
            je      .legacy
            xrstor64 [rdi]
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.xcr0]
            xor     ecx, ecx
            xsetbv
            jmp     .debug
    .legacy:
            fxrstor64 [rdi]
    .debug:{debug}
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.tsc_aux]
            test    eax, eax
            je      .done                           # the sidecar's is 0
            xor     edx, edx
            mov     ecx, Msr.TSC_AUX
            wrmsr
    .done:  ret
    """


def store_context() -> str:
    """The reverse of load_context, and the sidecar's own values back.

    In: a virtual processor. Clobbers: rax, rcx, rdx, rsi, rdi. Interrupts: off. Stack: none.
    """
    debug = "".join(
        f"""
            mov     rcx, dr{n}
            mov     {vp_register(f"Dr{n}")}, rcx
            mov     dr{n}, rax"""
        for n in range(DEBUG_ADDRESSES)
    )
    return f"""
    store_context:
            lea     rdi, [rip + vp_xsave]
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.host_xcr0]
            test    eax, eax
            je      .legacy
            mov     edx, dword ptr [rip + vp_globals + VpGlobals.vp.host_xcr0 + 4]
            xor     ecx, ecx
            xsetbv
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.xcr0_mask]
            xor     edx, edx
            xsave64 [rdi]
            jmp     .copy
    .legacy:
            fxsave64 [rdi]
    .copy:  mov     rsi, rdi
            lea     rdi, [rip + command_page + CommandPage.cpu_context.fx_state]
            mov     ecx, 512 // 8
            rep movsq
            xor     eax, eax{debug}
            cmp     dword ptr [rip + vp_globals + VpGlobals.vp.tsc_aux], 0
            je      .done
            xor     edx, edx
            mov     ecx, Msr.TSC_AUX
            wrmsr
    .done:  ret
    """


ROUTINES = (reset_xsave, reset_context, load_context, store_context)
