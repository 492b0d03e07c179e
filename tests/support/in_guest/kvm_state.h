/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * All registers of a virtual processor of KVM, printed as members of a JSON object under the names
 * of the TLFS.
 *
 * Numbers are decimal; a segment is [base, limit, selector, attributes], a table [base, limit], and
 * `xsave` the first XSAVE_BYTES of the XSAVE image as hexadecimal digits.
 */
#ifndef KVM_STATE_H
#define KVM_STATE_H

#include <err.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define XSAVE_BYTES 832		/* legacy part, header, and the upper halves of the YMM registers */

struct named_msr {
	const char *name;
	uint32_t index;
};

static const struct named_msr named_msrs[] = {
	{ "KernelGsBase", 0xc0000102 }, { "Pat", 0x277 }, { "SysenterCs", 0x174 },
	{ "SysenterEip", 0x176 }, { "SysenterEsp", 0x175 }, { "Star", 0xc0000081 },
	{ "Lstar", 0xc0000082 }, { "Cstar", 0xc0000083 }, { "Sfmask", 0xc0000084 },
	{ "TscAux", 0xc0000103 }, { "MsrMtrrCap", 0xfe }, { "MsrMtrrDefType", 0x2ff },
	{ "MsrMtrrPhysBase0", 0x200 }, { "MsrMtrrPhysMask0", 0x201 },
	{ "MsrMtrrPhysBase1", 0x202 }, { "MsrMtrrPhysMask1", 0x203 },
	{ "MsrMtrrPhysBase2", 0x204 }, { "MsrMtrrPhysMask2", 0x205 },
	{ "MsrMtrrPhysBase3", 0x206 }, { "MsrMtrrPhysMask3", 0x207 },
	{ "MsrMtrrPhysBase4", 0x208 }, { "MsrMtrrPhysMask4", 0x209 },
	{ "MsrMtrrPhysBase5", 0x20a }, { "MsrMtrrPhysMask5", 0x20b },
	{ "MsrMtrrPhysBase6", 0x20c }, { "MsrMtrrPhysMask6", 0x20d },
	{ "MsrMtrrPhysBase7", 0x20e }, { "MsrMtrrPhysMask7", 0x20f },
	{ "MsrMtrrFix64k00000", 0x250 }, { "MsrMtrrFix16k80000", 0x258 },
	{ "MsrMtrrFix16kA0000", 0x259 }, { "MsrMtrrFix4kC0000", 0x268 },
	{ "MsrMtrrFix4kC8000", 0x269 }, { "MsrMtrrFix4kD0000", 0x26a },
	{ "MsrMtrrFix4kD8000", 0x26b }, { "MsrMtrrFix4kE0000", 0x26c },
	{ "MsrMtrrFix4kE8000", 0x26d }, { "MsrMtrrFix4kF0000", 0x26e },
	{ "MsrMtrrFix4kF8000", 0x26f },
};

#define NAMED_MSRS (sizeof(named_msrs) / sizeof(named_msrs[0]))

static long must(int fd, unsigned long request, void *argument, const char *what)
{
	long result = ioctl(fd, request, argument);

	if (result < 0)
		err(1, "%s", what);
	return result;
}

static void tell(const char *name, uint64_t value)
{
	printf("\"%s\": %llu, ", name, (unsigned long long)value);
}

static void tell_segment(const char *name, const struct kvm_segment *s)
{
	unsigned int attributes = s->type | s->s << 4 | s->dpl << 5 | s->present << 7 |
				  s->avl << 12 | s->l << 13 | s->db << 14 | s->g << 15;

	printf("\"%s\": [%llu, %u, %u, %u], ", name, (unsigned long long)s->base, s->limit,
	       s->selector, attributes);
}

static void tell_table(const char *name, const struct kvm_dtable *t)
{
	printf("\"%s\": [%llu, %u], ", name, (unsigned long long)t->base, t->limit);
}

static void tell_general(int vcpu)
{
	struct kvm_regs r;

	must(vcpu, KVM_GET_REGS, &r, "KVM_GET_REGS");
	tell("Rax", r.rax);
	tell("Rcx", r.rcx);
	tell("Rdx", r.rdx);
	tell("Rbx", r.rbx);
	tell("Rsp", r.rsp);
	tell("Rbp", r.rbp);
	tell("Rsi", r.rsi);
	tell("Rdi", r.rdi);
	tell("R8", r.r8);
	tell("R9", r.r9);
	tell("R10", r.r10);
	tell("R11", r.r11);
	tell("R12", r.r12);
	tell("R13", r.r13);
	tell("R14", r.r14);
	tell("R15", r.r15);
	tell("Rip", r.rip);
	tell("Rflags", r.rflags);
}

static void tell_special(int vcpu)
{
	struct kvm_debugregs d;
	struct kvm_sregs s;
	struct kvm_xcrs x;

	must(vcpu, KVM_GET_SREGS, &s, "KVM_GET_SREGS");
	tell_segment("Es", &s.es);
	tell_segment("Cs", &s.cs);
	tell_segment("Ss", &s.ss);
	tell_segment("Ds", &s.ds);
	tell_segment("Fs", &s.fs);
	tell_segment("Gs", &s.gs);
	tell_segment("Ldtr", &s.ldt);
	tell_segment("Tr", &s.tr);
	tell_table("Idtr", &s.idt);
	tell_table("Gdtr", &s.gdt);
	tell("Cr0", s.cr0);
	tell("Cr2", s.cr2);
	tell("Cr3", s.cr3);
	tell("Cr4", s.cr4);
	tell("Cr8", s.cr8);
	tell("Efer", s.efer);
	tell("ApicBase", s.apic_base);
	must(vcpu, KVM_GET_DEBUGREGS, &d, "KVM_GET_DEBUGREGS");
	tell("Dr0", d.db[0]);
	tell("Dr1", d.db[1]);
	tell("Dr2", d.db[2]);
	tell("Dr3", d.db[3]);
	tell("Dr6", d.dr6);
	tell("Dr7", d.dr7);
	must(vcpu, KVM_GET_XCRS, &x, "KVM_GET_XCRS");
	tell("Xfem", x.xcrs[0].value);
}

static void tell_msrs(int vcpu)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[NAMED_MSRS];
	} msrs = { .head.nmsrs = NAMED_MSRS };

	for (size_t n = 0; n < NAMED_MSRS; n++)
		msrs.entries[n].index = named_msrs[n].index;
	must(vcpu, KVM_GET_MSRS, &msrs, "KVM_GET_MSRS");
	for (size_t n = 0; n < NAMED_MSRS; n++)
		tell(named_msrs[n].name, msrs.entries[n].data);
}

static void tell_events(int vcpu, const struct kvm_run *shared)
{
	struct kvm_vcpu_events e;
	struct kvm_mp_state activity;

	must(vcpu, KVM_GET_VCPU_EVENTS, &e, "KVM_GET_VCPU_EVENTS");
	must(vcpu, KVM_GET_MP_STATE, &activity, "KVM_GET_MP_STATE");
	tell("InterruptState", (e.interrupt.shadow ? 1 : 0) | (e.nmi.masked ? 2 : 0));
	tell("PendingInterruption", e.interrupt.injected || e.nmi.injected || e.exception.injected);
	tell("PendingEvent0", e.exception.pending);
	tell("DeliverabilityNotifications", shared->request_interrupt_window ? 2 : 0);
	tell("InternalActivityState", activity.mp_state);
}

static void tell_xsave(int vcpu)
{
	struct kvm_xsave image;

	must(vcpu, KVM_GET_XSAVE, &image, "KVM_GET_XSAVE");
	printf("\"xsave\": \"");
	for (size_t n = 0; n < XSAVE_BYTES; n++)
		printf("%02x", ((uint8_t *)image.region)[n]);
	printf("\"");
}

static void tell_state(int vcpu, const struct kvm_run *shared)
{
	tell_general(vcpu);
	tell_special(vcpu);
	tell_msrs(vcpu);
	tell_events(vcpu, shared);
	tell_xsave(vcpu);
}

#endif /* KVM_STATE_H */
