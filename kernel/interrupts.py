"""The 256 interrupt stubs, and the interrupts that are not faults: request, timer, spurious, stray.

Entered through the IDT, interrupts off. Interrupts are open in the park loop and at run_window, between two turns of a
guest. A handler goes back to run_window if it came from there, and else to the top of the park loop: an NMI in the
shadow of STI could otherwise swallow the wake-up between STI and HLT. RAX, RCX and RDX are free in both places.

Ref: SDM vol. 3A, 6.14.2 (64-bit stack frame), 11.8.5 (EOI), 11.9 (spurious interrupt).
"""

from sidecar.kernel.descriptors import STUB_BYTES
from sidecar.layout.abi import REQUEST_VECTOR, SPURIOUS_VECTOR, TIMER_VECTOR
from sidecar.layout.x86 import EXCEPTION_VECTORS, VECTORS_WITH_ERROR_CODE

HANDLERS = {REQUEST_VECTOR: "request", TIMER_VECTOR: "timer", SPURIOUS_VECTOR: "spurious"}

IN_SERVICE_MSR = 0x810 + SPURIOUS_VECTOR // 32
"""x2APIC in-service register with the bit of the spurious vector. Ref: SDM vol. 3A, table 11-6."""


def interrupt_stubs() -> str:
    """One stub per vector, STUB_BYTES apart: push an error code if the CPU did not, push the vector, go on.

    In: interrupt frame. Out: fault_entry, request, timer, spurious or stray. Interrupts: off. Stack: 16 bytes.
    """
    text = f"""
            .align  {STUB_BYTES}
    interrupt_stubs:"""
    for vector in range(256):
        target = HANDLERS.get(vector, "stray")
        if vector < EXCEPTION_VECTORS:
            target = "fault_entry"
            if vector not in VECTORS_WITH_ERROR_CODE:
                text += """
            push    0"""
        if vector not in HANDLERS:
            text += f"""
            push    {vector}"""
        text += f"""
            jmp     {target}
            .align  {STUB_BYTES}"""
    return text + "\n"


def request() -> str:
    """The driver's request: nothing is carried by it, the park loop and the run loop read everything again.

    In: interrupt frame. Out: park, or back. Interrupts: off.
    """
    return """
    request:
            inc     qword ptr [rip + diagnostic_page + DiagnosticPage.counters.requests]
    end_interrupt:
            xor     eax, eax
            xor     edx, edx
            mov     ecx, Msr.X2APIC_EOI
            wrmsr
    leave_interrupt:
            lea     rax, [rip + run_window]
            cmp     qword ptr [rsp], rax
            jb      park
            lea     rax, [rip + run_window_end]
            cmp     qword ptr [rsp], rax
            jae     park
            iretq
    """


def timer() -> str:
    """The CPU's own timer: the run loop compares the TSC.

    In: interrupt frame. Out: park, or back. Interrupts: off.
    """
    return """
    timer:  inc     qword ptr [rip + diagnostic_page + DiagnosticPage.counters.timer]
            jmp     end_interrupt
    """


def spurious() -> str:
    """The APIC's spurious interrupt: counted, and acknowledged only if somebody sent this very vector.

    A truly spurious one is not in service; one that was sent is, and would keep every later interrupt away.
    In: interrupt frame. Out: park, or back. Interrupts: off.
    """
    return f"""
    spurious:
            inc     qword ptr [rip + diagnostic_page + DiagnosticPage.counters.spurious]
            mov     ecx, {IN_SERVICE_MSR:#x}
            rdmsr
            bt      eax, SPURIOUS_VECTOR & 31
            jae     leave_interrupt
            jmp     end_interrupt
    """


def stray() -> str:
    """An interrupt that is nobody's: counted by vector and acknowledged.

    In: interrupt frame, vector on the stack. Out: park, or back. Interrupts: off.
    """
    return """
    stray:  pop     rax
            movzx   eax, al
            lea     rcx, [rip + diagnostic_page + DiagnosticPage.counters.stray]
            inc     dword ptr [rcx + rax*4]
            jmp     end_interrupt
    """


ROUTINES = (interrupt_stubs, request, timer, spurious, stray)
