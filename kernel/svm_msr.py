"""RDMSR and WRMSR of the guest: what the sidecar knows, it finishes; the rest is the VMM's.

All MSRs are state of the virtual processor: nothing here touches the physical CPU's, but for TSC_AUX, which is the
guest's while a run lasts. A value that a processor would refuse raises #GP in the guest. Those that VMLOAD and VMSAVE
exchange do not come here: `layout/msr_map.py` lets the guest use them.

Ref: SDM vol. 4; AMD64 APM vol. 2, 3.1.7 (EFER), 7.8.2 (PAT), 7.7 (MTRRs and their types).
"""

from enum import IntEnum

from sidecar.kernel.svm_messages import PAYLOAD
from sidecar.kernel.svm_state import GENERAL_PROTECTION
from sidecar.layout.command import VP_REGISTERS
from sidecar.layout.private import VpGlobals
from sidecar.layout.svm import Vmcb
from sidecar.layout.x86 import Msr


class Kind(IntEnum):
    """How an MSR is kept; the table's `where` is an offset."""

    REGISTER = 0
    """One of VP_REGISTERS, with the bits that may be set; `where` is its index."""
    EFER = 1
    """`where` is its offset in the VMCB, as PAT's."""
    PAT = 2
    TSC = 3
    TSC_AUX = 4
    MTRR_TYPE = 5
    """A REGISTER whose low byte is a memory type."""
    MTRR_TYPES = 6
    """A REGISTER of eight memory types."""


_INDEX = {register.name.removeprefix("HvX64RegisterMsrMtrr"): n for n, register in enumerate(VP_REGISTERS)}
_FIXED_RANGES = {
    Msr.MTRR_FIX64K_00000: "Fix64k00000",
    Msr.MTRR_FIX16K_80000: "Fix16k80000",
    Msr.MTRR_FIX16K_A0000: "Fix16kA0000",
    **{Msr.MTRR_FIX4K_C0000 + n: f"Fix4k{0xC0000 + 0x8000 * n:X}" for n in range(8)},
}

MSRS: dict[int, tuple[Kind, int]] = {
    Msr.TSC: (Kind.TSC, 0),
    Msr.PAT: (Kind.PAT, Vmcb.g_pat),
    Msr.EFER: (Kind.EFER, Vmcb.efer),
    Msr.TSC_AUX: (Kind.TSC_AUX, 0),
    Msr.MTRR_CAP: (Kind.REGISTER, _INDEX["Cap"]),
    Msr.MTRR_DEF_TYPE: (Kind.MTRR_TYPE, _INDEX["DefType"]),
    **{Msr.MTRR_PHYS_BASE0 + 2 * n: (Kind.MTRR_TYPE, _INDEX[f"PhysBase{n}"]) for n in range(8)},
    **{Msr.MTRR_PHYS_BASE0 + 2 * n + 1: (Kind.REGISTER, _INDEX[f"PhysMask{n}"]) for n in range(8)},
    **{number: (Kind.MTRR_TYPES, _INDEX[name]) for number, name in _FIXED_RANGES.items()},
}
"""Every MSR that is finished here, with its kind and place."""

PAT_TYPES = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7
"""Memory types that a byte of PAT may have."""

MTRR_TYPES = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6
"""Memory types that an MTRR may have."""

EFER_WRITABLE = "(Efer.SCE | Efer.LME | Efer.NXE)"
REGISTERS = int(VpGlobals.registers)


def exit_msr() -> str:
    """RDMSR or WRMSR: EXITINFO1 says which.

    In: the VMCB. Out: eax 0 or 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 8 bytes and those of its callees.
    """
    rows = "".join(
        f"""
            .long   {number:#x}, {int(kind)}, {int(where)}"""
        for number, (kind, where) in MSRS.items()
    )
    return f"""
    exit_msr:
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 1]
            lea     rsi, [rip + msr_table]
            mov     eax, {len(MSRS)}
    .find:  cmp     dword ptr [rsi], ecx
            je      .found
            add     rsi, 12
            dec     eax
            jne     .find
            jmp     msr_message
    .found: mov     r8d, dword ptr [rsi + 8]        # where
            mov     r9d, dword ptr [rsi + 4]        # Kind
            cmp     dword ptr [rip + vp_vmcb + Vmcb.exit_info_1], 0
            jne     .write
            call    read_msr
            mov     edx, eax
            shr     rax, 32
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.gps], rdx
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 2], rax
            jmp     exit_two_bytes
    .write: mov     edx, dword ptr [rip + vp_globals + VpGlobals.vp.gps]
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 2]
            shl     rax, 32
            or      rdx, rax
            call    write_msr
            test    eax, eax
            je      exit_two_bytes
            mov     edi, {GENERAL_PROTECTION:#x}
            jmp     raise_in_guest
            .section .rodata
            .align  4
    msr_table:                                      # number, Kind, where{rows}
    """


def msr_message() -> str:
    """An MSR that the VMM has to know.

    In: the VMCB. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 8 bytes and those of its callees.
    """
    return f"""
    msr_message:
            call    instruction_length
            mov     ecx, eax
            mov     edi, HvMessageType.X64_MSR_INTERCEPT
            mov     esi, MsrMessage.SIZE
            mov     edx, dword ptr [rip + vp_vmcb + Vmcb.exit_info_1]   # READ 0, WRITE 1
            and     edx, 1
            call    begin_message
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps]
            mov     qword ptr [{PAYLOAD} + MsrMessage.rax], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 2]
            mov     qword ptr [{PAYLOAD} + MsrMessage.rdx], rax
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 1]
            mov     dword ptr [{PAYLOAD} + MsrMessage.msr], eax
            mov     eax, 1
            ret
    """


def read_msr() -> str:
    """The value of an MSR in the table.

    In: r8 where, r9d Kind. Out: rax value. Clobbers: rcx, rdx. Interrupts: off. Stack: none.
    """
    return """
    read_msr:
            cmp     r9d, Kind.REGISTER
            je      .register
            cmp     r9d, Kind.MTRR_TYPE
            jae     .register                       # or MTRR_TYPES
            cmp     r9d, Kind.TSC
            je      .tsc
            cmp     r9d, Kind.TSC_AUX
            je      .aux
            lea     rax, [rip + vp_vmcb]
            mov     rax, qword ptr [rax + r8]
            cmp     r9d, Kind.EFER
            jne     .done
            and     eax, ~Efer.SVME                 # its upper half is zero
    .done:  ret
    .register:
            lea     rax, [rip + vp_globals + VpGlobals.registers]
            mov     rax, qword ptr [rax + r8*8]
            ret
    .tsc:   rdtsc
            shl     rdx, 32
            or      rax, rdx
            add     rax, qword ptr [rip + vp_vmcb + Vmcb.tsc_offset]
            ret
    .aux:   mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.tsc_aux]
            ret
    """


def write_msr() -> str:
    """Set an MSR in the table.

    In: r8 where, r9d Kind, rdx value. Out: eax 0, or 1 if a processor would refuse the value.
    Clobbers: rcx, rdx, rsi. Interrupts: off. Stack: 8 bytes.
    """
    return f"""
    write_msr:
            lea     rsi, [rip + vp_vmcb]
            add     rsi, r8
            lea     rcx, [rip + write_kinds]
            movsxd  rax, dword ptr [rcx + r9*4]
            add     rax, rcx
            jmp     rax
    .vmcb:  mov     qword ptr [rsi], rdx
            xor     eax, eax
            ret
    .mtrr_type:
            push    rdi
            mov     edi, 1
            jmp     .mtrr
    .mtrr_types:
            push    rdi
            mov     edi, 8
    .mtrr:  mov     rax, rdx
    .each:  movzx   ecx, al
            cmp     ecx, 7
            ja      .bad_type
            push    rax
            mov     eax, {MTRR_TYPES:#x}
            bt      eax, ecx
            pop     rax
            jae     .bad_type
            shr     rax, 8
            dec     edi
            jne     .each
            pop     rdi
    .register:
            lea     rcx, [rip + vp_register_writable]
            mov     rax, qword ptr [rcx + r8*8]
            test    rax, rax
            je      .refuse                         # read-only
            not     rax
            test    rax, rdx
            jne     .refuse
            lea     rcx, [rip + vp_globals + VpGlobals.registers]
            mov     qword ptr [rcx + r8*8], rdx
            xor     eax, eax
            ret
    .efer:  mov     eax, ~({EFER_WRITABLE} | Efer.LMA) & 0xffffffff
            mov     rcx, rdx
            shr     rcx, 32
            jne     .refuse
            test    edx, eax
            jne     .refuse
            mov     ecx, dword ptr [rsi]
            mov     eax, ecx
            xor     eax, edx
            test    eax, Efer.LME
            je      .same_mode
            test    dword ptr [rip + vp_vmcb + Vmcb.cr0], Cr0.PG
            jne     .refuse                         # not while paging is on
    .same_mode:
            and     ecx, Efer.LMA
            and     edx, {EFER_WRITABLE}
            lea     edx, [rdx + rcx + Efer.SVME]
            jmp     .vmcb
    .pat:   mov     rax, rdx
            push    rdi
            mov     edi, 8
    .type:  movzx   ecx, al
            cmp     ecx, 7
            ja      .bad_type
            push    rax
            mov     eax, {PAT_TYPES:#x}
            bt      eax, ecx
            pop     rax
            jae     .bad_type
            shr     rax, 8
            dec     edi
            jne     .type
            pop     rdi
            jmp     .vmcb
    .bad_type:
            pop     rdi
    .refuse:
            mov     eax, 1
            ret
    .tsc:   mov     rsi, rdx
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            sub     rsi, rax
            mov     qword ptr [rip + vp_vmcb + Vmcb.tsc_offset], rsi
            xor     eax, eax
            ret
    .aux:   mov     rax, rdx
            shr     rax, 32
            jne     .refuse
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.tsc_aux], rdx
            mov     eax, edx
            xor     edx, edx
            mov     ecx, Msr.TSC_AUX
            wrmsr                                   # the guest's while the run lasts
            xor     eax, eax
            ret
            .section .rodata
            .align  4
    write_kinds:                                    # by Kind
            .long   .register - write_kinds, .efer - write_kinds, .pat - write_kinds, .tsc - write_kinds
            .long   .aux - write_kinds, .mtrr_type - write_kinds, .mtrr_types - write_kinds
    """


ROUTINES = (exit_msr, msr_message, read_msr, write_msr)
