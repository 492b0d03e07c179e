"""Where GET_VP_REGISTERS and SET_VP_REGISTERS find each register, which bits SET may give, and what else it checks.

One row per register; the kernel's table, the tests' judge, the tools' names and the documentation are made of them.

Ref: TLFS, "Virtual Processor Registers"; AMD64 APM vol. 2, 3.1 (control registers), 4.8 (segment descriptors), 7.8.2
(PAT), 15.5 (VMCB); SDM vol. 1, 10.5.1 (FXSAVE image).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import reduce
from operator import or_

from sidecar.layout.address_map import IMAGE_VA, PER_CPU_VA, absolute_symbols
from sidecar.layout.command import VP_REGISTERS, CommandPage, CpuContextX64
from sidecar.layout.hv import (
    HvDeliverability,
    HvInterruptState,
    HvPendingEvent,
    HvPendingInterruption,
    HvX64SegmentAttribute,
)
from sidecar.layout.hv_registers import HvRegisterName
from sidecar.layout.private import VpGlobals, VpState
from sidecar.layout.svm import Vmcb
from sidecar.layout.x86 import ApicBase, Cr0, Cr4, Efer, Rflags


class RegisterRule(IntEnum):
    """How a register is kept, and what SET checks besides its bits; from WIDE on values have 128 bits."""

    PLAIN = 0
    """64 bits."""
    CANONICAL = 1
    """An address that is canonical with 57 bits."""
    CR0 = 2
    """PG needs PE, NW needs CD; EFER.LMA follows."""
    EFER = 3
    """SVME is kept set and hidden; LMA follows LME and CR0.PG, whatever is given."""
    PAT = 4
    """Eight memory types."""
    XCR0 = 5
    """State components that exist together."""
    TSC = 6
    """Kept as the difference from the CPU's."""
    BYTE = 7
    """The low byte of a word that has others."""
    INTERRUPT_STATE = 8
    """HvInterruptState, kept in two places."""
    PENDING_INTERRUPTION = 9
    """HvPendingInterruption: its type exists, an exception has an exception's vector."""
    WIDE = 16
    """128 bits."""
    PENDING_EVENT = 17
    """HvPendingEvent, as above."""
    SEGMENT = 18
    """HvX64SegmentRegister, kept as VmcbSegment."""
    STACK_SEGMENT = 19
    """The same; the current privilege level is its DPL."""
    TABLE = 20
    """HvX64TableRegister, kept as VmcbSegment."""


@dataclass(frozen=True, slots=True)
class Register:
    """One row: `offset` from the symbol of a page; bits of `fixed` are set whatever SET gives."""

    name: str
    number: int
    symbol: str
    offset: int
    rule: RegisterRule
    writable: int
    fixed: int = 0
    needs_vp: bool = True

    @property
    def place(self) -> int:
        """Offset from the start of the per-CPU pages."""
        return absolute_symbols()[self.symbol] + IMAGE_VA - PER_CPU_VA + self.offset

    @property
    def wide(self) -> bool:
        return self.rule >= RegisterRule.WIDE




def _every(kind: type[IntFlag]) -> int:
    """All bits of all members; a sum over the class leaves out those of several bits."""
    return reduce(or_, (int(member) for member in kind.__members__.values()))


_ALL = (1 << 64) - 1
_LOW = (1 << 32) - 1
_RFLAGS = 0x3F7FD7
_CR0 = Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.NW | Cr0.CD | Cr0.PG
_CR4 = _every(Cr4) & ~Cr4.CET  # its state is not switched
_EFER = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE
_PHYSICAL = (1 << 52) - 1
_APIC_BASE = _PHYSICAL & ~0xFFF | ApicBase.BSP | ApicBase.EN
_ATTRIBUTES = _every(HvX64SegmentAttribute)
_SEGMENT_HIGH = _ATTRIBUTES << 48 | 0xFFFF << 32 | _LOW
_INTERRUPTION = (
    HvPendingInterruption.PENDING | HvPendingInterruption.TYPE | HvPendingInterruption.DELIVER_ERROR_CODE
    | HvPendingInterruption.INSTRUCTION_LENGTH | 0xFF << 16 | _LOW << 32
)  # fmt: skip
_EVENT = HvPendingEvent.PENDING | HvPendingEvent.TYPE | HvPendingEvent.DELIVER_ERROR_CODE | 0xFFFFFE00 | _LOW << 32
_PATS = 0x0707070707070707

_FX = CommandPage.cpu_context + CpuContextX64.fx_state
_FX_ST0, _FX_XMM0 = 0x20, 0xA0
_GENERAL = ("Rax", "Rcx", "Rdx", "Rbx", "Rsp", "Rbp", "Rsi", "Rdi", *(f"R{n}" for n in range(8, 16)))


def _row(name: str, symbol: str, offset: int, rule: RegisterRule, writable: int, fixed: int = 0) -> Register:
    known = HvRegisterName[name]
    return Register(known.name, int(known), symbol, offset, rule, int(writable), int(fixed))


def _x64(name: str, symbol: str, offset: int, rule: RegisterRule, writable: int, fixed: int = 0) -> Register:
    return _row(f"HvX64Register{name}", symbol, offset, rule, writable, fixed)


def _vp(name: str) -> int:
    return int(VpGlobals.vp) + int(getattr(VpState, name))


def _without_a_guest() -> Iterator[Register]:
    for n, register in enumerate(VP_REGISTERS):
        offset = int(VpGlobals.registers) + 8 * n
        fixed = register.reset if register.writable else 0
        yield Register(
            register.name, register.number, "vp_globals", offset, RegisterRule.PLAIN, register.writable, fixed, False
        )


def _events() -> Iterator[Register]:
    plain, rule = RegisterRule.PLAIN, RegisterRule
    state = _every(HvInterruptState)
    yield _row("HvRegisterPendingInterruption", "vp_globals", _vp("pending_interruption"), rule.PENDING_INTERRUPTION,
               _INTERRUPTION)
    yield _row("HvRegisterInterruptState", "vp_vmcb", int(Vmcb.interrupt_shadow), rule.INTERRUPT_STATE, state)
    yield _row("HvRegisterPendingEvent0", "vp_globals", _vp("pending_event"), rule.PENDING_EVENT, _EVENT | _ALL << 64)
    yield _x64("DeliverabilityNotifications", "vp_globals", _vp("deliverability"), plain, _every(HvDeliverability))


def _general() -> Iterator[Register]:
    gps = int(CommandPage.cpu_context + CpuContextX64.gps)
    for n, name in enumerate(_GENERAL):
        if name == "Rsp":
            yield _x64(name, "vp_vmcb", int(Vmcb.rsp), RegisterRule.PLAIN, _ALL)
        else:
            yield _x64(name, "command_page", gps + 8 * n, RegisterRule.PLAIN, _ALL)
    yield _x64("Rip", "vp_vmcb", int(Vmcb.rip), RegisterRule.PLAIN, _ALL)
    yield _x64("Rflags", "vp_vmcb", int(Vmcb.rflags), RegisterRule.PLAIN, _RFLAGS, Rflags.FIXED)
    yield _x64("Cr2", "command_page", gps + 8 * 4, RegisterRule.PLAIN, _ALL)


def _floating_point() -> Iterator[Register]:
    for n in range(16):
        yield _x64(f"Xmm{n}", "command_page", _FX + _FX_XMM0 + 16 * n, RegisterRule.WIDE, _ALL << 64 | _ALL)
    for n in range(8):
        yield _x64(f"FpMmx{n}", "command_page", _FX + _FX_ST0 + 16 * n, RegisterRule.WIDE, 0xFFFF << 64 | _ALL)
    yield _x64("FpControlStatus", "command_page", _FX, RegisterRule.WIDE, _ALL << 64 | _ALL & ~(0xFF << 40))
    yield _x64("XmmControlStatus", "command_page", _FX + 16, RegisterRule.WIDE, (_LOW << 32 | 0xFFFF) << 64 | _ALL)


def _control() -> Iterator[Register]:
    rule = RegisterRule
    yield _x64("Cr0", "vp_vmcb", int(Vmcb.cr0), rule.CR0, _CR0, Cr0.ET)
    yield _x64("Cr3", "vp_vmcb", int(Vmcb.cr3), rule.PLAIN, _PHYSICAL)
    yield _x64("Cr4", "vp_vmcb", int(Vmcb.cr4), rule.PLAIN, _CR4)
    yield _x64("Cr8", "vp_vmcb", int(Vmcb.v_intr), rule.BYTE, 0xF)
    yield _x64("Xfem", "vp_globals", _vp("xcr0"), rule.XCR0, _LOW)


def _segments() -> Iterator[Register]:
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"):
        rule = RegisterRule.STACK_SEGMENT if name == "ss" else RegisterRule.SEGMENT
        base = _LOW if name in ("es", "cs", "ss", "ds") else _ALL
        yield _x64(name.title(), "vp_vmcb", int(getattr(Vmcb, name)), rule, _SEGMENT_HIGH << 64 | base)
    for name in ("idtr", "gdtr"):
        yield _x64(name.title(), "vp_vmcb", int(getattr(Vmcb, name)), RegisterRule.TABLE, _ALL << 64 | 0xFFFF << 48)


def _msrs() -> Iterator[Register]:
    rule = RegisterRule
    yield _x64("Tsc", "vp_vmcb", int(Vmcb.tsc_offset), rule.TSC, _ALL)
    yield _x64("Efer", "vp_vmcb", int(Vmcb.efer), rule.EFER, _EFER)
    yield _x64("KernelGsBase", "vp_vmcb", int(Vmcb.kernel_gs_base), rule.CANONICAL, _ALL)
    yield _x64("ApicBase", "vp_globals", _vp("apic_base"), rule.PLAIN, _APIC_BASE)
    yield _x64("Pat", "vp_vmcb", int(Vmcb.g_pat), rule.PAT, _PATS)
    yield _x64("SysenterCs", "vp_vmcb", int(Vmcb.sysenter_cs), rule.PLAIN, _LOW)
    yield _x64("SysenterEip", "vp_vmcb", int(Vmcb.sysenter_eip), rule.CANONICAL, _ALL)
    yield _x64("SysenterEsp", "vp_vmcb", int(Vmcb.sysenter_esp), rule.CANONICAL, _ALL)
    yield _x64("Star", "vp_vmcb", int(Vmcb.star), rule.PLAIN, _ALL)
    yield _x64("Lstar", "vp_vmcb", int(Vmcb.lstar), rule.CANONICAL, _ALL)
    yield _x64("Cstar", "vp_vmcb", int(Vmcb.cstar), rule.CANONICAL, _ALL)
    yield _x64("Sfmask", "vp_vmcb", int(Vmcb.sfmask), rule.PLAIN, _LOW)
    yield _x64("InitialApicId", "vp_globals", _vp("initial_apic_id"), rule.PLAIN, _LOW)
    yield _x64("TscAux", "vp_globals", _vp("tsc_aux"), rule.PLAIN, _LOW)


REGISTERS: tuple[Register, ...] = tuple(sorted(
    (*_without_a_guest(), *_events(), *_general(), *_floating_point(), *_control(), *_segments(), *_msrs()),
    key=lambda register: register.number,
))  # fmt: skip
"""Every register that GET and SET know, by number. HvRegisterInternalActivityState is none: the sidecar keeps no such
state, HLT and start-up are the VMM's."""

