"""Intercept messages from the VMCB: their head, and those that need nothing else.

Every message is built over zeros, in the command page, which is the CPU's during a run.

Ref: TLFS, "Intercepts"; AMD64 APM vol. 2, 15.7 (state saved on exit).
"""

MESSAGE = "command_page + CommandPage.intercept_message"
PAYLOAD = f"rip + {MESSAGE}.payload"


def begin_message() -> str:
    """Write the head of a message: type, size, and the header with the guest's CS, RIP, RFLAGS and state.

    In: edi HvMessageType, esi bytes of the payload, edx HvInterceptAccess, ecx bytes of the instruction or 0.
    Clobbers: rax, rcx, rdx, rsi, rdi, r8. Interrupts: off. Stack: 8 bytes and those of its callees.
    """
    return f"""
    begin_message:
            mov     r8d, edi
            mov     eax, ecx
            lea     rdi, [rip + {MESSAGE}]
            shl     edx, 8
            or      edx, eax                        # access type and length, as they lie side by side
            xor     eax, eax
            mov     ecx, HvMessage.SIZE // 8
            rep stosq
            mov     dword ptr [rip + {MESSAGE}.message_type], r8d
            mov     byte ptr [rip + {MESSAGE}.payload_size], sil
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.linux_number]
            mov     dword ptr [{PAYLOAD} + InterceptHeader.vp_index], eax
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.v_intr]
            and     eax, 15                         # V_TPR is CR8
            shl     eax, 4
            or      edx, eax
            mov     word ptr [{PAYLOAD} + InterceptHeader.instruction_length], dx
            call    execution_state
            mov     word ptr [{PAYLOAD} + InterceptHeader.execution_state], ax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            mov     qword ptr [{PAYLOAD} + InterceptHeader.rip], rax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rflags]
            mov     qword ptr [{PAYLOAD} + InterceptHeader.rflags], rax
            lea     rsi, [rip + vp_vmcb + Vmcb.cs]
            lea     rdi, [{PAYLOAD} + InterceptHeader.cs]
            jmp     store_segment
    """


def execution_state() -> str:
    """The guest's HvExecutionState.

    Out: eax. Clobbers: rcx. Interrupts: off. Stack: none.
    """
    return """
    execution_state:
            movzx   eax, byte ptr [rip + vp_vmcb + Vmcb.cpl]
            and     eax, HvExecutionState.CPL
            mov     ecx, dword ptr [rip + vp_vmcb + Vmcb.cr0]
            test    ecx, Cr0.PE
            je      .real
            or      eax, HvExecutionState.CR0_PE
    .real:  test    ecx, Cr0.AM
            je      .no_am
            or      eax, HvExecutionState.CR0_AM
    .no_am: test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LMA
            je      .no_lma
            or      eax, HvExecutionState.EFER_LMA
    .no_lma:
            test    byte ptr [rip + vp_vmcb + Vmcb.dr7], 0xff
            je      .no_debug
            or      eax, HvExecutionState.DEBUG_ACTIVE
    .no_debug:
            test    byte ptr [rip + vp_globals + VpGlobals.vp.pending_interruption], HvPendingInterruption.PENDING
            je      .nothing_pending
            or      eax, HvExecutionState.INTERRUPTION_PENDING
    .nothing_pending:
            test    byte ptr [rip + vp_vmcb + Vmcb.interrupt_shadow], 1
            je      .done
            or      eax, HvExecutionState.INTERRUPT_SHADOW
    .done:  ret
    """


def store_segment() -> str:
    """A VmcbSegment as HvX64SegmentRegister.

    In: rsi VmcbSegment, rdi HvX64SegmentRegister. Clobbers: rax, rcx. Interrupts: off. Stack: none.
    """
    return """
    store_segment:
            mov     rax, qword ptr [rsi + VmcbSegment.base]
            mov     qword ptr [rdi + HvX64SegmentRegister.base], rax
            mov     eax, dword ptr [rsi + VmcbSegment.limit]
            mov     dword ptr [rdi + HvX64SegmentRegister.limit], eax
            movzx   eax, word ptr [rsi + VmcbSegment.selector]
            mov     word ptr [rdi + HvX64SegmentRegister.selector], ax
            movzx   eax, word ptr [rsi + VmcbSegment.attributes]
            mov     ecx, eax
            and     eax, 0xff
            and     ecx, 0xf00
            shl     ecx, 4                          # over the place of the limit's bits
            or      eax, ecx
            mov     word ptr [rdi + HvX64SegmentRegister.attributes], ax
            ret
    """


def deliverable_message() -> str:
    """The guest can take what the VMM wanted to be told of.

    In: edi HvInterruptionType. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8. Interrupts: off.
    Stack: 16 bytes and those of its callees.
    """
    return f"""
    deliverable_message:
            push    rdi
            mov     edi, HvMessageType.X64_INTERRUPTION_DELIVERABLE
            mov     esi, InterruptionDeliverableMessage.SIZE
            mov     edx, HvInterceptAccess.EXECUTE
            xor     ecx, ecx
            call    begin_message
            pop     rax
            mov     byte ptr [{PAYLOAD} + InterruptionDeliverableMessage.deliverable_type], al
            mov     eax, 1
            ret
    """


def copy_instruction() -> str:
    """Put VpState.instruction into a message.

    In: rdi where. Out: eax valid bytes. Clobbers: rcx. Interrupts: off. Stack: none.
    """
    return """
    copy_instruction:
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.instruction]
            mov     rcx, qword ptr [rip + vp_globals + VpGlobals.vp.instruction + 8]
            mov     qword ptr [rdi], rax
            mov     qword ptr [rdi + 8], rcx
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count]
            ret
    """


ROUTINES = (begin_message, execution_state, store_segment, deliverable_message, copy_instruction)
