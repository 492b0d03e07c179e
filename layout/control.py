"""The control page, one per node, and the CPU status protocol on it: values and transitions as data.

Ref: OpenHCL `sidecar_defs::ControlPage`, `CpuStatus`; statuses from 5 on and bytes 0x1C to 0x3F are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from sidecar.layout.parts import Array, Bytes, Int8ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import PAGE_SIZE, Layout, register_enum

CPU_STATUS_COUNT = 4032


@register_enum
class CpuStatus(IntEnum):
    """One byte per CPU: whose turn it is."""

    REMOVED = 0
    IDLE = 1
    RUN = 2
    STOP = 3
    REMOVE = 4
    FAULTED = 5


class Party(IntEnum):
    """Who may make a transition."""

    SIDECAR_BSP = 0
    SIDECAR_CPU = 1
    DRIVER = 2


@dataclass(frozen=True, slots=True)
class Transition:
    """`old` -> `new`, made by `party` with `primitive`; any other change of a status byte is a defect."""

    old: CpuStatus
    new: CpuStatus
    party: Party
    primitive: str
    when: str


_S, _P = CpuStatus, Party
TRANSITIONS: tuple[Transition, ...] = (
    Transition(_S.REMOVED, _S.RUN, _P.SIDECAR_BSP, "store", "boot, for every CPU to start: before INIT and STARTUP"),
    Transition(_S.RUN, _S.REMOVED, _P.SIDECAR_BSP, "cmpxchg", "the CPU did not arrive: its claim is revoked"),
    Transition(_S.RUN, _S.IDLE, _P.SIDECAR_CPU, "cmpxchg", "arrival or command finished"),
    Transition(_S.STOP, _S.IDLE, _P.SIDECAR_CPU, "cmpxchg", "command finished after it was cancelled"),
    Transition(_S.IDLE, _S.RUN, _P.DRIVER, "cmpxchg", "start a command"),
    Transition(_S.RUN, _S.STOP, _P.DRIVER, "cmpxchg", "cancel the command"),
    Transition(_S.IDLE, _S.REMOVE, _P.DRIVER, "cmpxchg", "Linux wants the CPU"),
    Transition(_S.REMOVE, _S.REMOVED, _P.SIDECAR_CPU, "cmpxchg", "torn down, halted for Linux's INIT"),
    Transition(_S.RUN, _S.FAULTED, _P.SIDECAR_CPU, "cmpxchg", "fault in arrival or in a command"),
    Transition(_S.STOP, _S.FAULTED, _P.SIDECAR_CPU, "cmpxchg", "fault in a cancelled command"),
    Transition(_S.IDLE, _S.FAULTED, _P.SIDECAR_CPU, "cmpxchg", "NMI, machine check or fault while parked"),
    Transition(_S.REMOVE, _S.FAULTED, _P.SIDECAR_CPU, "cmpxchg", "fault while tearing down"),
    Transition(_S.FAULTED, _S.RUN, _P.DRIVER, "cmpxchg", "restart; INIT-SIPI to the trampoline follows"),
    Transition(_S.FAULTED, _S.REMOVED, _P.DRIVER, "cmpxchg", "Linux takes a faulted CPU: INIT makes that safe"),
    Transition(_S.REMOVED, _S.RUN, _P.DRIVER, "cmpxchg", "return of a CPU; INIT-SIPI to the trampoline follows"),
    Transition(_S.STOP, _S.RUN, _P.DRIVER, "cmpxchg", "restart of a CPU that ignored a cancel, after INIT"),
    Transition(_S.REMOVE, _S.RUN, _P.DRIVER, "cmpxchg", "restart of a CPU that ignored a removal, after INIT"),
    Transition(_S.IDLE, _S.REMOVED, _P.DRIVER, "cmpxchg", "Linux took the CPU by INIT while no driver was loaded"),
    Transition(_S.RUN, _S.REMOVED, _P.DRIVER, "cmpxchg", "likewise, while it ran a command"),
    Transition(_S.STOP, _S.REMOVED, _P.DRIVER, "cmpxchg", "likewise, while it ended a command"),
    Transition(_S.REMOVE, _S.REMOVED, _P.DRIVER, "cmpxchg", "likewise, while it was being removed"),
)


def allowed(old: CpuStatus, new: CpuStatus, party: Party) -> bool:
    """Is `old` -> `new` by `party` in the table?"""
    return any((t.old, t.new, t.party) == (old, new, party) for t in TRANSITIONS)


ControlPage = Layout(
    "ControlPage",
    Struct(
        "index" / Int32ul * "node number, the suffix of the device name",
        "base_cpu" / Int32ul * "Linux number of the node's first CPU",
        "cpu_count" / Int32ul * "CPUs of the node, the first one included",
        "request_vector" / Int32ul * "vector that makes a sidecar CPU look at its status",
        "response_cpu" / Int32ul * "x2APIC id to notify; with response_vector read and written as one aligned u64",
        "response_vector" / Int32ul * "vector to notify with; 0: notify nobody",
        "needs_attention" / Int32ul * "set to 1 by a CPU whose status changed, exchanged with 0 by the driver",
        "abi_version" / Int32ul * "ABI_VERSION of the sidecar",
        "abi_hash" / Int64ul * "ABI hash of the sidecar",
        "reserved_28" / Bytes(24) * "zero",
        "cpu_status" / Array(CPU_STATUS_COUNT, Int8ul) * "CpuStatus of CPU base_cpu + i",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Driver and sidecar, one per node: whose turn it is on every CPU, and how to call each other.",
)
