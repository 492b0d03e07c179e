"""Atomic operations of the host on memory that it shares with a running machine.

Python has none, so these are a few machine instructions, made by our assembler at build time (`atomics_code`, generated
by `sidecar.builder.atomics`) and called through ctypes, which keeps the interpreter's lock: a call takes nanoseconds.

    status = AtomicU8(page, ControlPage.cpu_status + 3)
    if status.compare_exchange(CpuStatus.IDLE, CpuStatus.RUN) == CpuStatus.IDLE: ...

Loads and stores are single instructions on naturally aligned items, which x86-64 makes atomic and orders as a driver
needs it (loads with loads, stores with stores); compare_exchange and exchange are full barriers.
Ref: SDM vol. 3A, 8.1 "Locked Atomic Operations", 8.2.2 "Memory Ordering in P6 and More Recent Processor Families".
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

from sidecar.errors import UserError
from sidecar.protocol.atomics_code import CODE, ENTRIES


class AtomicsUnavailable(UserError):
    """This host cannot run the operations' machine code."""


class _Atomic:
    """One naturally aligned unsigned integer in `memory` at `offset`; keeps the memory's buffer alive.

    Raises ValueError if the item is not inside the memory, not aligned, or the memory is read-only.
    """

    __slots__ = ("_address", "_item")
    CTYPE: Any

    def __init__(self, memory: memoryview, offset: int) -> None:
        size = ctypes.sizeof(self.CTYPE)
        if memory.readonly:
            raise ValueError(f"the {size} bytes at {offset:#x} are read-only: nothing can be exchanged there")
        self._item = self.CTYPE.from_buffer(memory, offset)
        self._address = ctypes.addressof(self._item)
        if self._address % size:
            raise ValueError(f"the item at offset {offset:#x} is not aligned to its {size} bytes")


class AtomicU8(_Atomic):
    """A byte: a CPU's status."""

    __slots__ = ("_compare_exchange", "_load")
    CTYPE = ctypes.c_uint8

    def __init__(self, memory: memoryview, offset: int) -> None:
        super().__init__(memory, offset)
        self._load, self._compare_exchange = _operation("load_8"), _operation("compare_exchange_8")

    def load(self) -> int:
        return self._load(self._address)

    def compare_exchange(self, expected: int, new: int) -> int:
        """Stores `new` if the value is `expected`; returns the value found, so success is `== expected`."""
        return self._compare_exchange(self._address, expected, new)


class _Word(_Atomic):
    __slots__ = ("_exchange", "_load", "_store")
    BITS: int

    def __init__(self, memory: memoryview, offset: int) -> None:
        super().__init__(memory, offset)
        self._load = _operation(f"load_{self.BITS}")
        self._store = _operation(f"store_{self.BITS}")
        self._exchange = _operation(f"exchange_{self.BITS}")

    def load(self) -> int:
        return self._load(self._address)

    def store(self, value: int) -> None:
        self._store(self._address, value)

    def exchange(self, value: int) -> int:
        """Stores `value` and returns what stood there."""
        return self._exchange(self._address, value)


class AtomicU32(_Word):
    """Four bytes: needs_attention, head and tail of a ring."""

    __slots__ = ()
    CTYPE, BITS = ctypes.c_uint32, 32


class AtomicU64(_Word):
    """Eight bytes: response_cpu and response_vector together, an entry of a ring, a counter, a doorbell."""

    __slots__ = ("_or",)
    CTYPE, BITS = ctypes.c_uint64, 64

    def __init__(self, memory: memoryview, offset: int) -> None:
        super().__init__(memory, offset)
        self._or = _operation("or_64")

    def set_bits(self, bits: int) -> None:
        """ORs `bits` into the value."""
        self._or(self._address, bits)


_PROTOTYPES: dict[str, Any] = {
    "load_8": ctypes.PYFUNCTYPE(ctypes.c_uint8, ctypes.c_void_p),
    "compare_exchange_8": ctypes.PYFUNCTYPE(ctypes.c_uint8, ctypes.c_void_p, ctypes.c_uint8, ctypes.c_uint8),
    "load_32": ctypes.PYFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p),
    "store_32": ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32),
    "exchange_32": ctypes.PYFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32),
    "load_64": ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p),
    "store_64": ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64),
    "exchange_64": ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64),
    "or_64": ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64),
}


@cache
def _operation(name: str) -> Callable[..., int]:
    """The routine `name` as something that Python can call."""
    operation: Callable[..., int] = _PROTOTYPES[name](_code_address() + ENTRIES[name])
    return operation


_code: list[mmap.mmap] = []  # holds the pages for the life of the process


@cache
def _code_address() -> int:
    """Puts the code into pages of its own, writable first, then executable; never both."""
    if platform.machine() != "x86_64":
        raise AtomicsUnavailable(f"this host is {platform.machine()}: the machine's pages can be shared on x86_64 only")
    pages = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    pages.write(CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if mprotect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
        raise AtomicsUnavailable(
            f"this host forbids new executable pages (mprotect: {os.strerror(ctypes.get_errno())}); "
            "a security policy such as SELinux's execmem must allow them"
        )
    _code.append(pages)
    return address
