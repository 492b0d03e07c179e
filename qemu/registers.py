"""A CPU's registers as QEMU sees them: the text of its monitor command `info registers`, read.

The sample below is shortened. In 32-bit code QEMU prints EIP and 8 digits, in 64-bit code RIP and 16:

    CPU#0
    RAX=0000000000000000 RBX=...
    RIP=0000000000100000 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1
    CS =0008 0000000000000000 ffffffff 00af9a00 DPL=0 CS64 [-R-]
    GDT=     ffffff8000201000 00000037
    CR0=80000011 CR2=0000000000000000 CR3=0000000000102000 CR4=00000020
    EFER=0000000000000500
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_VALUE = re.compile(r"\b([A-Z][A-Z0-9]*) *=([0-9a-f]+)\b")
_SEGMENT = re.compile(r"^([A-Z]{2,3}) *=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)
_TABLE = re.compile(r"^(GDT|IDT)= +([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DescriptorTable:
    """GDTR or IDTR."""

    base: int
    limit: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register with its hidden part."""

    selector: int
    base: int
    limit: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuRegisters:
    """What `info registers` shows of one CPU. `values` has every NAME=hex of it under QEMU's own name."""

    cpu: int
    rip: int
    rflags: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int
    gdt: DescriptorTable
    idt: DescriptorTable
    segments: Mapping[str, Segment]  # ES CS SS DS FS GS LDT TR
    halted: bool
    values: Mapping[str, int]


def parse_registers(text: str) -> tuple[CpuRegisters, ...]:
    """Every CPU in the output of `info registers` or `info registers -a`. Raises ValueError on other text."""
    pieces = re.split(r"^CPU#(\d+)\s*$", text, flags=re.MULTILINE)
    if len(pieces) < 3:
        raise ValueError(f"'info registers' shows no CPU: {text[:200]!r}")
    return tuple(_parse_cpu(int(cpu), body) for cpu, body in zip(pieces[1::2], pieces[2::2], strict=True))


def _parse_cpu(cpu: int, body: str) -> CpuRegisters:
    values = {name: int(value, 16) for name, value in _VALUE.findall(body)}
    segments = {name: Segment(*(int(part, 16) for part in parts)) for name, *parts in _SEGMENT.findall(body)}
    tables = {name: DescriptorTable(int(base, 16), int(limit, 16)) for name, base, limit in _TABLE.findall(body)}
    try:
        return CpuRegisters(
            cpu=cpu,
            rip=values["RIP"] if "RIP" in values else values["EIP"],
            rflags=values["RFL"] if "RFL" in values else values["EFL"],
            cr0=values["CR0"],
            cr2=values["CR2"],
            cr3=values["CR3"],
            cr4=values["CR4"],
            efer=values["EFER"],
            gdt=tables["GDT"],
            idt=tables["IDT"],
            segments=segments,
            halted=bool(values["HLT"]),
            values=values,
        )
    except KeyError as error:
        raise ValueError(f"'info registers' shows no {error.args[0]} for CPU {cpu}: {body[:400]!r}") from error
