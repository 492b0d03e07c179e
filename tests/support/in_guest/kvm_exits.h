/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The exits of a guest of KVM, each told as a JSON object:
 *
 *	{"exit": what, "accesses": [[what, address, bytes, value] ...], <registers, as TLFS names them>}
 *
 * Registers are those after the exit's instruction: `immediate_exit` has KVM complete it without
 * entering the guest. Nobody knows what is at a port, an address or in an MSR: answer() answers
 * every read, as vp_run.py does.
 */
#ifndef KVM_EXITS_H
#define KVM_EXITS_H

#include <err.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm_state.h"

#define INTERRUPT_PORT 0xe1	/* a vector that is written here is an interrupt after this exit */
#define WAKING_VECTOR 0x20	/* what ends a HLT */

struct run {
	int vm, vcpu;
	struct kvm_run *shared;
	uint64_t answered;	/* reads so far */
	int vector;		/* of an interrupt that waits, or 0 */
	int accesses;		/* printed of this exit */
};

/* What a read gets: of `size` bytes at `address`, the `count`th of this guest. */
static uint64_t answer(uint64_t address, unsigned int size, uint64_t count)
{
	uint64_t value = (address + 1) * 0x9e3779b97f4a7c15ULL + count * 0xbf58476d1ce4e5b9ULL;

	value ^= value >> 29;
	return size == 8 ? value : value & ((1ULL << 8 * size) - 1);
}

/* Runs the guest, or only completes its instruction; is there another exit? */
static int run(struct run *run, int enter)
{
	run->shared->immediate_exit = !enter;
	if (!ioctl(run->vcpu, KVM_RUN, 0))
		return 1;
	if (errno != EINTR)
		err(1, "KVM_RUN");
	if (enter)
		errx(1, "KVM_RUN was interrupted");
	return 0;
}

static void tell_access(struct run *run, const char *what, uint64_t address, unsigned int size,
			uint64_t value)
{
	printf("%s[\"%s\", %llu, %u, %llu]", run->accesses++ ? ", " : "", what,
	       (unsigned long long)address, size, (unsigned long long)value);
}

/* `data` is what is written, or where the answer goes. */
static void access_of(struct run *run, const char *read, const char *write, int is_write,
		      uint64_t address, unsigned int size, void *data)
{
	uint64_t value = 0;

	if (is_write) {
		memcpy(&value, data, size);
	} else {
		value = answer(address, size, run->answered++);
		memcpy(data, &value, size);
	}
	tell_access(run, is_write ? write : read, address, size, value);
}

static void port_exit(struct run *run)
{
	struct kvm_run *shared = run->shared;
	uint8_t *data = (uint8_t *)shared + shared->io.data_offset;

	for (uint32_t n = 0; n < shared->io.count; n++, data += shared->io.size) {
		access_of(run, "in", "out", shared->io.direction == KVM_EXIT_IO_OUT,
			  shared->io.port, shared->io.size, data);
		if (shared->io.port == INTERRUPT_PORT)
			run->vector = *data;
	}
}

/* Answers an exit that is an access; what it is called, or NULL if it is another one. */
static const char *answer_exit(struct run *run)
{
	struct kvm_run *shared = run->shared;

	switch (shared->exit_reason) {
	case KVM_EXIT_IO:
		port_exit(run);
		return "port";
	case KVM_EXIT_MMIO:
		access_of(run, "read", "write", shared->mmio.is_write, shared->mmio.phys_addr,
			  shared->mmio.len, shared->mmio.data);
		return "memory";
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		shared->msr.error = 0;
		access_of(run, "rdmsr", "wrmsr", shared->exit_reason == KVM_EXIT_X86_WRMSR,
			  shared->msr.index, 8, &shared->msr.data);
		return "msr";
	default:
		return NULL;
	}
}

static const char *other_exit(const struct run *run)
{
	switch (run->shared->exit_reason) {
	case KVM_EXIT_HLT:
		return "halt";
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return "interrupt window";
	case KVM_EXIT_SHUTDOWN:
		return "triple fault";
	case KVM_EXIT_INTERNAL_ERROR:
		return "internal error";
	default:
		fprintf(stderr, "exit reason %u\n", run->shared->exit_reason);
		return "unknown";
	}
}

/* Delivers the interrupt that waits, if the guest takes it now; else KVM is asked to tell. */
static void interrupt(struct run *run)
{
	struct kvm_run *shared = run->shared;
	struct kvm_interrupt interrupt = { .irq = run->vector };

	shared->request_interrupt_window = 0;
	if (!run->vector)
		return;
	if (shared->ready_for_interrupt_injection && shared->if_flag) {
		must(run->vcpu, KVM_INTERRUPT, &interrupt, "KVM_INTERRUPT");
		run->vector = 0;
	} else {
		shared->request_interrupt_window = 1;
	}
}

/* After that exit; has a halted guest that takes no interrupt ended? */
static int goes_on(struct run *run, uint32_t reason)
{
	switch (reason) {
	case KVM_EXIT_IO:
	case KVM_EXIT_MMIO:
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return 1;
	case KVM_EXIT_HLT:
		if (run->shared->if_flag && !run->vector)
			run->vector = WAKING_VECTOR;
		return run->shared->if_flag;
	default:
		return 0;
	}
}

/* One exit, told with the registers after it; does the guest go on? */
static int one_exit(struct run *guest)
{
	const char *what;
	uint32_t reason;

	run(guest, 1);
	reason = guest->shared->exit_reason;
	if (reason == KVM_EXIT_IRQ_WINDOW_OPEN)
		guest->shared->request_interrupt_window = 0; /* KVM leaves that to its VMM */
	guest->accesses = 0;
	printf("{\"accesses\": [");
	what = answer_exit(guest);
	if (what) {
		while (run(guest, 0) && answer_exit(guest))
			;
	} else {
		what = other_exit(guest);
	}
	printf("], \"exit\": \"%s\", ", what);
	tell_state(guest->vcpu, guest->shared);
	printf("}\n");
	if (!goes_on(guest, reason))
		return 0;
	interrupt(guest);
	return 1;
}

#endif /* KVM_EXITS_H */
