"""The flight recorder: the last events of a CPU, with their TSC, in its diagnostic page.

Written by the CPU itself, in place, without a lock; an entry is whole before the count says so. Any time, from outside:
`sidecar dump recorder`.
"""


def record(
    event: str, value: str, *, page: str = "rip + diagnostic_page", stamp: bool = True, scratch: str = "r8"
) -> str:
    """Text: write an entry. `value` is a 32-bit register that is not clobbered, or a constant.

    page: where the diagnostic page is; without `stamp`, edx:eax already has the TSC. Clobbers: rax, rcx, rdx, scratch.

    >>> print(record("COMMAND", "r9d", stamp=False).splitlines()[1].strip())
    mov     ecx, dword ptr [rip + diagnostic_page + DiagnosticPage.recorder.written]
    """
    recorder = f"{page} + DiagnosticPage.recorder"
    read_stamp = "\n            rdtsc" if stamp else ""
    return f"""{read_stamp}
            mov     ecx, dword ptr [{recorder}.written]
            and     ecx, RECORDER_ENTRIES - 1
            shl     ecx, 4                          # RecorderEntry.SIZE
            lea     {scratch}, [{recorder}.entries]
            add     {scratch}, rcx
            mov     dword ptr [{scratch} + RecorderEntry.tsc], eax
            mov     dword ptr [{scratch} + RecorderEntry.tsc + 4], edx
            mov     dword ptr [{scratch} + RecorderEntry.event], RecorderEvent.{event}
            mov     dword ptr [{scratch} + RecorderEntry.value], {value}
            inc     qword ptr [{recorder}.written]"""
