"""What only the sidecar reads and writes: per-CPU globals and its view of the nodes; shown by dumps, promised to none.

Ref: SDM vol. 3A, 8.7 (64-bit TSS).
"""

from __future__ import annotations

from sidecar.layout.command import VP_REGISTERS
from sidecar.layout.parts import Array, Bytes, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import PAGE_SIZE, Layout
from sidecar.layout.svm import VMCB_SAVE_BYTES

Tss = Layout(
    "Tss",
    Struct(
        "reserved_0" / Int32ul * "zero",
        "rsp" / Bytes(24) * "RSP0 to RSP2, unused: there is no ring 3",
        "reserved_1c" / Bytes(8) * "zero",
        "ist" / Bytes(56) * "IST1 to IST7; u64 each, not naturally aligned",
        "reserved_5c" / Bytes(10) * "zero",
        "io_map_base" / Int16ul * "offset of the I/O permission map: beyond the limit, none",
    ),
    size=104,
    align=4,
    doc="64-bit task-state segment.",
)

INTERRUPT_STACK_BYTES = 0x500

InterruptPage = Layout(
    "InterruptPage",
    Struct(
        "gdt" / Array(8, Int64ul) * "null, 64-bit code, data, TSS (two entries), unused, a not-present segment, unused",
        "reserved_40" / Bytes(6) * "zero",
        "gdt_limit" / Int16ul * "pseudo-descriptor for LGDT: limit",
        "gdt_base" / Int64ul * "pseudo-descriptor: base",
        "tss" / Tss.struct * "task state: where the interrupt stacks are",
        "reserved_b8" / Bytes(0x48) * "zero",
        "stacks" / Bytes(3 * INTERRUPT_STACK_BYTES) * "stacks of #DF, NMI and #MC, in this order",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="All that a CPU itself needs to deliver an exception, besides the shared IDT, on one page.",
)

VP_REGISTER_COUNT = len(VP_REGISTERS)

VpState = Layout(
    "VpState",
    Struct(
        "created" / Int64ul * "PrivilegedPage.vp_created of the virtual processor that is set up; 0: none",
        "operations" / Int64ul * "address of the back end's operations",
        "pages_pa" / Int64ul * "its VP pages",
        "vmcb_pa" / Int64ul * "physical address of VpPage.VMCB",
        "host_vmcb_pa" / Int64ul * "physical address of VpPage.HOST_VMCB",
        "gps" / Array(16, Int64ul) * "general registers during a run, in the order of CpuContextX64",
        "host_xcr0" / Int64ul * "XCR0 of the sidecar: every state component; 0 without XSAVE",
        "xcr0_mask" / Int64ul * "components that a guest may have",
        "xcr0" / Int64ul * "XCR0 of the guest",
        "tsc_aux" / Int64ul * "TSC_AUX of the guest",
        "apic_base" / Int64ul * "HvX64RegisterApicBase",
        "initial_apic_id" / Int64ul * "HvX64RegisterInitialApicId: what CPUID tells",
        "pending_interruption" / Int64ul * "HvPendingInterruption: the next entry delivers it",
        "pending_event" / Array(2, Int64ul) * "HvPendingEvent, low and high half",
        "deliverability" / Int64ul * "HvDeliverability: what the VMM waits for",
        "nmi_masked" / Int32ul * "1: from the delivery of an NMI to the IRET",
        "check_needed" / Int32ul * "1: registers were set since the state was checked",
        "time_end" / Int64ul * "TSC at which the run ends, 0: no limit",
        "timer_ratio" / Int64ul * "APIC timer counts per 2^32 TSC ticks, 0: not measured yet",
        "flags" / Int32ul * "RunFlags of this run",
        "exception_intercepts" / Int32ul * "of this run",
        "lme_hidden" / Int32ul * "1: EFER.LME of the guest is not in the VMCB, for this entry",
        "instruction_count" / Int32ul * "valid bytes of instruction",
        "instruction" / Bytes(16) * "bytes at the guest's RIP",
        "guest_entries" / Int64ul * "of this run",
        "local_exits" / Int64ul * "of this run",
        "guest_tsc" / Int64ul * "of this run",
        "mxcsr_mask" / Int32ul * "valid bits of MXCSR",
        "soft_injected" / Int32ul * "type of the software interruption that the last entry delivered, or 0",
        "advance" / Int32ul * "bytes to add to RIP before the first entry of this run",
        "window_held" / Int32ul * "1: the next entry is made without an interrupt window, for one instruction",
        "step" / Int32ul * "not 0: why the guest executes one instruction, and its own RFLAGS.TF",
        "step_exceptions" / Int32ul * "Vmcb.intercept_exceptions before the step",
        "step_rip" / Int64ul * "where that instruction is",
        "step_cr0" / Int64ul * "CR0 before it",
        "code_page" / Int64ul * "linear address of the page that code_window shows, bit 0 set; 0: none",
        "code_mode" / Int64ul * "CR3 of the guest when that was so, CR0.PG in bit 63",
        "missing_bits" / Array(3, Int64ul) * "bits this processor refuses, by VmcbLimit; [0] is 0: not asked yet",
        "reserved_198" / Bytes(8) * "zero",
    ),
    size=0x1A0,
    doc="The virtual processor of one CPU, as far as it is not in the back end's own structure.",
)

VpGlobals = Layout(
    "VpGlobals",
    Struct(
        "linux_number" / Int32ul * "Linux number of this CPU",
        "node_cpu_index" / Int32ul * "index in its node",
        "apic_id" / Int32ul * "x2APIC id",
        "node_index" / Int32ul * "index of its node",
        "command" / Int32ul * "SidecarCommand being executed, 0 if none",
        "reserved_14" / Int32ul * "zero",
        "registers" / Array(VP_REGISTER_COUNT, Int64ul) * "virtual processor's state, in the order of VP_REGISTERS",
        "reserved_130" / Bytes(0x10) * "zero",
        "vp" / VpState.struct * "the virtual processor",
        "save_area" / Bytes(VMCB_SAVE_BYTES) * "the VMCB's save area before an entry that the processor may refuse",
        "reserved_580" / Bytes(PAGE_SIZE - 0x580) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="One CPU's private globals page.",
)

NodeState = Layout(
    "NodeState",
    Struct(
        "base_vp" / Int32ul * "Linux number of the first CPU",
        "vp_count" / Int32ul * "CPUs",
        "next_vp" / Int32ul * "index that the next helper claims, by lock xadd",
        "reserved_c" / Int32ul * "zero",
        "memory_base" / Int64ul * "physical address of the node's memory",
        "window_va" / Int64ul * "where the transition tables map it",
        "reserved_20" / Bytes(32) * "zero: one cache line per node",
    ),
    size=64,
    doc="A node as the sidecar's boot code keeps it.",
)
