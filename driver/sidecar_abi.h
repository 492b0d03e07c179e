/* SPDX-License-Identifier: MIT */
/*
 * The bytes that the sidecar kernel, the driver and user space share.
 *
 * Generated from layout/ by `python -m sidecar.layout.generate`; do not edit.
 */
#ifndef SIDECAR_ABI_H
#define SIDECAR_ABI_H

#include <linux/types.h>

/* Changes with every byte, name or number below; parties that attach compare it. */
#define SIDECAR_ABI_HASH 0x4477464737da8adeULL
#define SIDECAR_PAGE_SIZE 4096
#define SIDECAR_ABI_VERSION 1
#define SIDECAR_MAX_NODES 128
#define SIDECAR_MAX_CPUS 2048
#define SIDECAR_MAX_NODE_CPUS 32
#define SIDECAR_MAX_REGISTERS 31
#define SIDECAR_REQUEST_VECTOR 0x20
#define SIDECAR_SPURIOUS_VECTOR 0xff
#define SIDECAR_NO_NODE 0xffff
#define SIDECAR_TIMER_VECTOR 0x21
#define SIDECAR_VP_PAGES 7
#define SIDECAR_XSAVE_PAGES 3
#define SIDECAR_IOPM_PAGES 3
#define SIDECAR_NO_EVENTFD 0xffffffffU
#define SIDECAR_GUEST_ADDRESS_BITS 0x30
#define SIDECAR_PRIVATE_PAGES 10
#define SIDECAR_SHARED_PAGES 2
#define SIDECAR_TRAMPOLINE_MAGIC 0x504d415254524353ULL
#define SIDECAR_BUNDLE_MAGIC 0x454c444e55424353ULL
#define SIDECAR_RELAY_MAGIC 0x59414c4552524353ULL

/* Who starts a CPU. */
enum sidecar_cpu_policy {
	SIDECAR_CPU_POLICY_SIDECAR = 0,
	SIDECAR_CPU_POLICY_LINUX = 1,
};

/* SidecarParams.flags. */
enum sidecar_params_flags {
	/* The RAISE command may raise faults on purpose: a machine for tests. */
	SIDECAR_PARAMS_FLAGS_ALLOW_RAISE = 1,
	/* The serial log ends when the entry returns: then the port is Linux's. */
	SIDECAR_PARAMS_FLAGS_SERIAL_UNTIL_RETURN = 2,
	/* Each arriving CPU starts another one. */
	SIDECAR_PARAMS_FLAGS_FAN_OUT = 4,
};

/* One byte per CPU: whose turn it is. */
enum sidecar_cpu_status {
	SIDECAR_CPU_STATUS_REMOVED = 0,
	SIDECAR_CPU_STATUS_IDLE = 1,
	SIDECAR_CPU_STATUS_RUN = 2,
	SIDECAR_CPU_STATUS_STOP = 3,
	SIDECAR_CPU_STATUS_REMOVE = 4,
	SIDECAR_CPU_STATUS_FAULTED = 5,
};

/* Commands; 0 to 4 are upstream's, extensions start at 0x100. */
enum sidecar_command {
	SIDECAR_COMMAND_NONE = 0,
	SIDECAR_COMMAND_RUN_VP = 1,
	SIDECAR_COMMAND_GET_VP_REGISTERS = 2,
	SIDECAR_COMMAND_SET_VP_REGISTERS = 3,
	SIDECAR_COMMAND_TRANSLATE_GVA = 4,
	SIDECAR_COMMAND_RAISE = 0x100,
	/* The virtual processor's XSAVE image into the register page. */
	SIDECAR_COMMAND_GET_VP_XSAVE = 0x101,
	/* The other way; the legacy part is CommandPage.cpu_context's. */
	SIDECAR_COMMAND_SET_VP_XSAVE = 0x102,
};

/*
 * What RAISE does to its own CPU, by the manual's names; refused unless the params page allows
 * it.
 */
enum sidecar_raise_kind {
	SIDECAR_RAISE_KIND_DIVIDE_ERROR = 0,
	SIDECAR_RAISE_KIND_DEBUG = 1,
	SIDECAR_RAISE_KIND_NMI = 2,
	SIDECAR_RAISE_KIND_BREAKPOINT = 3,
	SIDECAR_RAISE_KIND_INVALID_OPCODE = 6,
	SIDECAR_RAISE_KIND_DEVICE_NOT_AVAILABLE = 7,
	SIDECAR_RAISE_KIND_DOUBLE_FAULT = 8,
	SIDECAR_RAISE_KIND_SEGMENT_NOT_PRESENT = 0xb,
	SIDECAR_RAISE_KIND_STACK_FAULT = 0xc,
	SIDECAR_RAISE_KIND_GENERAL_PROTECTION = 0xd,
	SIDECAR_RAISE_KIND_PAGE_FAULT = 0xe,
	SIDECAR_RAISE_KIND_X87_FLOATING_POINT = 0x10,
	SIDECAR_RAISE_KIND_MACHINE_CHECK = 0x12,
	SIDECAR_RAISE_KIND_SIMD_FLOATING_POINT = 0x13,
	SIDECAR_RAISE_KIND_VECTOR = 0x100,
	SIDECAR_RAISE_KIND_CORRUPT_PAGE_TABLE = 0x101,
	SIDECAR_RAISE_KIND_SPIN = 0x102,
	SIDECAR_RAISE_KIND_WAIT_FOR_STOP = 0x103,
	SIDECAR_RAISE_KIND_MEASURE_GAPS = 0x104,
};

/* Ref: TLFS, "Hypercall Status Codes". */
enum sidecar_hv_status {
	SIDECAR_HV_STATUS_SUCCESS = 0,
	SIDECAR_HV_STATUS_INVALID_PARAMETER = 5,
	SIDECAR_HV_STATUS_INVALID_VP_STATE = 0x15,
	SIDECAR_HV_STATUS_INVALID_REGISTER_VALUE = 0x50,
};

/* VpRun.flags. */
enum sidecar_run_flags {
	/* CPUID ends the run with an X64_CPUID_INTERCEPT. */
	SIDECAR_RUN_FLAGS_CPUID_EXITS = 1,
};

/* VpRun.end. */
enum sidecar_run_end {
	/* The run ended with an error. */
	SIDECAR_RUN_END_NONE = 0,
	/* CommandPage.intercept_message says why. */
	SIDECAR_RUN_END_INTERCEPT = 1,
	/* STOP. */
	SIDECAR_RUN_END_CANCELLED = 2,
	/* PrivilegedPage.doorbell had bits; they are in notifications. */
	SIDECAR_RUN_END_NOTIFIED = 3,
	SIDECAR_RUN_END_TIME_LIMIT = 4,
};

/* HvMessage.message_type. Ref: TLFS, "Intercept Message Types". */
#define SIDECAR_HV_MESSAGE_TYPE_NONE 0
/* Memory that is not mapped. */
#define SIDECAR_HV_MESSAGE_TYPE_UNMAPPED_GPA 0x80000000U
/* Memory that is mapped without the right that was needed. */
#define SIDECAR_HV_MESSAGE_TYPE_GPA_INTERCEPT 0x80000001U
#define SIDECAR_HV_MESSAGE_TYPE_INVALID_VP_REGISTER_VALUE 0x80000020U
#define SIDECAR_HV_MESSAGE_TYPE_UNRECOVERABLE_EXCEPTION 0x80000021U
#define SIDECAR_HV_MESSAGE_TYPE_UNSUPPORTED_FEATURE 0x80000022U
#define SIDECAR_HV_MESSAGE_TYPE_X64_IO_PORT_INTERCEPT 0x80010000U
#define SIDECAR_HV_MESSAGE_TYPE_X64_MSR_INTERCEPT 0x80010001U
#define SIDECAR_HV_MESSAGE_TYPE_X64_CPUID_INTERCEPT 0x80010002U
#define SIDECAR_HV_MESSAGE_TYPE_X64_EXCEPTION_INTERCEPT 0x80010003U
#define SIDECAR_HV_MESSAGE_TYPE_X64_HALT 0x80010007U
#define SIDECAR_HV_MESSAGE_TYPE_X64_INTERRUPTION_DELIVERABLE 0x80010008U

/* InterceptHeader.access_type. */
enum sidecar_hv_intercept_access {
	SIDECAR_HV_INTERCEPT_ACCESS_READ = 0,
	SIDECAR_HV_INTERCEPT_ACCESS_WRITE = 1,
	SIDECAR_HV_INTERCEPT_ACCESS_EXECUTE = 2,
};

/* InterceptHeader.execution_state. Ref: TLFS, HV_X64_VP_EXECUTION_STATE. */
enum sidecar_hv_execution_state {
	SIDECAR_HV_EXECUTION_STATE_CPL = 3,
	SIDECAR_HV_EXECUTION_STATE_CR0_PE = 4,
	SIDECAR_HV_EXECUTION_STATE_CR0_AM = 8,
	SIDECAR_HV_EXECUTION_STATE_EFER_LMA = 0x10,
	SIDECAR_HV_EXECUTION_STATE_DEBUG_ACTIVE = 0x20,
	SIDECAR_HV_EXECUTION_STATE_INTERRUPTION_PENDING = 0x40,
	SIDECAR_HV_EXECUTION_STATE_INTERRUPT_SHADOW = 0x1000,
};

/* IoPortMessage.access_info. */
enum sidecar_hv_io_access {
	/* Bytes of one access: 1, 2 or 4. */
	SIDECAR_HV_IO_ACCESS_SIZE = 7,
	SIDECAR_HV_IO_ACCESS_STRING = 8,
	SIDECAR_HV_IO_ACCESS_REP = 0x10,
};

/* MemoryMessage.memory_access_info. */
enum sidecar_hv_memory_access {
	SIDECAR_HV_MEMORY_ACCESS_GVA_VALID = 1,
	SIDECAR_HV_MEMORY_ACCESS_GVA_GPA_VALID = 2,
};

/* ExceptionMessage.exception_info. */
enum sidecar_hv_exception_info {
	SIDECAR_HV_EXCEPTION_INFO_ERROR_CODE_VALID = 1,
	SIDECAR_HV_EXCEPTION_INFO_SOFTWARE = 2,
};

/* HvX64SegmentRegister.attributes. */
enum sidecar_hv_x64_segment_attribute {
	SIDECAR_HV_X64_SEGMENT_ATTRIBUTE_TYPE = 0xf,
	SIDECAR_HV_X64_SEGMENT_ATTRIBUTE_NON_SYSTEM = 0x10,
	SIDECAR_HV_X64_SEGMENT_ATTRIBUTE_DPL = 0x60,
	SIDECAR_HV_X64_SEGMENT_ATTRIBUTE_PRESENT = 0x80,
	SIDECAR_HV_X64_SEGMENT_ATTRIBUTE_AVAILABLE = 0x1000,
	SIDECAR_HV_X64_SEGMENT_ATTRIBUTE_LONG = 0x2000,
	SIDECAR_HV_X64_SEGMENT_ATTRIBUTE_DEFAULT = 0x4000,
	SIDECAR_HV_X64_SEGMENT_ATTRIBUTE_GRANULARITY = 0x8000,
};

/* Ref: TLFS, HV_CACHE_TYPE. */
enum sidecar_hv_cache_type {
	SIDECAR_HV_CACHE_TYPE_UNCACHED = 0,
	SIDECAR_HV_CACHE_TYPE_WRITE_COMBINING = 1,
	SIDECAR_HV_CACHE_TYPE_WRITE_THROUGH = 4,
	SIDECAR_HV_CACHE_TYPE_WRITE_PROTECTED = 5,
	SIDECAR_HV_CACHE_TYPE_WRITE_BACK = 6,
};

/* Ref: TLFS, HV_X64_PENDING_INTERRUPTION_TYPE. */
enum sidecar_hv_interruption_type {
	SIDECAR_HV_INTERRUPTION_TYPE_INTERRUPT = 0,
	SIDECAR_HV_INTERRUPTION_TYPE_NMI = 2,
	SIDECAR_HV_INTERRUPTION_TYPE_EXCEPTION = 3,
	SIDECAR_HV_INTERRUPTION_TYPE_SOFTWARE_INTERRUPT = 4,
	SIDECAR_HV_INTERRUPTION_TYPE_PRIVILEGED_SOFTWARE_EXCEPTION = 5,
	SIDECAR_HV_INTERRUPTION_TYPE_SOFTWARE_EXCEPTION = 6,
};

/*
 * HvRegisterPendingInterruption: what the next entry delivers. Vector in bits 16 to 31, error
 * code above.
 */
#define SIDECAR_HV_PENDING_INTERRUPTION_PENDING 1
/* HvInterruptionType. */
#define SIDECAR_HV_PENDING_INTERRUPTION_TYPE 0xe
#define SIDECAR_HV_PENDING_INTERRUPTION_DELIVER_ERROR_CODE 0x10
#define SIDECAR_HV_PENDING_INTERRUPTION_INSTRUCTION_LENGTH 0x1e0
#define SIDECAR_HV_PENDING_INTERRUPTION_NESTED 0x200
#define SIDECAR_HV_PENDING_INTERRUPTION_VECTOR 0xffff0000U

/* HvRegisterInterruptState. */
enum sidecar_hv_interrupt_state {
	SIDECAR_HV_INTERRUPT_STATE_INTERRUPT_SHADOW = 1,
	SIDECAR_HV_INTERRUPT_STATE_NMI_MASKED = 2,
};

/* HvRegisterPendingEvent0, low half; the high half is the linear address of a page fault. */
enum sidecar_hv_pending_event {
	SIDECAR_HV_PENDING_EVENT_PENDING = 1,
	/* HvPendingEventType. */
	SIDECAR_HV_PENDING_EVENT_TYPE = 0xe,
	SIDECAR_HV_PENDING_EVENT_DELIVER_ERROR_CODE = 0x100,
};

/* Ref: TLFS, HV_X64_PENDING_EVENT_TYPE; others are refused. */
enum sidecar_hv_pending_event_type {
	SIDECAR_HV_PENDING_EVENT_TYPE_EXCEPTION = 0,
	SIDECAR_HV_PENDING_EVENT_TYPE_EXTERNAL_INTERRUPT = 5,
};

/* HvX64RegisterDeliverabilityNotifications: what the VMM wants to be told of. */
enum sidecar_hv_deliverability {
	SIDECAR_HV_DELIVERABILITY_NMI = 1,
	SIDECAR_HV_DELIVERABILITY_INTERRUPT = 2,
	/* An interrupt of this priority, against CR8; 0: whatever CR8 says. */
	SIDECAR_HV_DELIVERABILITY_INTERRUPT_PRIORITY = 0x3c,
};

/* TranslateGvaRequest.control_flags. Ref: TLFS, HvCallTranslateVirtualAddress. */
#define SIDECAR_HV_TRANSLATE_FLAGS_VALIDATE_READ 1
#define SIDECAR_HV_TRANSLATE_FLAGS_VALIDATE_WRITE 2
#define SIDECAR_HV_TRANSLATE_FLAGS_VALIDATE_EXECUTE 4
#define SIDECAR_HV_TRANSLATE_FLAGS_PRIVILEGE_EXEMPT 8
#define SIDECAR_HV_TRANSLATE_FLAGS_SET_PAGE_TABLE_BITS 0x10
#define SIDECAR_HV_TRANSLATE_FLAGS_TLB_FLUSH_INHIBIT 0x20
#define SIDECAR_HV_TRANSLATE_FLAGS_SUPERVISOR_ACCESS 0x40
#define SIDECAR_HV_TRANSLATE_FLAGS_USER_ACCESS 0x80
#define SIDECAR_HV_TRANSLATE_FLAGS_ENFORCE_SMAP 0x100
#define SIDECAR_HV_TRANSLATE_FLAGS_OVERRIDE_SMAP 0x200
#define SIDECAR_HV_TRANSLATE_FLAGS_INPUT_VTL 0xff00000000000000ULL

/* TranslateGvaResponse.result_code. Ref: TLFS, HV_TRANSLATE_GVA_RESULT_CODE. */
enum sidecar_hv_translate_result {
	SIDECAR_HV_TRANSLATE_RESULT_SUCCESS = 0,
	SIDECAR_HV_TRANSLATE_RESULT_PAGE_NOT_PRESENT = 1,
	SIDECAR_HV_TRANSLATE_RESULT_PRIVILEGE_VIOLATION = 2,
	SIDECAR_HV_TRANSLATE_RESULT_INVALID_PAGE_TABLE_FLAGS = 3,
	SIDECAR_HV_TRANSLATE_RESULT_GPA_UNMAPPED = 4,
	SIDECAR_HV_TRANSLATE_RESULT_GPA_NO_READ_ACCESS = 5,
	SIDECAR_HV_TRANSLATE_RESULT_GPA_NO_WRITE_ACCESS = 6,
	SIDECAR_HV_TRANSLATE_RESULT_GPA_ILLEGAL_OVERLAY_ACCESS = 7,
	SIDECAR_HV_TRANSLATE_RESULT_INTERCEPT = 8,
};

/* HvRegisterAssoc.name, under the names of the TLFS. */
enum sidecar_hv_register_name {
	SIDECAR_HV_REGISTER_NAME_HvRegisterInternalActivityState = 4,
	SIDECAR_HV_REGISTER_NAME_HvRegisterPendingInterruption = 0x10002,
	SIDECAR_HV_REGISTER_NAME_HvRegisterInterruptState = 0x10003,
	SIDECAR_HV_REGISTER_NAME_HvRegisterPendingEvent0 = 0x10004,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterDeliverabilityNotifications = 0x10006,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRax = 0x20000,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRcx = 0x20001,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRdx = 0x20002,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRbx = 0x20003,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRsp = 0x20004,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRbp = 0x20005,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRsi = 0x20006,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRdi = 0x20007,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterR8 = 0x20008,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterR9 = 0x20009,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterR10 = 0x2000a,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterR11 = 0x2000b,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterR12 = 0x2000c,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterR13 = 0x2000d,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterR14 = 0x2000e,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterR15 = 0x2000f,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRip = 0x20010,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterRflags = 0x20011,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm0 = 0x30000,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm1 = 0x30001,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm2 = 0x30002,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm3 = 0x30003,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm4 = 0x30004,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm5 = 0x30005,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm6 = 0x30006,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm7 = 0x30007,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm8 = 0x30008,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm9 = 0x30009,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm10 = 0x3000a,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm11 = 0x3000b,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm12 = 0x3000c,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm13 = 0x3000d,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm14 = 0x3000e,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmm15 = 0x3000f,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpMmx0 = 0x30010,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpMmx1 = 0x30011,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpMmx2 = 0x30012,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpMmx3 = 0x30013,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpMmx4 = 0x30014,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpMmx5 = 0x30015,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpMmx6 = 0x30016,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpMmx7 = 0x30017,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFpControlStatus = 0x30018,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXmmControlStatus = 0x30019,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterCr0 = 0x40000,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterCr2 = 0x40001,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterCr3 = 0x40002,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterCr4 = 0x40003,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterCr8 = 0x40004,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterXfem = 0x40005,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterDr0 = 0x50000,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterDr1 = 0x50001,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterDr2 = 0x50002,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterDr3 = 0x50003,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterDr6 = 0x50004,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterDr7 = 0x50005,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterEs = 0x60000,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterCs = 0x60001,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterSs = 0x60002,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterDs = 0x60003,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterFs = 0x60004,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterGs = 0x60005,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterLdtr = 0x60006,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterTr = 0x60007,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterIdtr = 0x70000,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterGdtr = 0x70001,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterTsc = 0x80000,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterEfer = 0x80001,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterKernelGsBase = 0x80002,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterApicBase = 0x80003,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterPat = 0x80004,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterSysenterCs = 0x80005,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterSysenterEip = 0x80006,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterSysenterEsp = 0x80007,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterStar = 0x80008,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterLstar = 0x80009,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterCstar = 0x8000a,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterSfmask = 0x8000b,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterInitialApicId = 0x8000c,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrCap = 0x8000d,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrDefType = 0x8000e,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysBase0 = 0x80010,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysBase1 = 0x80011,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysBase2 = 0x80012,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysBase3 = 0x80013,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysBase4 = 0x80014,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysBase5 = 0x80015,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysBase6 = 0x80016,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysBase7 = 0x80017,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysMask0 = 0x80040,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysMask1 = 0x80041,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysMask2 = 0x80042,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysMask3 = 0x80043,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysMask4 = 0x80044,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysMask5 = 0x80045,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysMask6 = 0x80046,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrPhysMask7 = 0x80047,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix64k00000 = 0x80070,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix16k80000 = 0x80071,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix16kA0000 = 0x80072,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix4kC0000 = 0x80073,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix4kC8000 = 0x80074,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix4kD0000 = 0x80075,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix4kD8000 = 0x80076,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix4kE0000 = 0x80077,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix4kE8000 = 0x80078,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix4kF0000 = 0x80079,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterMsrMtrrFix4kF8000 = 0x8007a,
	SIDECAR_HV_REGISTER_NAME_HvX64RegisterTscAux = 0x8007b,
};

/* Vmcb.exit_code, and exit_code of the run's answer on AMD. Ref: APM vol. 2, appendix C. */
#define SIDECAR_SVM_EXIT_CR0_READ 0
#define SIDECAR_SVM_EXIT_CR0_WRITE 0x10
#define SIDECAR_SVM_EXIT_CR8_WRITE 0x18
#define SIDECAR_SVM_EXIT_DR0_READ 0x20
#define SIDECAR_SVM_EXIT_DR0_WRITE 0x30
/* The first of 32: exception vector n is 0x40 + n. */
#define SIDECAR_SVM_EXIT_EXCEPTION_0 0x40
#define SIDECAR_SVM_EXIT_INTR 0x60
#define SIDECAR_SVM_EXIT_NMI 0x61
#define SIDECAR_SVM_EXIT_SMI 0x62
#define SIDECAR_SVM_EXIT_INIT 0x63
#define SIDECAR_SVM_EXIT_VINTR 0x64
#define SIDECAR_SVM_EXIT_CR0_SELECTIVE 0x65
#define SIDECAR_SVM_EXIT_IDTR_READ 0x66
#define SIDECAR_SVM_EXIT_GDTR_READ 0x67
#define SIDECAR_SVM_EXIT_LDTR_READ 0x68
#define SIDECAR_SVM_EXIT_TR_READ 0x69
#define SIDECAR_SVM_EXIT_IDTR_WRITE 0x6a
#define SIDECAR_SVM_EXIT_GDTR_WRITE 0x6b
#define SIDECAR_SVM_EXIT_LDTR_WRITE 0x6c
#define SIDECAR_SVM_EXIT_TR_WRITE 0x6d
#define SIDECAR_SVM_EXIT_RDTSC 0x6e
#define SIDECAR_SVM_EXIT_RDPMC 0x6f
#define SIDECAR_SVM_EXIT_PUSHF 0x70
#define SIDECAR_SVM_EXIT_POPF 0x71
#define SIDECAR_SVM_EXIT_CPUID 0x72
#define SIDECAR_SVM_EXIT_RSM 0x73
#define SIDECAR_SVM_EXIT_IRET 0x74
#define SIDECAR_SVM_EXIT_INT_N 0x75
#define SIDECAR_SVM_EXIT_INVD 0x76
#define SIDECAR_SVM_EXIT_PAUSE 0x77
#define SIDECAR_SVM_EXIT_HLT 0x78
#define SIDECAR_SVM_EXIT_INVLPG 0x79
#define SIDECAR_SVM_EXIT_INVLPGA 0x7a
#define SIDECAR_SVM_EXIT_IOIO 0x7b
#define SIDECAR_SVM_EXIT_MSR 0x7c
#define SIDECAR_SVM_EXIT_TASK_SWITCH 0x7d
#define SIDECAR_SVM_EXIT_FERR_FREEZE 0x7e
#define SIDECAR_SVM_EXIT_SHUTDOWN 0x7f
#define SIDECAR_SVM_EXIT_VMRUN 0x80
#define SIDECAR_SVM_EXIT_VMMCALL 0x81
#define SIDECAR_SVM_EXIT_VMLOAD 0x82
#define SIDECAR_SVM_EXIT_VMSAVE 0x83
#define SIDECAR_SVM_EXIT_STGI 0x84
#define SIDECAR_SVM_EXIT_CLGI 0x85
#define SIDECAR_SVM_EXIT_SKINIT 0x86
#define SIDECAR_SVM_EXIT_RDTSCP 0x87
#define SIDECAR_SVM_EXIT_ICEBP 0x88
#define SIDECAR_SVM_EXIT_WBINVD 0x89
#define SIDECAR_SVM_EXIT_MONITOR 0x8a
#define SIDECAR_SVM_EXIT_MWAIT 0x8b
#define SIDECAR_SVM_EXIT_MWAIT_ARMED 0x8c
#define SIDECAR_SVM_EXIT_XSETBV 0x8d
#define SIDECAR_SVM_EXIT_RDPRU 0x8e
#define SIDECAR_SVM_EXIT_EFER_WRITTEN 0x8f
#define SIDECAR_SVM_EXIT_INVPCID 0xa2
#define SIDECAR_SVM_EXIT_MCOMMIT 0xa3
#define SIDECAR_SVM_EXIT_NPF 0x400
/* The low half of -1: TCG stores only that. */
#define SIDECAR_SVM_EXIT_INVALID 0xffffffffU

/* Numbers of the rules, as InvalidVpRegisterMessage.rule and the dumps give them. */
enum sidecar_vmcb_rule {
	SIDECAR_VMCB_RULE_NONE = 0,
	SIDECAR_VMCB_RULE_EFER_SVME = 1,
	SIDECAR_VMCB_RULE_CR0_NW_WITHOUT_CD = 2,
	SIDECAR_VMCB_RULE_CR0_HIGH = 3,
	SIDECAR_VMCB_RULE_CR3_RESERVED = 4,
	SIDECAR_VMCB_RULE_CR4_RESERVED = 5,
	SIDECAR_VMCB_RULE_DR6_HIGH = 6,
	SIDECAR_VMCB_RULE_DR7_HIGH = 7,
	SIDECAR_VMCB_RULE_EFER_RESERVED = 8,
	SIDECAR_VMCB_RULE_LONG_MODE_WITHOUT_PAE = 9,
	SIDECAR_VMCB_RULE_LONG_MODE_WITHOUT_PE = 0xa,
	SIDECAR_VMCB_RULE_CS_L_AND_D = 0xb,
	SIDECAR_VMCB_RULE_VMRUN_NOT_INTERCEPTED = 0xc,
	SIDECAR_VMCB_RULE_IOPM_ADDRESS = 0xd,
	SIDECAR_VMCB_RULE_MSRPM_ADDRESS = 0xe,
	SIDECAR_VMCB_RULE_EVENT_TYPE = 0xf,
	SIDECAR_VMCB_RULE_EVENT_VECTOR = 0x10,
	SIDECAR_VMCB_RULE_ASID_ZERO = 0x11,
	SIDECAR_VMCB_RULE_NESTED_ROOT = 0x12,
	SIDECAR_VMCB_RULE_PAT_TYPE = 0x13,
	SIDECAR_VMCB_RULE_CET_WITHOUT_WP = 0x14,
};

/*
 * The pages of a virtual processor, in the order in which they follow each other from
 * vp_pages_pa on.
 */
enum sidecar_vp_page {
	/* Page table of the CPU's second 2 MiB: these pages, and windows onto guest memory. */
	SIDECAR_VP_PAGE_TABLE = 0,
	SIDECAR_VP_PAGE_VMCB = 1,
	/* Where VMRUN keeps the sidecar's state; its layout is the processor's. */
	SIDECAR_VP_PAGE_HOST_SAVE = 2,
	/* The rest of the sidecar's state, for VMLOAD. */
	SIDECAR_VP_PAGE_HOST_VMCB = 3,
	/* First of three pages: the guest's XSAVE image. */
	SIDECAR_VP_PAGE_XSAVE = 4,
};

/* Phases of an arrival, in order; each has its TSC stamp in BootRecord.stamps. */
enum sidecar_boot_phase {
	/* First instruction in the trampoline, real mode. */
	SIDECAR_BOOT_PHASE_TRAMPOLINE = 0,
	/* 64-bit code of the image, on the transition tables. */
	SIDECAR_BOOT_PHASE_LONG_MODE = 1,
	/* The CPU found itself in the CPU map. */
	SIDECAR_BOOT_PHASE_FOUND = 2,
	/* Own page tables, stack, GDT, TSS and IDT are loaded. */
	SIDECAR_BOOT_PHASE_MAPPED = 3,
	/* x2APIC enabled, state scrubbed. */
	SIDECAR_BOOT_PHASE_APIC = 4,
	/* It has helped to start the others, if it was to. */
	SIDECAR_BOOT_PHASE_FAN_OUT = 5,
	/* Status set to IDLE. */
	SIDECAR_BOOT_PHASE_IDLE = 6,
};

/* What the flight recorder keeps; `value` of the entry in brackets. */
enum sidecar_recorder_event {
	SIDECAR_RECORDER_EVENT_NONE = 0,
	/* On own tables after INIT-SIPI (arrivals so far). */
	SIDECAR_RECORDER_EVENT_ARRIVED = 1,
	/* A command was taken (SidecarCommand). */
	SIDECAR_RECORDER_EVENT_COMMAND = 2,
	/* Arrival or command is over, the CPU goes idle (CpuStatus it leaves). */
	SIDECAR_RECORDER_EVENT_FINISHED = 3,
	/* Torn down and about to be REMOVED (removals so far). */
	SIDECAR_RECORDER_EVENT_REMOVED = 4,
	/* A fault was contained (vector). */
	SIDECAR_RECORDER_EVENT_FAULTED = 5,
};

/* A CPU's private pages, in the order in which they lie in node memory. */
enum sidecar_private_page {
	SIDECAR_PRIVATE_PAGE_PML4 = 0,
	SIDECAR_PRIVATE_PAGE_PDPT = 1,
	SIDECAR_PRIVATE_PAGE_PD = 2,
	SIDECAR_PRIVATE_PAGE_PT = 3,
	SIDECAR_PRIVATE_PAGE_STACK = 4,
	SIDECAR_PRIVATE_PAGE_INTERRUPT = 5,
	SIDECAR_PRIVATE_PAGE_GLOBALS = 6,
	SIDECAR_PRIVATE_PAGE_PRIVILEGED = 7,
	SIDECAR_PRIVATE_PAGE_DIAGNOSTIC = 8,
	SIDECAR_PRIVATE_PAGE_LOG = 9,
};

/* A CPU's shared pages, in the order in which user space maps them. */
enum sidecar_shared_page {
	SIDECAR_SHARED_PAGE_COMMAND = 0,
	SIDECAR_SHARED_PAGE_REGISTER = 1,
};

/* What a part of the bundle is. */
enum sidecar_bundle_kind {
	SIDECAR_BUNDLE_KIND_END = 0,
	SIDECAR_BUNDLE_KIND_SIDECAR = 1,
	SIDECAR_BUNDLE_KIND_LINUX = 2,
	SIDECAR_BUNDLE_KIND_INITRAMFS = 3,
	SIDECAR_BUNDLE_KIND_COMMAND_LINE = 4,
};

/* RelayPage.flags. */
enum sidecar_relay_flags {
	SIDECAR_RELAY_FLAGS_READY = 1,
};

/*
 * Arguments: START to RUN and CLAIM to RESTART a CPU number; INFO base_cpu, cpu_count,
 * per_cpu_shmem (u32 each).
 */
#define SIDECAR_IOCTL_START 0xb8f0
#define SIDECAR_IOCTL_STOP 0xb8f1
#define SIDECAR_IOCTL_RUN 0xb8f2
#define SIDECAR_IOCTL_INFO 0x800cb8f3U
#define SIDECAR_IOCTL_CLAIM 0xb8f4
#define SIDECAR_IOCTL_RELEASE 0xb8f5
#define SIDECAR_IOCTL_RESTART 0xb8f6

/* On /dev/sidecarN, for virtual processors. VM_CREATE has no argument, VP_DESTROY a CPU number. */
enum sidecar_vp_ioctl {
	SIDECAR_VP_IOCTL_VM_CREATE = 0xb8f7,
	SIDECAR_VP_IOCTL_VP_CREATE = 0x4008b8f8,
	SIDECAR_VP_IOCTL_VP_DESTROY = 0xb8f9,
	SIDECAR_VP_IOCTL_DOORBELL = 0x4010b8fa,
	SIDECAR_VP_IOCTL_DOORBELL_FD = 0x4010b8fb,
};

/* On the file descriptor from VM_CREATE. */
enum sidecar_vm_ioctl {
	SIDECAR_VM_IOCTL_MAP = 0x4020b8fc,
	SIDECAR_VM_IOCTL_UNMAP = 0x4010b8fd,
};

/* MemoryMap.rights. */
enum sidecar_guest_rights {
	/* Always: the hardware has no memory that can be written or executed and not read. */
	SIDECAR_GUEST_RIGHTS_READ = 1,
	SIDECAR_GUEST_RIGHTS_WRITE = 2,
	SIDECAR_GUEST_RIGHTS_EXECUTE = 4,
};

/* Who may make a transition. */
enum sidecar_party {
	SIDECAR_PARTY_SIDECAR_BSP = 0,
	SIDECAR_PARTY_SIDECAR_CPU = 1,
	SIDECAR_PARTY_DRIVER = 2,
};

/* Upstream's selection of CPUs, limited to 400; the policy in the CPU map replaces it. */
struct sidecar_per_cpu_state {
	/* 0x0: upstream: sidecar_starts_cpu is valid; must be 0, the CPU map rules */
	__u8 per_cpu_state_specified;
	/* 0x1: upstream: 1 where the sidecar starts the CPU; not used */
	__u8 sidecar_starts_cpu[400];
};

/* One node as the shim split it. */
struct sidecar_node_params {
	/* 0x0: physical address of the node's memory, page aligned */
	__u64 memory_base;
	/* 0x8: its bytes, at least required_memory(vp_count) */
	__u64 memory_size;
	/* 0x10: Linux number of the node's first CPU */
	__u32 base_vp;
	/* 0x14: CPUs of the node, the first one included */
	__u32 vp_count;
};

/* Shim to sidecar: what to start, where, with which memory. */
struct sidecar_params {
	/* 0x0: upstream: hypercall page; must be 0, there is no hypervisor interface */
	__u64 hypercall_page;
	/* 0x8: 1: the sidecar logs each request to log_port as well as to the log rings */
	__u8 enable_logging;
	/* 0x9: zero */
	__u8 reserved_9[3];
	/* 0xc: valid entries of nodes, 1 to 128 */
	__u32 node_count;
	/* 0x10: the nodes */
	struct sidecar_node_params nodes[128];
	/* 0xc10: upstream's selection of CPUs, not used */
	struct sidecar_per_cpu_state initial_state;
	/* 0xda1: zero */
	__u8 reserved_da1[7];
	/* 0xda8: ABI_VERSION of the shim */
	__u32 abi_version;
	/* 0xdac: ParamsFlags */
	__u32 flags;
	/* 0xdb0: ABI hash of the shim */
	__u64 abi_hash;
	/* 0xdb8: physical address of the CPU map, page aligned */
	__u64 cpu_map_pa;
	/* 0xdc0: entries of the CPU map, 2 to 2048 */
	__u32 cpu_map_count;
	/* 0xdc4: TSC ticks per millisecond */
	__u32 tsc_khz;
	/* 0xdc8: free page below 1 MiB for the AP trampoline */
	__u64 trampoline_pa;
	/*
	 * 0xdd0: where the shim will publish the SDCR table, copied to the trampoline page's
	 * anchor
	 */
	__u64 sdcr_pa;
	/* 0xdd8: I/O base of the 16550 for enable_logging, 0 for none */
	__u16 log_port;
	/* 0xdda: zero */
	__u8 reserved_dda[2];
	/* 0xddc: without any CPU arriving for so long, the missing ones are started again */
	__u32 start_timeout_ms;
	/* 0xde0: zero */
	__u8 reserved_de0[544];
};

/* One CPU of the machine; the map's index is the Linux number. */
struct sidecar_cpu_map_entry {
	/* 0x0: x2APIC id, as CPUID leaf 0xB reports it */
	__u32 apic_id;
	/* 0x4: number Linux will give: the boot CPU is 0, then MADT order; equals the index */
	__u32 linux_number;
	/* 0x8: sidecar node, 0xFFFF if the CPU belongs to none */
	__u16 node;
	/* 0xa: proximity domain of the SRAT, 0 without one */
	__u16 numa_node;
	/* 0xc: who starts it */
	__u32 policy;
};

/* One sentence about what went wrong. */
struct sidecar_command_error {
	/* 0x0: bytes of the sentence */
	__u8 length;
	/* 0x1: UTF-8 */
	__u8 text[255];
};

/* Where the sidecar put a node's pages. */
struct sidecar_node_output {
	/* 0x0: physical address of the node's control page */
	__u64 control_page;
	/* 0x8: physical address of the shared pages: command and register page of each CPU */
	__u64 shmem_pages_base;
	/* 0x10: their bytes: vp_count * 8192 */
	__u64 shmem_pages_size;
};

/* Sidecar to shim: the answer of the entry. */
struct sidecar_output {
	/* 0x0: meaningful only if the entry returned false */
	struct sidecar_command_error error;
	/* 0x100: the nodes, in the order of SidecarParams.nodes */
	struct sidecar_node_output nodes[128];
	/* 0xd00: ABI_VERSION of the sidecar */
	__u32 abi_version;
	/* 0xd04: CPUs that faulted during their arrival; their fault records say why */
	__u32 faulted_count;
	/* 0xd08: ABI hash of the sidecar */
	__u64 abi_hash;
	/* 0xd10: physical address of the running image */
	__u64 image_pa;
	/* 0xd18: its bytes with .bss */
	__u64 image_bytes;
	/* 0xd20: TSC when the entry was called */
	__u64 entry_tsc;
	/* 0xd28: TSC before the first INIT */
	__u64 first_init_tsc;
	/* 0xd30: TSC when the last CPU was seen idle */
	__u64 all_idle_tsc;
	/* 0xd38: CPUs that reached IDLE */
	__u32 started_count;
	/* 0xd3c: CPUs that did not, within three attempts */
	__u32 missing_count;
	/* 0xd40: x2APIC ids of the first 64 of them */
	__u32 missing_apic_ids[64];
	/* 0xe40: zero */
	__u8 reserved_e40[448];
};

/* Driver and sidecar, one per node: whose turn it is on every CPU, and how to call each other. */
struct sidecar_control_page {
	/* 0x0: node number, the suffix of the device name */
	__u32 index;
	/* 0x4: Linux number of the node's first CPU */
	__u32 base_cpu;
	/* 0x8: CPUs of the node, the first one included */
	__u32 cpu_count;
	/* 0xc: vector that makes a sidecar CPU look at its status */
	__u32 request_vector;
	/* 0x10: x2APIC id to notify; with response_vector read and written as one aligned u64 */
	__u32 response_cpu;
	/* 0x14: vector to notify with; 0: notify nobody */
	__u32 response_vector;
	/* 0x18: set to 1 by a CPU whose status changed, exchanged with 0 by the driver */
	__u32 needs_attention;
	/* 0x1c: ABI_VERSION of the sidecar */
	__u32 abi_version;
	/* 0x20: ABI hash of the sidecar */
	__u64 abi_hash;
	/* 0x28: zero */
	__u8 reserved_28[24];
	/* 0x40: CpuStatus of CPU base_cpu + i */
	__u8 cpu_status[4032];
};

/* Registers that a run loads and stores. */
struct sidecar_cpu_context_x64 {
	/* 0x0: general registers in the order of their encoding, but index 4 is CR2, not RSP */
	__u64 gps[16];
	/* 0x80: FXSAVE image */
	__u8 fx_state[512];
	/* 0x280: zero */
	__u8 reserved_280[384];
};

/* Why a virtual processor stopped, as the TLFS words it. */
struct sidecar_hv_message {
	/* 0x0: HvMessageType of the TLFS */
	__u32 message_type;
	/* 0x4: valid bytes of payload */
	__u8 payload_size;
	/* 0x5: TLFS message flags */
	__u8 message_flags;
	/* 0x6: zero */
	__u16 reserved_6;
	/* 0x8: sender */
	__u64 origination_id;
	/* 0x10: intercept message */
	__u8 payload[240];
};

/* Client and CPU: inputs and outcome of RUN_VP. */
struct sidecar_vp_run {
	/* 0x0: in: TSC ticks after which the run ends, 0: none */
	__u64 time_limit;
	/* 0x8: in: RunFlags */
	__u32 flags;
	/* 0xc: in: bit n: exception vector n ends the run instead of being delivered */
	__u32 exception_intercepts;
	/* 0x10: in: bytes, 0 to 15, added to RIP before the run; taken by replacing it with 0 */
	__u8 advance_rip;
	/* 0x11: zero */
	__u8 reserved_11[3];
	/* 0x14: out: RunEnd */
	__u32 end;
	/* 0x18: out: doorbell bits; the CPU ORs, so the client clears what it has seen */
	__u64 notifications;
	/* 0x20: out: times the guest was entered in this run */
	__u64 guest_entries;
	/* 0x28: out: exits of this run that the sidecar finished */
	__u64 local_exits;
	/* 0x30: out: TSC ticks spent in the guest */
	__u64 guest_tsc;
	/* 0x38: out: the back end's code of the last exit: SvmExit */
	__u64 exit_code;
	/* 0x40: out: Vmcb.exit_info_1 of the last exit */
	__u64 exit_info_1;
	/* 0x48: out: Vmcb.exit_info_2 of the last exit */
	__u64 exit_info_2;
	/* 0x50: out: RIP */
	__u64 rip;
	/* 0x58: out: RSP */
	__u64 rsp;
	/* 0x60: out: RFLAGS */
	__u64 rflags;
	/* 0x68: out: CR0 */
	__u64 cr0;
	/* 0x70: out: CR3 */
	__u64 cr3;
	/* 0x78: out: CR4 */
	__u64 cr4;
	/* 0x80: out: EFER as the guest sees it */
	__u64 efer;
	/* 0x88: out: HvX64SegmentAttribute of CS */
	__u32 cs_attributes;
	/* 0x8c: out: current privilege level */
	__u32 cpl;
	/* 0x90: zero */
	__u8 reserved_90[48];
};

/* Client and one CPU: a command, its data and its answer. */
struct sidecar_command_page {
	/* 0x0: what to do; taken by replacing it with NONE */
	__u32 command;
	/* 0x4: 1: the command failed and error says why */
	__u8 has_error;
	/* 0x5: zero */
	__u8 reserved_5[11];
	/* 0x10: registers of the virtual processor */
	struct sidecar_cpu_context_x64 cpu_context;
	/* 0x410: why the virtual processor stopped */
	struct sidecar_hv_message intercept_message;
	/* 0x510: valid if has_error */
	struct sidecar_command_error error;
	/* 0x610: request and response of the command */
	__u8 request_data[1024];
	/* 0xa10: ABI_VERSION of the sidecar, written on arrival */
	__u32 abi_version;
	/* 0xa14: zero */
	__u32 reserved_a14;
	/* 0xa18: ABI hash of the sidecar, written on arrival */
	__u64 abi_hash;
	/* 0xa20: the client's number for the command */
	__u64 sequence;
	/* 0xa28: sequence of the command that was executed last */
	__u64 completed_sequence;
	/* 0xa30: TSC when that command was taken */
	__u64 start_tsc;
	/* 0xa38: TSC when it was finished */
	__u64 end_tsc;
	/* 0xa40: inputs and outcome of RUN_VP */
	struct sidecar_vp_run run;
	/* 0xb00: zero */
	__u8 reserved_b00[1280];
};

/* Head of GET_VP_REGISTERS and SET_VP_REGISTERS; HvRegisterAssoc entries follow. */
struct sidecar_get_set_vp_register_request {
	/* 0x0: registers that follow, 1 to 31 */
	__u16 count;
	/* 0x2: must be 0 */
	__u8 target_vtl;
	/* 0x3: zero */
	__u8 reserved_3;
	/* 0x4: HvStatus of the register at which processing stopped */
	__u16 status;
	/* 0x6: zero */
	__u8 reserved_6[10];
};

/* A register's name and value. */
struct sidecar_hv_register_assoc {
	/* 0x0: HvRegisterName */
	__u32 name;
	/* 0x4: zero */
	__u8 reserved_4[12];
	/* 0x10: low half of the value */
	__u64 value;
	/* 0x18: high half, 0 for all registers of 64 bits */
	__u64 value_high;
};

/* Request of RAISE. */
struct sidecar_raise_request {
	/* 0x0: RaiseKind */
	__u32 kind;
	/* 0x4: zero */
	__u32 reserved_4;
	/*
	 * 0x8: PAGE_FAULT: address; VECTOR: vector; CORRUPT_PAGE_TABLE: slot of the per-CPU
	 * table; MEASURE_GAPS: TSC ticks
	 */
	__u64 argument;
};

/*
 * Answer of RAISE, MEASURE_GAPS: how evenly time passes on a CPU that does nothing but look at
 * its TSC.
 */
struct sidecar_gaps_answer {
	/* 0x0: TSC ticks from the first look to the last */
	__u64 ticks;
	/* 0x8: most ticks from one look to the next */
	__u64 longest;
	/* 0x10: ticks of all gaps, by the number of their highest bit */
	__u64 sums[64];
	/* 0x210: how many gaps, likewise */
	__u32 counts[64];
};

/* Response of RUN_VP in request_data, as upstream has it. */
struct sidecar_run_vp_response {
	/* 0x0: 1: CommandPage.intercept_message is valid */
	__u8 intercept;
};

/* A segment register as TLFS values have it. */
struct sidecar_hv_x64_segment_register {
	/* 0x0: linear base */
	__u64 base;
	/* 0x8: limit in bytes */
	__u32 limit;
	/* 0xc: selector */
	__u16 selector;
	/*
	 * 0xe: bits 40 to 55 of the descriptor, those of the limit zero; see
	 * HvX64SegmentAttribute
	 */
	__u16 attributes;
};

/* GDTR or IDTR as TLFS values have it. */
struct sidecar_hv_x64_table_register {
	/* 0x0: zero */
	__u8 reserved_0[6];
	/* 0x6: limit in bytes */
	__u16 limit;
	/* 0x8: linear base */
	__u64 base;
};

/* Head of every intercept message. Ref: TLFS, HV_X64_INTERCEPT_MESSAGE_HEADER. */
struct sidecar_intercept_header {
	/* 0x0: Linux number of the CPU */
	__u32 vp_index;
	/* 0x4: bits 0 to 3: bytes to add to rip, 0: not known; bits 4 to 7: CR8 */
	__u8 instruction_length;
	/* 0x5: HvInterceptAccess */
	__u8 access_type;
	/* 0x6: HvExecutionState */
	__u16 execution_state;
	/* 0x8: CS */
	struct sidecar_hv_x64_segment_register cs;
	/* 0x18: RIP of the instruction */
	__u64 rip;
	/* 0x20: RFLAGS */
	__u64 rflags;
};

/* X64_IO_PORT_INTERCEPT: an access to an I/O port that is not the guest's own. */
struct sidecar_io_port_message {
	/* 0x0: READ for IN and INS, WRITE for OUT and OUTS */
	struct sidecar_intercept_header header;
	/* 0x28: I/O port */
	__u16 port;
	/* 0x2a: HvIoAccess */
	__u8 access_info;
	/* 0x2b: valid bytes of instruction_bytes */
	__u8 instruction_byte_count;
	/* 0x2c: zero */
	__u32 reserved_2c;
	/* 0x30: RAX */
	__u64 rax;
	/* 0x38: the instruction, if it could be read */
	__u8 instruction_bytes[16];
	/* 0x48: for OUTS without a segment prefix */
	struct sidecar_hv_x64_segment_register ds;
	/* 0x58: for INS */
	struct sidecar_hv_x64_segment_register es;
	/* 0x68: RCX */
	__u64 rcx;
	/* 0x70: RSI */
	__u64 rsi;
	/* 0x78: RDI */
	__u64 rdi;
};

/* X64_MSR_INTERCEPT: an MSR that the sidecar does not know. */
struct sidecar_msr_message {
	/* 0x0: READ or WRITE */
	struct sidecar_intercept_header header;
	/* 0x28: MSR number */
	__u32 msr;
	/* 0x2c: zero */
	__u32 reserved_2c;
	/* 0x30: RDX */
	__u64 rdx;
	/* 0x38: RAX */
	__u64 rax;
};

/* X64_CPUID_INTERCEPT, with RunFlags.CPUID_EXITS. */
struct sidecar_cpuid_message {
	/* 0x0: EXECUTE */
	struct sidecar_intercept_header header;
	/* 0x28: leaf */
	__u64 rax;
	/* 0x30: subleaf */
	__u64 rcx;
	/* 0x38: RDX */
	__u64 rdx;
	/* 0x40: RBX */
	__u64 rbx;
	/* 0x48: what the sidecar would answer */
	__u64 default_rax;
	/* 0x50: likewise */
	__u64 default_rcx;
	/* 0x58: likewise */
	__u64 default_rdx;
	/* 0x60: likewise */
	__u64 default_rbx;
};

/* UNMAPPED_GPA and GPA_INTERCEPT. */
struct sidecar_memory_message {
	/* 0x0: READ, WRITE or EXECUTE */
	struct sidecar_intercept_header header;
	/* 0x28: HvCacheType */
	__u32 cache_type;
	/* 0x2c: valid bytes of instruction_bytes */
	__u8 instruction_byte_count;
	/* 0x2d: HvMemoryAccess */
	__u8 memory_access_info;
	/* 0x2e: CR8 */
	__u8 tpr_priority;
	/* 0x2f: zero */
	__u8 reserved_2f;
	/* 0x30: linear address, if GVA_VALID */
	__u64 gva;
	/* 0x38: guest-physical address */
	__u64 gpa;
	/* 0x40: the instruction, if it could be read */
	__u8 instruction_bytes[16];
};

/* X64_EXCEPTION_INTERCEPT: an exception that the VMM asked for, before it is delivered. */
struct sidecar_exception_message {
	/* 0x0: EXECUTE */
	struct sidecar_intercept_header header;
	/* 0x28: exception vector */
	__u16 vector;
	/* 0x2a: HvExceptionInfo */
	__u8 exception_info;
	/* 0x2b: valid bytes of instruction_bytes */
	__u8 instruction_byte_count;
	/* 0x2c: if ERROR_CODE_VALID */
	__u32 error_code;
	/* 0x30: page fault: linear address; debug exception: new bits of DR6 */
	__u64 exception_parameter;
	/* 0x38: zero */
	__u64 reserved_38;
	/* 0x40: the instruction, if it could be read */
	__u8 instruction_bytes[16];
	/* 0x50: DS */
	struct sidecar_hv_x64_segment_register ds;
	/* 0x60: SS */
	struct sidecar_hv_x64_segment_register ss;
	/* 0x70: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15 */
	__u64 registers[16];
};

/* X64_HALT. */
struct sidecar_halt_message {
	/* 0x0: EXECUTE; rip is at the HLT */
	struct sidecar_intercept_header header;
};

/* UNRECOVERABLE_EXCEPTION: triple fault. */
struct sidecar_unrecoverable_exception_message {
	/* 0x0: EXECUTE */
	struct sidecar_intercept_header header;
};

/*
 * INVALID_VP_REGISTER_VALUE: state that no guest can be entered with. The state is as before the
 * run.
 */
struct sidecar_invalid_vp_register_message {
	/* 0x0: Linux number of the CPU */
	__u32 vp_index;
	/* 0x4: zero; TLFS ends here */
	__u32 reserved_4;
	/* 0x8: number of the broken rule, 0 if the processor refused and no rule is broken */
	__u32 rule;
	/* 0xc: zero */
	__u32 reserved_c;
	/* 0x10: the value that broke it */
	__u64 value;
};

/*
 * X64_INTERRUPTION_DELIVERABLE, as asked for by HvX64RegisterDeliverabilityNotifications, which
 * it clears.
 */
struct sidecar_interruption_deliverable_message {
	/* 0x0: EXECUTE */
	struct sidecar_intercept_header header;
	/* 0x28: HvInterruptionType: INTERRUPT or NMI */
	__u8 deliverable_type;
	/* 0x29: zero */
	__u8 reserved_29[7];
};

/* UNSUPPORTED_FEATURE: an exit that this version does not know. */
struct sidecar_unsupported_feature_message {
	/* 0x0: Linux number of the CPU */
	__u32 vp_index;
	/* 0x4: 1: intercept */
	__u32 feature_code;
	/* 0x8: the back end's exit code */
	__u64 feature_parameter;
};

/* Request of TRANSLATE_GVA. */
struct sidecar_translate_gva_request {
	/* 0x0: number of the guest-virtual page */
	__u64 gvn;
	/* 0x8: HvTranslateFlags */
	__u64 control_flags;
};

/* Response of TRANSLATE_GVA. Ref: TLFS, HV_OUTPUT_TRANSLATE_VIRTUAL_ADDRESS_EX. */
struct sidecar_translate_gva_response {
	/* 0x0: HvStatus */
	__u16 status;
	/* 0x2: level of the guest's page table at which the walk ended; 0: at the page itself */
	__u16 level;
	/* 0x4: zero */
	__u8 reserved_4[12];
	/* 0x10: HvTranslateResult */
	__u32 result_code;
	/* 0x14: HvCacheType */
	__u8 cache_type;
	/* 0x15: bit 0: overlay page, always 0 here */
	__u8 reserved_15[3];
	/* 0x18: zero */
	__u64 reserved_18;
	/* 0x20: HvPendingEvent that an access would have raised, 0 if none */
	__u64 event_info[4];
	/*
	 * 0x40: number of the guest-physical page; of the table that cannot be used, if level is
	 * not 0
	 */
	__u64 gpa_page;
	/* 0x48: zero */
	__u64 reserved_48;
};

/* How a CPU started, last time. */
struct sidecar_boot_record {
	/*
	 * 0x0: times the CPU came through the trampoline; 0: never, the pages are not yet
	 * initialised
	 */
	__u64 arrivals;
	/* 0x8: x2APIC id that CPUID leaf 0xB gave */
	__u32 apic_id;
	/* 0xc: Linux number found in the CPU map */
	__u32 linux_number;
	/* 0x10: CPUs that this CPU started in its fan-out */
	__u32 started_by_it;
	/* 0x14: zero */
	__u32 reserved_14;
	/* 0x18: TSC per BootPhase of the last arrival; 0: not reached */
	__u64 stamps[8];
	/* 0x58: zero */
	__u8 reserved_58[40];
};

/* The last contained fault of a CPU. */
struct sidecar_fault_record {
	/* 0x0: faults of this CPU since boot; 0: the rest is not valid */
	__u64 count;
	/* 0x8: TSC when the record was written */
	__u64 tsc;
	/* 0x10: exception vector */
	__u32 vector;
	/* 0x14: 1: the fault handler itself faulted; registers below rip and cr2 are not valid */
	__u32 nested;
	/* 0x18: error code, 0 for vectors without one */
	__u64 error_code;
	/* 0x20: virtual address of the instruction */
	__u64 rip;
	/* 0x28: code segment */
	__u64 cs;
	/* 0x30: flags */
	__u64 rflags;
	/* 0x38: stack pointer */
	__u64 rsp;
	/* 0x40: stack segment */
	__u64 ss;
	/* 0x48: control register 0 */
	__u64 cr0;
	/* 0x50: page-fault address */
	__u64 cr2;
	/* 0x58: root of the page tables */
	__u64 cr3;
	/* 0x60: control register 4 */
	__u64 cr4;
	/* 0x68: debug status */
	__u64 dr6;
	/* 0x70: rax rcx rdx rbx rsp rbp rsi rdi r8 to r15 */
	__u64 registers[16];
	/* 0xf0: CpuStatus when it happened */
	__u32 status;
	/* 0xf4: SidecarCommand being executed, 0 if none */
	__u32 command;
	/* 0xf8: zero */
	__u8 reserved_f8[8];
};

/* What happened on a CPU since boot. */
struct sidecar_counters {
	/* 0x0: commands executed */
	__u64 commands;
	/* 0x8: request interrupts taken */
	__u64 requests;
	/* 0x10: spurious interrupts of the local APIC */
	__u64 spurious;
	/* 0x18: commands answered with an error */
	__u64 errors;
	/* 0x20: times the CPU was given up */
	__u64 removals;
	/* 0x28: interrupts of the CPU's own timer */
	__u64 timer;
	/* 0x30: zero */
	__u8 reserved_30[16];
	/* 0x40: interrupts per vector that are nobody's */
	__u32 stray[256];
};

/* One event of a CPU. */
struct sidecar_recorder_entry {
	/* 0x0: TSC of the event */
	__u64 tsc;
	/* 0x8: what happened */
	__u32 event;
	/* 0xc: more of it, by event */
	__u32 value;
};

/* The flight recorder of a CPU: survives restarts, faults and the machine's death. */
struct sidecar_recorder {
	/* 0x0: entries ever written; entry n is at n % 128, and whole before this counts it */
	__u64 written;
	/* 0x8: zero */
	__u8 reserved_8[56];
	/* 0x40: the last 128 events */
	struct sidecar_recorder_entry entries[128];
};

/* One CPU to everyone: how it started, what happened, its last fault, its last events. */
struct sidecar_diagnostic_page {
	/* 0x0: how the CPU started */
	struct sidecar_boot_record boot;
	/* 0x80: its last fault */
	struct sidecar_fault_record fault;
	/* 0x180: what happened */
	struct sidecar_counters counters;
	/* 0x5c0: its last events */
	struct sidecar_recorder recorder;
	/* 0xe00: zero */
	__u8 reserved_e00[512];
};

/* One CPU to everyone: its log. */
struct sidecar_log_ring {
	/* 0x0: bytes ever written; the next one goes to text[written % 4080] */
	__u64 written;
	/* 0x8: zero */
	__u64 reserved_8;
	/* 0x10: lines, each ended by a line feed; the oldest may be cut */
	__u8 text[4080];
};

/*
 * Driver and one CPU: who looks for what itself, its virtual processor; user space never maps
 * it.
 */
struct sidecar_privileged_page {
	/* 0x0: ABI_VERSION of the sidecar, written on arrival */
	__u32 abi_version;
	/*
	 * 0x4: driver: not 0 while it looks for the end of a command itself: no attention at
	 * that end
	 */
	__u32 quiet;
	/* 0x8: ABI hash of the sidecar, written on arrival */
	__u64 abi_hash;
	/* 0x10: restarts that the driver has ordered; logged by the arriving CPU */
	__u64 restart_count;
	/* 0x18: 0: no virtual processor; else the number of its creation, another one each time */
	__u64 vp_created;
	/* 0x20: VP_PAGES physically contiguous pages, in the order of VpPage */
	__u64 vp_pages_pa;
	/* 0x28: root of the nested page tables, four levels */
	__u64 guest_root_pa;
	/* 0x30: I/O permission map of three pages; 0: the sidecar's, in which every port exits */
	__u64 iopm_pa;
	/*
	 * 0x38: driver: TSC ticks for which a CPU that is done looks for a command before it
	 * halts
	 */
	__u32 halt_poll;
	/* 0x3c: zero */
	__u32 reserved_3c;
	/* 0x40: counted up by the driver after it has changed the nested page tables */
	__u64 guest_generation;
	/* 0x48: zero */
	__u8 reserved_48[56];
	/* 0x80: guest_generation from which on the CPU uses no older translation, written by it */
	__u64 seen_generation;
	/*
	 * 0x88: CPU: not 0 from before its status is IDLE until it may halt: a command needs no
	 * request
	 */
	__u32 polling;
	/* 0x8c: zero */
	__u8 reserved_8c[52];
	/* 0xc0: bits ORed in by the driver, taken by the CPU when a run ends */
	__u64 doorbell;
	/* 0xc8: zero */
	__u8 reserved_c8[3896];
};

/* Shim to driver and tools: where everything is. Ref: ACPI 5.2.6 for the header. */
struct sidecar_sdcr {
	/* 0x0: AcpiHeader with signature SDCR */
	__u8 header[36];
	/* 0x24: ABI_VERSION */
	__u32 abi_version;
	/* 0x28: ABI hash */
	__u64 abi_hash;
	/* 0x30: SdcrNode entries */
	__u32 node_count;
	/* 0x34: their offset in the table */
	__u32 node_offset;
	/* 0x38: CpuMapEntry entries, every CPU of the machine */
	__u32 cpu_count;
	/* 0x3c: their offset in the table */
	__u32 cpu_offset;
	/* 0x40: page for SIPI, by which a CPU comes back */
	__u64 trampoline_pa;
	/* 0x48: physical address of the sidecar image */
	__u64 image_pa;
	/* 0x50: its bytes */
	__u64 image_bytes;
	/* 0x58: RelayPage, 0 where Linux runs */
	__u64 relay_pa;
	/* 0x60: TSC ticks per millisecond */
	__u32 tsc_khz;
	/* 0x64: CPUs that did not start */
	__u32 missing_count;
	/* 0x68: TSC at the shim's entry */
	__u64 shim_entry_tsc;
	/* 0x70: TSC when the sidecar was called */
	__u64 sidecar_entry_tsc;
	/* 0x78: TSC before the first INIT */
	__u64 first_init_tsc;
	/* 0x80: TSC when the last CPU was idle */
	__u64 all_idle_tsc;
	/* 0x88: TSC when the shim was done */
	__u64 hand_over_tsc;
};

/* One node in the SDCR table. */
struct sidecar_sdcr_node {
	/* 0x0: control page */
	__u64 control_pa;
	/* 0x8: shared pages: command and register page of each CPU */
	__u64 shared_pa;
	/* 0x10: private pages, PRIVATE_PAGES of each CPU */
	__u64 private_pa;
	/* 0x18: bytes of the node's memory, from the control page on */
	__u64 memory_bytes;
	/* 0x20: Linux number of the first CPU */
	__u32 base_cpu;
	/* 0x24: CPUs */
	__u32 cpu_count;
	/* 0x28: proximity domain of its CPUs */
	__u32 numa_node;
	/* 0x2c: proximity domain of its memory */
	__u32 memory_numa_node;
};

/*
 * Sidecar to arriving CPUs and tools: read by any number of CPUs at once, written once, before
 * the first INIT.
 */
struct sidecar_trampoline_page {
	/* 0x0: the trampoline, entered by SIPI at offset 0 in real mode */
	__u8 code[3584];
	/* 0xe00: null, 64-bit code, data, unused */
	__u64 gdt[4];
	/* 0xe20: pseudo-descriptor for LGDT: limit */
	__u16 gdt_limit;
	/* 0xe22: pseudo-descriptor: base bits 0 to 15 */
	__u16 gdt_base_low;
	/* 0xe24: pseudo-descriptor: base bits 16 to 31 */
	__u16 gdt_base_high;
	/* 0xe26: zero */
	__u16 reserved_e26;
	/* 0xe28: far pointer to the 64-bit part: offset */
	__u32 long_mode_offset;
	/* 0xe2c: far pointer: selector */
	__u16 long_mode_selector;
	/* 0xe2e: zero */
	__u16 reserved_e2e;
	/* 0xe30: root of the transition page tables, below 4 GiB */
	__u64 transition_cr3;
	/* 0xe38: virtual address of `arrive` in the image */
	__u64 arrive_va;
	/* 0xe40: zero */
	__u8 reserved_e40[192];
	/* 0xf00: TRAMPOLINE_MAGIC: the anchor by which a tool finds everything */
	__u64 magic;
	/* 0xf08: ABI_VERSION of the sidecar */
	__u32 abi_version;
	/* 0xf0c: zero */
	__u32 reserved_f0c;
	/* 0xf10: ABI hash of the sidecar */
	__u64 abi_hash;
	/* 0xf18: physical address of the SDCR table */
	__u64 sdcr_pa;
	/* 0xf20: zero */
	__u8 reserved_f20[224];
};

/* One part of the boot bundle. */
struct sidecar_bundle_part {
	/* 0x0: what it is */
	__u32 kind;
	/* 0x4: sum of the part's u32 words, padded with zeros to a multiple of 4, modulo 2^32 */
	__u32 checksum;
	/* 0x8: from the bundle's start, page aligned */
	__u64 offset;
	/* 0x10: bytes */
	__u64 size;
};

/* Host tools to shim: head of the boot bundle, which QEMU loads by -initrd. */
struct sidecar_bundle {
	/* 0x0: BUNDLE_MAGIC */
	__u64 magic;
	/* 0x8: ABI_VERSION of the builder */
	__u32 abi_version;
	/* 0xc: valid entries of parts, 1 to 8 */
	__u32 part_count;
	/* 0x10: ABI hash of the builder */
	__u64 abi_hash;
	/* 0x18: size of the whole bundle */
	__u64 total_bytes;
	/* 0x20: the parts */
	struct sidecar_bundle_part parts[8];
	/* 0xe0: zero */
	__u8 reserved_e0[3872];
};

/* Host and the shim's relay: interrupt commands to send on the host's behalf. */
struct sidecar_relay_page {
	/* 0x0: RELAY_MAGIC, written by the shim */
	__u64 magic;
	/* 0x8: RelayFlags, written by the shim */
	__u32 flags;
	/* 0xc: vector on the boot CPU that the shim counts, written by the shim */
	__u32 response_vector;
	/* 0x10: x2APIC id of the boot CPU, written by the shim */
	__u32 bsp_apic_id;
	/* 0x14: ring entries consumed, modulo 2^32, written by the shim */
	__u32 tail;
	/* 0x18: response interrupts taken, written by the shim */
	__u64 responses;
	/* 0x20: interrupts of the kick UART, written by the shim */
	__u64 wakeups;
	/* 0x28: zero */
	__u8 reserved_28[24];
	/* 0x40: ring entries produced, modulo 2^32, written by the host */
	__u32 head;
	/* 0x44: zero */
	__u8 reserved_44[60];
	/* 0x80: x2APIC ICR values to send, written by the host */
	__u64 ring[256];
	/* 0x880: zero */
	__u8 reserved_880[1920];
};

/* Argument of VP_CREATE. */
struct sidecar_vp_create {
	/* 0x0: Linux number of a CPU that the file has claimed */
	__u32 cpu;
	/* 0x4: file descriptor from VM_CREATE: the guest memory */
	__u32 vm_fd;
};

/* Argument of DOORBELL. */
struct sidecar_doorbell {
	/* 0x0: Linux number of a CPU with a virtual processor of the file */
	__u32 cpu;
	/* 0x4: zero */
	__u32 reserved_4;
	/* 0x8: bits that are posted */
	__u64 bits;
};

/* Argument of DOORBELL_FD. */
struct sidecar_doorbell_fd {
	/* 0x0: Linux number of a CPU with a virtual processor of the file */
	__u32 cpu;
	/* 0x4: file descriptor of an eventfd, or NO_EVENTFD to end a binding */
	__u32 eventfd;
	/* 0x8: 0 to 63: the bit that a signal posts */
	__u32 bit;
	/* 0xc: zero */
	__u32 reserved_c;
};

/* Argument of MAP. */
struct sidecar_memory_map {
	/* 0x0: guest-physical address, a multiple of the page size */
	__u64 gpa;
	/* 0x8: bytes, a multiple of the page size */
	__u64 size;
	/* 0x10: where the caller has the memory, a multiple of the page size */
	__u64 user_address;
	/* 0x18: GuestRights */
	__u32 rights;
	/* 0x1c: zero */
	__u32 reserved_1c;
};

/* Argument of UNMAP. */
struct sidecar_memory_unmap {
	/* 0x0: MemoryMap.gpa of a mapping */
	__u64 gpa;
	/* 0x8: MemoryMap.size of the same mapping */
	__u64 size;
};

/*
 * Every change that a status byte may make: X(old, new, party, primitive), by names of CpuStatus
 * and Party.
 */
#define SIDECAR_CPU_TRANSITIONS(X) \
	/* boot, for every CPU to start: before INIT and STARTUP */ \
	X(REMOVED, RUN, SIDECAR_BSP, store) \
	/* the CPU did not arrive: its claim is revoked */ \
	X(RUN, REMOVED, SIDECAR_BSP, cmpxchg) \
	/* arrival or command finished */ \
	X(RUN, IDLE, SIDECAR_CPU, cmpxchg) \
	/* command finished after it was cancelled */ \
	X(STOP, IDLE, SIDECAR_CPU, cmpxchg) \
	/* start a command */ \
	X(IDLE, RUN, DRIVER, cmpxchg) \
	/* cancel the command */ \
	X(RUN, STOP, DRIVER, cmpxchg) \
	/* Linux wants the CPU */ \
	X(IDLE, REMOVE, DRIVER, cmpxchg) \
	/* torn down, halted for Linux's INIT */ \
	X(REMOVE, REMOVED, SIDECAR_CPU, cmpxchg) \
	/* fault in arrival or in a command */ \
	X(RUN, FAULTED, SIDECAR_CPU, cmpxchg) \
	/* fault in a cancelled command */ \
	X(STOP, FAULTED, SIDECAR_CPU, cmpxchg) \
	/* NMI, machine check or fault while parked */ \
	X(IDLE, FAULTED, SIDECAR_CPU, cmpxchg) \
	/* fault while tearing down */ \
	X(REMOVE, FAULTED, SIDECAR_CPU, cmpxchg) \
	/* restart; INIT-SIPI to the trampoline follows */ \
	X(FAULTED, RUN, DRIVER, cmpxchg) \
	/* Linux takes a faulted CPU: INIT makes that safe */ \
	X(FAULTED, REMOVED, DRIVER, cmpxchg) \
	/* return of a CPU; INIT-SIPI to the trampoline follows */ \
	X(REMOVED, RUN, DRIVER, cmpxchg) \
	/* restart of a CPU that ignored a cancel, after INIT */ \
	X(STOP, RUN, DRIVER, cmpxchg) \
	/* restart of a CPU that ignored a removal, after INIT */ \
	X(REMOVE, RUN, DRIVER, cmpxchg) \
	/* Linux took the CPU by INIT while no driver was loaded */ \
	X(IDLE, REMOVED, DRIVER, cmpxchg) \
	/* likewise, while it ran a command */ \
	X(RUN, REMOVED, DRIVER, cmpxchg) \
	/* likewise, while it ended a command */ \
	X(STOP, REMOVED, DRIVER, cmpxchg) \
	/* likewise, while it was being removed */ \
	X(REMOVE, REMOVED, DRIVER, cmpxchg) \
	/* end */

/* The exception vectors by the manual's short names: X(vector, mnemonic). */
#define SIDECAR_EXCEPTIONS(X) \
	X(0, "#DE") \
	X(1, "#DB") \
	X(2, "NMI") \
	X(3, "#BP") \
	X(4, "#OF") \
	X(5, "#BR") \
	X(6, "#UD") \
	X(7, "#NM") \
	X(8, "#DF") \
	X(10, "#TS") \
	X(11, "#NP") \
	X(12, "#SS") \
	X(13, "#GP") \
	X(14, "#PF") \
	X(16, "#MF") \
	X(17, "#AC") \
	X(18, "#MC") \
	X(19, "#XM") \
	X(20, "#VE") \
	X(21, "#CP") \
	X(28, "#HV") \
	X(29, "#VC") \
	X(30, "#SX") \
	/* end */

/* Is old -> new by party in the table? */
static inline int sidecar_cpu_transition_allowed(__u8 old, __u8 new_status,
						 enum sidecar_party party)
{
#define SIDECAR_TRANSITION_MATCHES(o, n, p, primitive) \
	|| (old == SIDECAR_CPU_STATUS_##o && new_status == SIDECAR_CPU_STATUS_##n && \
	    party == SIDECAR_PARTY_##p)
	return 0 SIDECAR_CPU_TRANSITIONS(SIDECAR_TRANSITION_MATCHES);
#undef SIDECAR_TRANSITION_MATCHES
}

/* Where every CPU has the image mapped, and how much of it at most. */
#define SIDECAR_IMAGE_VA 0xffffff8000000000ULL
#define SIDECAR_IMAGE_LIMIT 0x200000
#define SIDECAR_TABLE_ENTRIES 512
#define SIDECAR_PAGES_PER_CPU (SIDECAR_PRIVATE_PAGES + SIDECAR_SHARED_PAGES)

/* Bytes of node memory: control page, shared pages, private pages, tables of the window onto it. */
static inline __u64 sidecar_required_memory(__u32 cpu_count)
{
	__u64 pages = 1 + (__u64)SIDECAR_PAGES_PER_CPU * cpu_count;

	pages += (pages + SIDECAR_TABLE_ENTRIES - 1) / SIDECAR_TABLE_ENTRIES;
	return pages * SIDECAR_PAGE_SIZE;
}

/* Physical address of a shared page of the node's CPU number index. */
static inline __u64 sidecar_shared_pa(__u64 memory_base, __u32 index, enum sidecar_shared_page page)
{
	return memory_base +
	       (1 + (__u64)SIDECAR_SHARED_PAGES * index + page) * SIDECAR_PAGE_SIZE;
}

/* Physical address of a private page of the node's CPU number index. */
static inline __u64 sidecar_private_pa(__u64 memory_base, __u32 cpu_count, __u32 index,
				       enum sidecar_private_page page)
{
	return memory_base + (1 + (__u64)SIDECAR_SHARED_PAGES * cpu_count +
			      (__u64)SIDECAR_PRIVATE_PAGES * index + page) * SIDECAR_PAGE_SIZE;
}

#endif /* SIDECAR_ABI_H */
