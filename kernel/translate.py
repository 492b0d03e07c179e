"""TRANSLATE_GVA, and the bytes of the instruction at which the guest stands.

Runs as a command, or between two entries of the guest; see guest_walk. The client may change the page while the command
runs: the request is copied once, then checked, then used.

Ref: TLFS, HvCallTranslateVirtualAddress; OpenHCL `sidecar_defs::TranslateGvaRequest`.
"""

from sidecar.layout.hv import HvTranslateFlags

KNOWN_FLAGS = sum(flag for flag in HvTranslateFlags if flag is not HvTranslateFlags.INPUT_VTL)
SMAP_FLAGS = HvTranslateFlags.ENFORCE_SMAP | HvTranslateFlags.OVERRIDE_SMAP
INSTRUCTION_BYTES = 15
"""The longest instruction. Ref: SDM vol. 2A, 2.3.11."""


def translate_gva() -> str:
    """The command.

    In: eax command. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 208 bytes and those of its
    callees.
    """
    return f"""
    translate_gva:
            push    rbx
            push    rbp
            sub     rsp, 16 + GuestWalk.SIZE
            lea     rbp, [rsp + 16]
            mov     qword ptr [rsp], rax            # arguments of a sentence
            lea     rbx, [rip + command_page + CommandPage.request_data]
            mov     rax, qword ptr [rbx + TranslateGvaRequest.gvn]
            mov     rcx, qword ptr [rbx + TranslateGvaRequest.control_flags]
            mov     qword ptr [rsp + 8], rax
            shl     rax, 12
            mov     qword ptr [rbp + GuestWalk.linear], rax
            mov     qword ptr [rbp + GuestWalk.flags], rcx      # and modes, filled later
            mov     rdi, rbx
            xor     eax, eax
            mov     ecx, TranslateGvaResponse.SIZE // 8
            rep stosq
            call    prepare_vp
            mov     ecx, HvStatus.INVALID_VP_STATE
            test    rsi, rsi
            jne     .refused
            mov     ecx, HvStatus.INVALID_PARAMETER
            lea     rsi, [rip + text_translate_gvn]
            mov     rax, qword ptr [rsp + 8]
            shr     rax, 52
            jne     .refused
            lea     rsi, [rip + text_translate_flags]
            mov     rax, qword ptr [rbp + GuestWalk.flags]
            mov     qword ptr [rsp + 8], rax
            test    rax, ~{KNOWN_FLAGS:#x}
            jne     .refused
            and     eax, {SMAP_FLAGS:#x}
            cmp     eax, {SMAP_FLAGS:#x}
            je      .refused
            call    walk_guest
            mov     dword ptr [rbx + TranslateGvaResponse.result_code], eax
            call    drop_windows
            mov     ecx, HvStatus.INVALID_VP_STATE
            lea     rsi, [rip + text_translate_change]
            cmp     dword ptr [rbx + TranslateGvaResponse.result_code], GUEST_TABLES_CHANGE
            je      .refused
            mov     eax, dword ptr [rbp + GuestWalk.level]
            mov     word ptr [rbx + TranslateGvaResponse.level], ax
            mov     al, byte ptr [rbp + GuestWalk.cache_type]
            mov     byte ptr [rbx + TranslateGvaResponse.cache_type], al
            mov     rax, qword ptr [rbp + GuestWalk.event]
            mov     qword ptr [rbx + TranslateGvaResponse.event_info], rax
            mov     rax, qword ptr [rbp + GuestWalk.event + 8]
            mov     qword ptr [rbx + TranslateGvaResponse.event_info + 8], rax
            mov     rax, qword ptr [rbp + GuestWalk.gpa]
            shr     rax, 12
            mov     qword ptr [rbx + TranslateGvaResponse.gpa_page], rax
    .done:  add     rsp, 16 + GuestWalk.SIZE
            pop     rbp
            pop     rbx
            ret
    .refused:
            mov     dword ptr [rbx + TranslateGvaResponse.result_code], 0
            mov     word ptr [rbx + TranslateGvaResponse.status], cx
            mov     rdx, rsp
            call    command_error
            jmp     .done
            .section .rodata
    text_translate_gvn:
            .asciz  "command %u: page %x, expected less than 2^52"
    text_translate_flags:
            .asciz  "command %u: control flags %x are not known, or enforce and override SMAP at once"
    text_translate_change:
            .asciz  "command %u: the guest's page tables change all the time"
    """


def fetch_instruction() -> str:
    """Read the bytes at the guest's CS:RIP into VpState.instruction, as far as they are mapped, and drop the windows.

    Nothing is checked or marked: the processor has just fetched them. A page that is not mapped ends the bytes.
    In: a virtual processor whose guest has stopped. Out: VpState.instruction, instruction_count.
    Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 200 bytes and those of its callees.
    """
    return f"""
    fetch_instruction:
            push    rbx
            push    rbp
            sub     rsp, GuestWalk.SIZE
            mov     rbp, rsp
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count], 0
            mov     dword ptr [rbp + GuestWalk.flags], HvTranslateFlags.PRIVILEGE_EXEMPT
            mov     rbx, qword ptr [rip + vp_vmcb + Vmcb.rip]
    .page:  mov     qword ptr [rbp + GuestWalk.linear], rbx
            test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LMA
            je      .segment
            test    word ptr [rip + vp_vmcb + Vmcb.cs.attributes], VmcbAttribute.LONG
            jne     .linear
    .segment:
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.cs.base]
            add     eax, ebx                        # linear addresses of 32 bits
            mov     qword ptr [rbp + GuestWalk.linear], rax
    .linear:
            call    walk_guest
            test    eax, eax
            jne     .done
            mov     rsi, qword ptr [rbp + GuestWalk.va]
            mov     ecx, esi
            or      ecx, -PAGE_SIZE & 0xffffffff
            neg     ecx                             # bytes up to the end of the page
            mov     edx, dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count]
            test    edx, edx
            jne     .copy
            push    rsi
            push    rcx
            call    keep_code
            pop     rcx
            pop     rsi
            xor     edx, edx
    .copy:  mov     eax, {INSTRUCTION_BYTES}
            sub     eax, edx
            cmp     ecx, eax
            cmova   ecx, eax
            lea     rdi, [rip + vp_globals + VpGlobals.vp.instruction]
            add     rdi, rdx
            add     edx, ecx
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count], edx
            add     rbx, rcx
            rep movsb
            cmp     edx, {INSTRUCTION_BYTES}
            jb      .page
    .done:  call    drop_windows
            add     rsp, GuestWalk.SIZE
            pop     rbp
            pop     rbx
            ret
    """


ROUTINES = (translate_gva, fetch_instruction)
