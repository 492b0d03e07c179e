"""A contained fault, read from its CPU's FaultRecord.

Sample: `#PF (vector 14), error code 0x2, rip 0xffffff8000001234, cr2 0x1000, in command 0x100`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from sidecar.layout.diagnostics import DiagnosticPage, FaultRecord
from sidecar.layout.x86 import MNEMONICS, Vector

REGISTER_NAMES = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """FaultRecord's fields; `registers` by name. `count` is the CPU's number of faults since boot."""

    count: int
    tsc: int
    vector: int
    nested: bool
    error_code: int
    rip: int
    cs: int
    rflags: int
    rsp: int
    ss: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    dr6: int
    registers: dict[str, int]
    status: int
    command: int

    @classmethod
    def read(cls, diagnostic_page: memoryview) -> Self | None:
        """The last fault on a diagnostic page; None if there was none."""
        start = int(DiagnosticPage.fault)
        record: dict[str, Any] = FaultRecord.parse(diagnostic_page[start : start + FaultRecord.SIZE])
        if record["count"] == 0:
            return None
        values = {name: record[name] for name in cls.__dataclass_fields__}
        values["registers"] = dict(zip(REGISTER_NAMES, record["registers"], strict=True))
        values["nested"] = bool(record["nested"])
        return cls(**values)

    @property
    def mnemonic(self) -> str:
        """The manual's short name of the vector, such as #PF."""
        return MNEMONICS.get(self.vector, f"vector {self.vector:#x}")

    def __str__(self) -> str:
        where = f"{self.mnemonic} (vector {self.vector}), error code {self.error_code:#x}, rip {self.rip:#x}"
        if self.vector == Vector.PAGE_FAULT:
            where += f", cr2 {self.cr2:#x}"
        if self.command:
            where += f", in command {self.command:#x}"
        return where + (", while a fault was being handled" if self.nested else "")
