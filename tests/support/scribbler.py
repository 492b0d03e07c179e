"""Somebody who writes into a page while a CPU works with it, at the full speed of a host core.

    with scribbled(memory[16:24], [bytes(8), b"\xff" * 8]):
        cpu.none()

The loop is machine code of our own assembler: stores by Python would wait for the interpreter's lock most of the time.
"""

import ctypes
import mmap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from sidecar.builder.asm import assemble


def scribble() -> str:
    """Copy every pattern in turn to the same place, until told to end. System V.

    In: rdi place, rsi patterns, rdx bytes of each, rcx how many, r8 address of a u32 that is 0 until the end.
    """
    return """
    scribble:
            mov     r9, rdi
            mov     r10, rsi
            mov     r11, rcx
    .again: mov     rsi, r10
            mov     rax, r11
    .next:  mov     rdi, r9
            mov     rcx, rdx
            rep movsb
            dec     rax
            jne     .next
            cmp     dword ptr [r8], 0
            je      .again
            ret
    """


@cache
def _code() -> mmap.mmap:
    """The routine on an executable page, which lives as long as the process."""
    linked = assemble([scribble], names={}).link({".text": 0}, allow_absolute=False)
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(linked.sections[".text"])
    return page


@contextmanager
def scribbled(view: memoryview, patterns: Sequence[bytes]) -> Iterator[None]:
    """Within the block every pattern in turn is written over `view`, again and again. All have the view's length."""
    if not patterns or any(len(pattern) != len(view) for pattern in patterns):
        raise ValueError(f"expected patterns of {len(view)} bytes")
    arguments = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
    routine = ctypes.CFUNCTYPE(None, *arguments)(ctypes.addressof(ctypes.c_char.from_buffer(_code())))
    place, over = (ctypes.c_char * len(view)).from_buffer(view), ctypes.c_uint32(0)
    writer = threading.Thread(
        target=routine,
        args=(ctypes.addressof(place), b"".join(patterns), len(view), len(patterns), ctypes.addressof(over)),
    )
    writer.start()
    try:
        yield
    finally:
        over.value = 1
        writer.join()
