"""What the sidecar tells everyone about a CPU and alone writes: boot record, fault record, counters, log ring."""

from __future__ import annotations

from enum import IntEnum

from sidecar.layout.parts import Array, Bytes, Int32ul, Int64ul, Struct
from sidecar.layout.schema import PAGE_SIZE, Layout, register_enum, values_of


@register_enum
class BootPhase(IntEnum):
    """Phases of an arrival, in order; each has its TSC stamp in BootRecord.stamps."""

    TRAMPOLINE = 0
    """First instruction in the trampoline, real mode."""
    LONG_MODE = 1
    """64-bit code of the image, on the transition tables."""
    FOUND = 2
    """The CPU found itself in the CPU map."""
    MAPPED = 3
    """Own page tables, stack, GDT, TSS and IDT are loaded."""
    APIC = 4
    """x2APIC enabled, state scrubbed."""
    FAN_OUT = 5
    """It has helped to start the others, if it was to."""
    IDLE = 6
    """Status set to IDLE."""


BootRecord = Layout(
    "BootRecord",
    Struct(
        "arrivals" / Int64ul * "times the CPU came through the trampoline; 0: never, the pages are not yet initialised",
        "apic_id" / Int32ul * "x2APIC id that CPUID leaf 0xB gave",
        "linux_number" / Int32ul * "Linux number found in the CPU map",
        "started_by_it" / Int32ul * "CPUs that this CPU started in its fan-out",
        "reserved_14" / Int32ul * "zero",
        "stamps" / Array(8, Int64ul) * "TSC per BootPhase of the last arrival; 0: not reached",
        "reserved_58" / Bytes(40) * "zero",
    ),
    size=128,
    doc="How a CPU started, last time.",
)

FaultRecord = Layout(
    "FaultRecord",
    Struct(
        "count" / Int64ul * "faults of this CPU since boot; 0: the rest is not valid",
        "tsc" / Int64ul * "TSC when the record was written",
        "vector" / Int32ul * "exception vector",
        "nested" / Int32ul * "1: the fault handler itself faulted; registers below rip and cr2 are not valid",
        "error_code" / Int64ul * "error code, 0 for vectors without one",
        "rip" / Int64ul * "virtual address of the instruction",
        "cs" / Int64ul * "code segment",
        "rflags" / Int64ul * "flags",
        "rsp" / Int64ul * "stack pointer",
        "ss" / Int64ul * "stack segment",
        "cr0" / Int64ul * "control register 0",
        "cr2" / Int64ul * "page-fault address",
        "cr3" / Int64ul * "root of the page tables",
        "cr4" / Int64ul * "control register 4",
        "dr6" / Int64ul * "debug status",
        "registers" / Array(16, Int64ul) * "rax rcx rdx rbx rsp rbp rsi rdi r8 to r15",
        "status" / Int32ul * "CpuStatus when it happened",
        "command" / Int32ul * "SidecarCommand being executed, 0 if none",
        "reserved_f8" / Bytes(8) * "zero",
    ),
    size=256,
    doc="The last contained fault of a CPU.",
)

Counters = Layout(
    "Counters",
    Struct(
        "commands" / Int64ul * "commands executed",
        "requests" / Int64ul * "request interrupts taken",
        "spurious" / Int64ul * "spurious interrupts of the local APIC",
        "errors" / Int64ul * "commands answered with an error",
        "removals" / Int64ul * "times the CPU was given up",
        "timer" / Int64ul * "interrupts of the CPU's own timer",
        "reserved_30" / Bytes(16) * "zero",
        "stray" / Array(256, Int32ul) * "interrupts per vector that are nobody's",
    ),
    size=0x440,
    doc="What happened on a CPU since boot.",
)

@register_enum
class RecorderEvent(IntEnum):
    """What the flight recorder keeps; `value` of the entry in brackets."""

    NONE = 0
    ARRIVED = 1
    """On own tables after INIT-SIPI (arrivals so far)."""
    COMMAND = 2
    """A command was taken (SidecarCommand)."""
    FINISHED = 3
    """Arrival or command is over, the CPU goes idle (CpuStatus it leaves)."""
    REMOVED = 4
    """Torn down and about to be REMOVED (removals so far)."""
    FAULTED = 5
    """A fault was contained (vector)."""


RECORDER_ENTRIES = 128

RecorderEntry = Layout(
    "RecorderEntry",
    Struct(
        "tsc" / Int64ul * "TSC of the event",
        "event" / values_of(RecorderEvent, Int32ul) * "what happened",
        "value" / Int32ul * "more of it, by event",
    ),
    size=16,
    doc="One event of a CPU.",
)

Recorder = Layout(
    "Recorder",
    Struct(
        "written" / Int64ul * "entries ever written; entry n is at n % 128, and whole before this counts it",
        "reserved_8" / Bytes(0x38) * "zero",
        "entries" / Array(RECORDER_ENTRIES, RecorderEntry.struct) * "the last 128 events",
    ),
    size=0x840,
    doc="The flight recorder of a CPU: survives restarts, faults and the machine's death.",
)

DiagnosticPage = Layout(
    "DiagnosticPage",
    Struct(
        "boot" / BootRecord.struct * "how the CPU started",
        "fault" / FaultRecord.struct * "its last fault",
        "counters" / Counters.struct * "what happened",
        "recorder" / Recorder.struct * "its last events",
        "reserved_e00" / Bytes(PAGE_SIZE - 0xE00) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="One CPU to everyone: how it started, what happened, its last fault, its last events.",
)

LOG_TEXT_BYTES = PAGE_SIZE - 16

LogRing = Layout(
    "LogRing",
    Struct(
        "written" / Int64ul * "bytes ever written; the next one goes to text[written % 4080]",
        "reserved_8" / Int64ul * "zero",
        "text" / Bytes(LOG_TEXT_BYTES) * "lines, each ended by a line feed; the oldest may be cut",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="One CPU to everyone: its log.",
)

PrivilegedPage = Layout(
    "PrivilegedPage",
    Struct(
        "abi_version" / Int32ul * "ABI_VERSION of the sidecar, written on arrival",
        "quiet" / Int32ul * "driver: not 0 while it looks for the end of a command itself: no attention at that end",
        "abi_hash" / Int64ul * "ABI hash of the sidecar, written on arrival",
        "restart_count" / Int64ul * "restarts that the driver has ordered; logged by the arriving CPU",
        "vp_created" / Int64ul * "0: no virtual processor; else the number of its creation, another one each time",
        "vp_pages_pa" / Int64ul * "VP_PAGES physically contiguous pages, in the order of VpPage",
        "guest_root_pa" / Int64ul * "root of the nested page tables, four levels",
        "iopm_pa" / Int64ul * "I/O permission map of three pages; 0: the sidecar's, in which every port exits",
        "halt_poll" / Int32ul * "driver: TSC ticks for which a CPU that is done looks for a command before it halts",
        "reserved_3c" / Int32ul * "zero",
        "guest_generation" / Int64ul * "counted up by the driver after it has changed the nested page tables",
        "reserved_48" / Bytes(0x38) * "zero",
        "seen_generation" / Int64ul * "guest_generation from which on the CPU uses no older translation, written by it",
        "polling" / Int32ul * "CPU: not 0 from before its status is IDLE until it may halt: a command needs no request",
        "reserved_8c" / Bytes(0x34) * "zero",
        "doorbell" / Int64ul * "bits ORed in by the driver, taken by the CPU when a run ends",
        "reserved_c8" / Bytes(PAGE_SIZE - 0xC8) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Driver and one CPU: who looks for what itself, its virtual processor; user space never maps it.",
)
