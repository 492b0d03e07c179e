"""Every byte that two parties share, and every x86 fact, once. Everything else is derived from here.

`schema` is the machinery, `parts` what a page is declared with; `params`, `control`, `command`, `run`, `diagnostics`,
`boot`, `acpi` are the pages by the parties that share them; `hv`, `hv_messages`, `hv_registers` what the Hyper-V TLFS
defines of virtual processors, `svm` what AMD defines, `vmcb_rules` what it
refuses; `private` is the kernel's own; `address_map` says what is mapped
where; `x86` holds the manual's names; `registry` lists all and hashes them; `c_header` and `document` print them, and
`generate` writes the committed files.

`NAMES` is what assembly text may name: every layout, enumeration and constant below.
"""

from __future__ import annotations

from enum import EnumMeta

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
    linux_boot,
    params,
    private,
    run,
    svm,
    vmcb_rules,
    x86,
)
from sidecar.layout.abi import (
    ABI_VERSION,
    MAX_CPUS,
    MAX_NODE_CPUS,
    MAX_NODES,
    MAX_NUMA_NODES,
    MAX_REGISTERS,
    REQUEST_VECTOR,
    SPURIOUS_VECTOR,
    TIMER_VECTOR,
)
from sidecar.layout.address_map import IMAGE_VA, PrivatePage, SharedPage, private_pa, required_memory, shared_pa
from sidecar.layout.boot import Bundle, BundleKind, BundlePart, RelayPage, TrampolinePage
from sidecar.layout.command import (
    VP_REGISTERS,
    CommandPage,
    GapsAnswer,
    GetSetVpRegisterRequest,
    HvRegisterAssoc,
    HvStatus,
    RaiseKind,
    RaiseRequest,
    SidecarCommand,
)
from sidecar.layout.control import TRANSITIONS, ControlPage, CpuStatus
from sidecar.layout.diagnostics import BootPhase, DiagnosticPage, FaultRecord, LogRing, PrivilegedPage
from sidecar.layout.params import CommandError, CpuMapEntry, CpuPolicy, SidecarOutput, SidecarParams
from sidecar.layout.registry import ALL, SHARED, abi_hash, by_name
from sidecar.layout.schema import PAGE_SIZE, Field, FieldOffset, Layout, LayoutError

__all__ = [
    "ABI_VERSION", "ALL", "IMAGE_VA", "MAX_CPUS", "MAX_NODES", "MAX_NODE_CPUS", "MAX_NUMA_NODES", "MAX_REGISTERS",
    "NAMES", "PAGE_SIZE", "REQUEST_VECTOR", "SHARED", "SPURIOUS_VECTOR", "TIMER_VECTOR", "TRANSITIONS",
    "VP_REGISTERS", "BootPhase", "Bundle", "BundleKind", "BundlePart", "CommandError", "CommandPage", "ControlPage",
    "CpuMapEntry", "CpuPolicy", "CpuStatus", "DiagnosticPage", "FaultRecord", "Field", "FieldOffset",
    "GapsAnswer", "GetSetVpRegisterRequest", "HvRegisterAssoc", "HvStatus", "Layout", "LayoutError", "LogRing",
    "PrivatePage", "PrivilegedPage", "RaiseKind", "RaiseRequest", "RelayPage", "SharedPage", "SidecarCommand",
    "SidecarOutput", "SidecarParams", "TrampolinePage", "abi_hash", "by_name", "private_pa", "required_memory",
    "shared_pa",
]


def _names() -> dict[str, object]:
    names: dict[str, object] = {"ABI_HASH": abi_hash()}
    for module in (
        abi, params, control, command, run, hv, hv_messages, hv_registers, svm, vmcb_rules, diagnostics, boot,
        linux_boot, acpi, private, guest_walk, address_map, x86,
    ):
        for name, value in vars(module).items():
            if isinstance(value, Layout | EnumMeta) or (isinstance(value, int) and name.isupper()):
                names[name] = value
    return names


NAMES: dict[str, object] = _names()
