"""The 256 interrupt stubs, and the interrupts that are not faults: request, spurious, stray.

Entered through the IDT, interrupts off. Interrupts are open only in the park loop, so every handler ends there: an
NMI in the shadow of STI could otherwise swallow the wake-up between STI and HLT.

Ref: SDM vol. 3A, 6.14.2 (64-bit stack frame), 11.8.5 (EOI), 11.9 (spurious interrupt).
"""

from sidecar.kernel.descriptors import STUB_BYTES
from sidecar.layout.abi import REQUEST_VECTOR, SPURIOUS_VECTOR
from sidecar.layout.x86 import EXCEPTION_VECTORS, VECTORS_WITH_ERROR_CODE

IN_SERVICE_MSR = 0x810 + SPURIOUS_VECTOR // 32
"""x2APIC in-service register with the bit of the spurious vector. Ref: SDM vol. 3A, table 11-6."""


def interrupt_stubs() -> str:
    """One stub per vector, STUB_BYTES apart: push an error code if the CPU did not, push the vector, go on.

    In: interrupt frame. Out: fault_entry, request, spurious or stray. Interrupts: off. Stack: 16 bytes.
    """
    text = f"""
            .align  {STUB_BYTES}
    interrupt_stubs:"""
    for vector in range(256):
        target = {REQUEST_VECTOR: "request", SPURIOUS_VECTOR: "spurious"}.get(vector, "stray")
        if vector < EXCEPTION_VECTORS:
            target = "fault_entry"
            if vector not in VECTORS_WITH_ERROR_CODE:
                text += """
            push    0"""
        if target not in ("request", "spurious"):
            text += f"""
            push    {vector}"""
        text += f"""
            jmp     {target}
            .align  {STUB_BYTES}"""
    return text + "\n"


def request() -> str:
    """The driver's request: nothing is carried by it, the park loop reads the status again.

    In: interrupt frame. Out: park. Interrupts: off.
    """
    return """
    request:
            inc     qword ptr [rip + diagnostic_page + DiagnosticPage.counters.requests]
            xor     eax, eax
            xor     edx, edx
            mov     ecx, Msr.X2APIC_EOI
            wrmsr
            jmp     park
    """


def spurious() -> str:
    """The APIC's spurious interrupt: counted, and acknowledged only if somebody sent this very vector.

    A truly spurious one is not in service; one that was sent is, and would keep every later interrupt away.
    In: interrupt frame. Out: park. Interrupts: off.
    """
    return f"""
    spurious:
            inc     qword ptr [rip + diagnostic_page + DiagnosticPage.counters.spurious]
            mov     ecx, {IN_SERVICE_MSR:#x}
            rdmsr
            bt      eax, SPURIOUS_VECTOR & 31
            jae     park
            xor     eax, eax
            xor     edx, edx
            mov     ecx, Msr.X2APIC_EOI
            wrmsr
            jmp     park
    """


def stray() -> str:
    """An interrupt that is nobody's: counted by vector and acknowledged.

    In: interrupt frame, vector on the stack. Out: park. Interrupts: off.
    """
    return """
    stray:  pop     rax
            movzx   eax, al
            lea     rcx, [rip + diagnostic_page + DiagnosticPage.counters.stray]
            inc     dword ptr [rcx + rax*4]
            xor     eax, eax
            xor     edx, edx
            mov     ecx, Msr.X2APIC_EOI
            wrmsr
            jmp     park
    """


ROUTINES = (interrupt_stubs, request, spurious, stray)
