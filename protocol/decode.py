"""Pages as plain data, ready for JSON: numbers as integers, enumerations as their names in lower case.

Host side. A value that no enumeration has is shown as `unknown 0x…`, never refused: a decoder is for pages that are
wrong, too. Each function takes the page's bytes; `render` makes text of what they return.

Ref: SDM vol. 3A, 6.13 (error codes) and 4.7 (page-fault error code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, TypeAlias

from sidecar.layout import BootPhase, ControlPage, CpuStatus, DiagnosticPage, LogRing, SidecarCommand
from sidecar.layout.address_map import IMAGE_MAX_BYTES, IMAGE_VA
from sidecar.layout.diagnostics import LOG_TEXT_BYTES
from sidecar.layout.x86 import MNEMONICS, VECTORS_WITH_ERROR_CODE, Vector
from sidecar.protocol.fault import REGISTER_NAMES

Decoded: TypeAlias = dict[str, Any]

Resolver: TypeAlias = Callable[[int], str]
"""Offset in the image to `routine+0x12, line 7: 'text'`."""


def name_of(kind: type[IntEnum], value: int) -> str:
    """The member's name in lower case, or `unknown 0x…`.

    >>> name_of(CpuStatus, 1), name_of(CpuStatus, 77)
    ('idle', 'unknown 0x4d')
    """
    value = int(value)
    return kind(value).name.lower() if value in list(kind) else f"unknown {value:#x}"


def control_page(page: bytes) -> Decoded:
    """Every field, and the CPUs by Linux number with their status.

    `beyond` has status bytes behind the node's CPUs that are not REMOVED: there should be none.
    """
    parsed = ControlPage.parse(page)
    plain = ("index", "base_cpu", "cpu_count", "request_vector", "response_cpu", "response_vector", "needs_attention",
             "abi_version", "abi_hash")
    status = list(parsed.cpu_status)
    count = min(parsed.cpu_count, len(status))
    return {
        **{name: int(parsed[name]) for name in plain},
        "cpus": [
            {"linux_number": parsed.base_cpu + index, "index": index, "status": name_of(CpuStatus, status[index])}
            for index in range(count)
        ],
        "beyond": [
            {"index": index, "status": name_of(CpuStatus, status[index])}
            for index in range(count, len(status)) if status[index] != CpuStatus.REMOVED
        ],
    }


def boot_record(page: bytes, *, first_init_tsc: int, tsc_khz: int) -> Decoded:
    """A diagnostic page's boot record; phases in microseconds since the first INIT, None where not reached.

    All phases are None while the CPU has never arrived, or if the TSC's frequency is not known.
    """
    boot = DiagnosticPage.parse(page).boot
    valid = boot.arrivals and tsc_khz
    return {
        "arrivals": int(boot.arrivals),
        "apic_id": int(boot.apic_id),
        "linux_number": int(boot.linux_number),
        "started_by_it": int(boot.started_by_it),
        "phases": {
            phase.name.lower(): round((stamp - first_init_tsc) * 1000 / tsc_khz, 3) if valid and stamp else None
            for phase, stamp in zip(BootPhase, boot.stamps, strict=False)
        },
    }


def fault_record(page: bytes, resolve: Resolver | None = None) -> Decoded:
    """A diagnostic page's fault record; only `count` while there was no fault.

    `where` says where rip is, if it is in the image and `resolve` is given. A nested fault has no valid registers.
    """
    fault = DiagnosticPage.parse(page).fault
    if not fault.count:
        return {"count": 0}
    vector = int(fault.vector)
    plain = ("cs", "rflags", "rsp", "ss", "cr0", "cr3", "cr4", "dr6")
    saved = {} if fault.nested else {
        **{name: int(fault[name]) for name in plain},
        "registers": dict(zip(REGISTER_NAMES, map(int, fault.registers), strict=True)),
        "status": name_of(CpuStatus, fault.status),
        "command": name_of(SidecarCommand, fault.command),
    }
    return {
        "count": int(fault.count),
        "tsc": int(fault.tsc),
        "vector": vector,
        "exception": MNEMONICS.get(vector, f"vector {vector:#x}"),
        "nested": bool(fault.nested),
        "error_code": int(fault.error_code),
        "error_bits": error_bits(vector, int(fault.error_code)),
        "rip": int(fault.rip),
        "where": _where(int(fault.rip), resolve),
        "cr2": int(fault.cr2),
        **saved,
    }


def error_bits(vector: int, error_code: int) -> list[str]:
    """What an error code says, in words.

    >>> error_bits(Vector.PAGE_FAULT, 2), error_bits(Vector.GENERAL_PROTECTION, 0x32)
    (['page not present', 'write', 'supervisor'], ['IDT gate 0x6'])
    """
    if vector == Vector.PAGE_FAULT:
        return list(_page_fault_bits(error_code))
    if vector not in VECTORS_WITH_ERROR_CODE or not error_code:
        return []
    table = "IDT gate" if error_code & 2 else "LDT selector" if error_code & 4 else "GDT selector"
    number = error_code >> 3 if error_code & 2 else error_code & 0xFFF8
    return [f"{table} {number:#x}"] + ["external event"] * (error_code & 1)


def _page_fault_bits(code: int) -> Iterator[str]:
    yield "protection violation" if code & 1 else "page not present"
    yield "instruction fetch" if code & 0x10 else "write" if code & 2 else "read"
    yield "user" if code & 4 else "supervisor"
    for bit, meaning in ((3, "reserved bit set"), (5, "protection key"), (6, "shadow stack"), (15, "SGX")):
        if code >> bit & 1:
            yield meaning


def _where(rip: int, resolve: Resolver | None) -> str | None:
    offset = rip - IMAGE_VA
    return resolve(offset) if resolve is not None and 0 <= offset < IMAGE_MAX_BYTES else None


def counters(page: bytes) -> Decoded:
    """A diagnostic page's counters; of the stray interrupts only those that happened, by vector."""
    counted = DiagnosticPage.parse(page).counters
    return {
        **{name: int(counted[name]) for name in ("commands", "requests", "spurious", "errors", "removals", "timer")},
        "stray": {f"{vector:#x}": int(count) for vector, count in enumerate(counted.stray) if count},
    }


def log_ring(page: bytes) -> Decoded:
    """A CPU's log, oldest line first; `cut` says that the oldest line, or what was before it, is overwritten.

    The last line may still be growing: then `open` is true.
    """
    ring = LogRing.parse(page)
    written = int(ring.written)
    if written <= LOG_TEXT_BYTES:
        text = ring.text[:written]
    else:
        start = written % LOG_TEXT_BYTES
        text = ring.text[start:] + ring.text[:start]
    lines = text.decode("utf-8", "replace").split("\n")
    is_open = bool(lines.pop()) if text.endswith(b"\n") or not text else True
    return {"written": written, "cut": written > LOG_TEXT_BYTES, "open": is_open, "lines": lines}
