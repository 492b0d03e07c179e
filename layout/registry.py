"""All layouts and enumerations that parties share, in the order of the documentation, and the ABI hash over them."""

from __future__ import annotations

import hashlib
import json
from enum import IntEnum, IntFlag
from functools import cache

from sidecar.layout import (
    abi,
    acpi,
    address_map,
    boot,
    command,
    control,
    diagnostics,
    guest_walk,
    hv,
    hv_messages,
    hv_registers,
    ioctl,
    params,
    private,
    register_table,
    run,
    svm,
    vmcb_rules,
)
from sidecar.layout.schema import Layout

SHARED: tuple[Layout, ...] = (
    params.PerCpuState,
    params.SidecarNodeParams,
    params.SidecarParams,
    params.CpuMapEntry,
    params.CommandError,
    params.SidecarNodeOutput,
    params.SidecarOutput,
    control.ControlPage,
    command.CpuContextX64,
    command.HvMessage,
    run.VpRun,
    command.CommandPage,
    command.GetSetVpRegisterRequest,
    command.HvRegisterAssoc,
    command.RaiseRequest,
    command.GapsAnswer,
    run.RunVpResponse,
    hv.HvX64SegmentRegister,
    hv.HvX64TableRegister,
    hv_messages.InterceptHeader,
    hv_messages.IoPortMessage,
    hv_messages.MsrMessage,
    hv_messages.CpuidMessage,
    hv_messages.MemoryMessage,
    hv_messages.ExceptionMessage,
    hv_messages.HaltMessage,
    hv_messages.UnrecoverableExceptionMessage,
    hv_messages.InvalidVpRegisterMessage,
    hv_messages.InterruptionDeliverableMessage,
    hv_messages.UnsupportedFeatureMessage,
    hv.TranslateGvaRequest,
    hv.TranslateGvaResponse,
    diagnostics.BootRecord,
    diagnostics.FaultRecord,
    diagnostics.Counters,
    diagnostics.RecorderEntry,
    diagnostics.Recorder,
    diagnostics.DiagnosticPage,
    diagnostics.LogRing,
    diagnostics.PrivilegedPage,
    acpi.Sdcr,
    acpi.SdcrNode,
    boot.TrampolinePage,
    boot.BundlePart,
    boot.Bundle,
    boot.RelayPage,
    ioctl.VpCreate,
    ioctl.Doorbell,
    ioctl.DoorbellFd,
    ioctl.MemoryMap,
    ioctl.MemoryUnmap,
)
"""Layouts that two parties share: they are in the C header and in the ABI hash."""

PRIVATE: tuple[Layout, ...] = (
    private.Tss, private.InterruptPage, private.VpState, private.VpGlobals, private.NodeState,
    vmcb_rules.VmcbTestEntry, guest_walk.GuestWalkEntry, guest_walk.GuestWalk,
)
EXTERNAL: tuple[Layout, ...] = (
    acpi.AcpiHeader,
    acpi.Rsdp,
    acpi.MadtLocalApic,
    acpi.MadtIoApic,
    acpi.MadtLocalX2Apic,
    acpi.SratLocalApic,
    acpi.SratLocalX2Apic,
    boot.HvmStartInfo,
    boot.HvmModule,
    boot.HvmMemoryMapEntry,
    svm.VmcbSegment,
    svm.Vmcb,
    svm.XsaveHeader,
)
ALL: tuple[Layout, ...] = SHARED + PRIVATE + EXTERNAL

ENUMS: tuple[type[IntEnum] | type[IntFlag], ...] = (
    params.CpuPolicy,
    params.ParamsFlags,
    control.CpuStatus,
    command.SidecarCommand,
    command.RaiseKind,
    command.HvStatus,
    run.RunFlags,
    run.RunEnd,
    hv_messages.HvMessageType,
    hv_messages.HvInterceptAccess,
    hv_messages.HvExecutionState,
    hv_messages.HvIoAccess,
    hv_messages.HvMemoryAccess,
    hv_messages.HvExceptionInfo,
    hv.HvX64SegmentAttribute,
    hv.HvCacheType,
    hv.HvInterruptionType,
    hv.HvPendingInterruption,
    hv.HvInterruptState,
    hv.HvPendingEvent,
    hv.HvPendingEventType,
    hv.HvDeliverability,
    hv.HvTranslateFlags,
    hv.HvTranslateResult,
    hv_registers.HvRegisterName,
    svm.SvmExit,
    vmcb_rules.VmcbRule,
    svm.VpPage,
    diagnostics.BootPhase,
    diagnostics.RecorderEvent,
    address_map.PrivatePage,
    address_map.SharedPage,
    boot.BundleKind,
    boot.RelayFlags,
    ioctl.Ioctl,
    ioctl.VpIoctl,
    ioctl.VmIoctl,
    ioctl.GuestRights,
)

CONSTANTS: dict[str, int] = {
    "ABI_VERSION": abi.ABI_VERSION,
    "MAX_NODES": abi.MAX_NODES,
    "MAX_CPUS": abi.MAX_CPUS,
    "MAX_NODE_CPUS": abi.MAX_NODE_CPUS,
    "MAX_REGISTERS": abi.MAX_REGISTERS,
    "REQUEST_VECTOR": abi.REQUEST_VECTOR,
    "SPURIOUS_VECTOR": abi.SPURIOUS_VECTOR,
    "NO_NODE": params.NO_NODE,
    "TIMER_VECTOR": abi.TIMER_VECTOR,
    "VP_PAGES": svm.VP_PAGES,
    "XSAVE_PAGES": svm.XSAVE_PAGES,
    "IOPM_PAGES": svm.IOPM_PAGES,
    "NO_EVENTFD": ioctl.NO_EVENTFD,
    "GUEST_ADDRESS_BITS": ioctl.GUEST_ADDRESS_BITS,
    "PRIVATE_PAGES": address_map.PRIVATE_PAGES,
    "SHARED_PAGES": address_map.SHARED_PAGES,
    "TRAMPOLINE_MAGIC": boot.TRAMPOLINE_MAGIC,
    "BUNDLE_MAGIC": boot.BUNDLE_MAGIC,
    "RELAY_MAGIC": boot.RELAY_MAGIC,
}


def by_name(name: str) -> Layout:
    """The layout called `name`; KeyError with the known names if there is none."""
    known = {layout.NAME: layout for layout in ALL}
    if name not in known:
        raise KeyError(f"no layout {name!r}; there are {', '.join(known)}")
    return known[name]


def _bytes_of(layout: Layout) -> dict[str, object]:
    """The layout without its sentences: another wording is the same ABI."""
    described = layout.describe()
    for field in described["fields"]:
        del field["doc"]
    return described


@cache
def abi_hash() -> int:
    """64 bits of SHA-256 over everything that two parties must agree on: layouts, enumerations, transitions, map."""
    agreed = {
        "layouts": [_bytes_of(layout) for layout in SHARED],
        "enums": {kind.__name__: {name: int(member) for name, member in kind.__members__.items()} for kind in ENUMS},
        "constants": CONSTANTS,
        "transitions": [(t.old.name, t.new.name, t.party.name, t.primitive) for t in control.TRANSITIONS],
        "registers": [(r.name, r.number, r.reset, r.writable) for r in command.VP_REGISTERS]
        + [(r.name, r.number, r.rule.name, r.writable, r.fixed) for r in register_table.REGISTERS],
    }
    text = json.dumps(agreed, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
