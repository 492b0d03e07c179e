"""The AMD back end: is SVM there, into and out of it, and the VMCB of a virtual processor after RESET.

Runs on the sidecar CPU inside a command, interrupts off. `svm_run` and the exits have files of their own.

Ref: AMD64 APM vol. 2, 15.4 (enabling SVM), 15.5, 15.25 (nested paging), 14.1.3 (state after RESET), appendix B.
"""

from dataclasses import dataclass

from sidecar.layout.svm import Intercept1, Intercept2, VIntr
from sidecar.layout.x86 import PAT_RESET_VALUE

INTERCEPTS_1 = (
    Intercept1.INTR | Intercept1.NMI | Intercept1.INIT | Intercept1.RDPMC | Intercept1.CPUID | Intercept1.RSM
    | Intercept1.INVD | Intercept1.PAUSE | Intercept1.HLT | Intercept1.INVLPGA | Intercept1.IOIO | Intercept1.MSR
    | Intercept1.SHUTDOWN
)
"""INVD would throw away the sidecar's stores. VINTR and IRET are added while somebody waits for them."""

INTERCEPTS_2 = (
    Intercept2.VMRUN | Intercept2.VMMCALL | Intercept2.VMLOAD | Intercept2.VMSAVE | Intercept2.STGI | Intercept2.CLGI
    | Intercept2.SKINIT | Intercept2.MONITOR | Intercept2.MWAIT | Intercept2.MWAIT_ARMED | Intercept2.XSETBV
    | Intercept2.RDPRU
)
"""The instructions of SVM itself work on host-physical addresses: none of them may run in a guest, which has SVME."""

INTERCEPTED_EXCEPTIONS = 1 << 1 | 1 << 17 | 1 << 18
"""#DB and #AC can be raised without end by their own delivery, and no interrupt gets through; #MC is the machine's."""


@dataclass(frozen=True, slots=True)
class Initial:
    """A field of the VMCB that is not zero after RESET."""

    field: str
    value: int
    bytes: int = 8


def _segment(name: str, attributes: int, selector: int = 0, base: int = 0) -> tuple[Initial, ...]:
    return (
        Initial(f"{name}.selector", selector, 2),
        Initial(f"{name}.attributes", attributes, 2),
        Initial(f"{name}.limit", 0xFFFF, 4),
        Initial(f"{name}.base", base),
    )


INITIAL: tuple[Initial, ...] = (
    Initial("intercept_misc1", int(INTERCEPTS_1), 4),
    Initial("intercept_misc2", int(INTERCEPTS_2), 4),
    Initial("asid", 1, 4),
    Initial("tlb_control", 1, 1),
    Initial("v_intr", int(VIntr.V_INTR_MASKING)),
    Initial("np_enable", 1),
    *_segment("cs", 0x9B, 0xF000, 0xFFFF0000),
    *(initial for name in ("es", "ss", "ds", "fs", "gs") for initial in _segment(name, 0x93)),
    *_segment("ldtr", 0x82),
    *_segment("tr", 0x8B),
    Initial("gdtr.limit", 0xFFFF, 4),
    Initial("idtr.limit", 0xFFFF, 4),
    Initial("efer", 1 << 12),
    Initial("cr0", 0x60000010),
    Initial("dr6", 0xFFFF0FF0),
    Initial("dr7", 0x400),
    Initial("rflags", 2),
    Initial("rip", 0xFFF0),
    Initial("g_pat", PAT_RESET_VALUE),
)
"""One address space id for the one guest of a CPU. Ref: APM vol. 2, table 14-1."""

_POINTERS = {8: "qword", 4: "dword", 2: "word", 1: "byte"}


def svm_probe() -> str:
    """Does this CPU have SVM with nested paging, and may it be used? Here stands the table of operations too.

    Ref: APM vol. 2, 15.4.
    Out: rsi 0, or a sentence whose argument is the command. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: 8 bytes.
    """
    return """
    svm_probe:
            push    rbx
            lea     rsi, [rip + text_no_svm]
            mov     eax, Cpuid.EXTENDED_MAX
            cpuid
            cmp     eax, Cpuid.SVM
            jb      .done
            mov     eax, Cpuid.EXTENDED_FEATURES
            cpuid
            bt      ecx, Cpuid.EXT_ECX_SVM_BIT
            jae     .done
            mov     eax, Cpuid.SVM
            cpuid
            test    edx, SvmFeature.NESTED_PAGING
            je      .done
            lea     rsi, [rip + text_svm_disabled]
            mov     ecx, Msr.VM_CR
            rdmsr
            test    eax, VmCr.SVMDIS
            jne     .done
            xor     esi, esi
    .done:  pop     rbx
            ret
            .section .data.rel.ro
            .align  8
    svm_operations:                                 # in the order of VpOperation
            .quad   svm_probe, svm_create, svm_destroy, svm_run
            .section .rodata
    text_no_svm:
            .asciz  "command %u: this CPU has no SVM with nested paging"
    text_svm_disabled:
            .asciz  "command %u: SVM is disabled by the firmware (VM_CR.SVMDIS)"
    """


def store_initial(initial: Initial) -> str:
    """Text: store a field of the VMCB at rdi. Clobbers: rax."""
    place, value = f"{_POINTERS[initial.bytes]} ptr [rdi + Vmcb.{initial.field}]", f"{initial.value:#x}"
    if initial.value < 1 << 31:
        return f"""
            mov     {place}, {value}"""
    register = "rax" if initial.bytes == 8 else "eax"
    return f"""
            mov     {register}, {value}
            mov     {place}, {register}"""


def svm_create() -> str:
    """Enable SVM on this CPU, keep the sidecar's state for VMLOAD, put the VMCB into its reset state.

    In: VP pages mapped at VP_VA, VpState.pages_pa. Clobbers: rax, rcx, rdx, rdi. Interrupts: off. Stack: none.
    """
    fields = "".join(store_initial(initial) for initial in INITIAL)
    return f"""
    svm_create:
            mov     ecx, Msr.EFER
            rdmsr
            or      eax, Efer.SVME
            wrmsr
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.pages_pa]
            lea     rdx, [rax + VpPage.VMCB * PAGE_SIZE]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.vmcb_pa], rdx
            add     rax, VpPage.HOST_SAVE * PAGE_SIZE
            mov     rdx, rax
            shr     rdx, 32
            mov     ecx, Msr.VM_HSAVE_PA
            wrmsr
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.pages_pa]
            add     rax, VpPage.HOST_VMCB * PAGE_SIZE
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.host_vmcb_pa], rax
            vmsave  rax
            lea     rdi, [rip + vp_vmcb]
            xor     eax, eax
            mov     ecx, PAGE_SIZE // 8
            rep stosq
            lea     rdi, [rip + vp_vmcb]{fields}
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            neg     rax
            mov     qword ptr [rdi + Vmcb.tsc_offset], rax      # the guest's TSC starts at 0
            ret
    """


def svm_destroy() -> str:
    """Disable SVM: nothing of it may be left for who has the CPU next, and GIF is 1.

    In: SVM enabled. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: none.
    """
    return """
    svm_destroy:
            stgi
            mov     ecx, Msr.VM_HSAVE_PA
            xor     eax, eax
            xor     edx, edx
            wrmsr
            mov     ecx, Msr.EFER
            rdmsr
            and     eax, ~Efer.SVME
            wrmsr
            ret
    """


ROUTINES = (svm_probe, svm_create, svm_destroy)
