// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Runs guests under KVM and tells of every exit: one half of a comparison, vp_run.py is the other.
 *
 *	kvm_run CPUID ROM GUEST...
 *
 * CPUID has a line per answer of the guest's CPUID: leaf, subleaf, EAX, EBX, ECX, EDX. ROM is the
 * page below 4 GiB, a GUEST is its memory from 0 on. Each begins in the reset state. Nobody knows
 * what is at a port, an address or in an MSR: answer() answers every read, as vp_run.py does.
 *
 * Prints JSON, one object per line: {"guest": file}, then for the reset state and each exit
 * {"exit": what, "accesses": [[what, address, bytes, value] ...], <registers, as TLFS names them>}.
 * Registers are those after the exit's instruction: `immediate_exit` has KVM complete it without
 * entering the guest.
 *
 * Ref: Linux Documentation/virt/kvm/api.rst.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm_state.h"

#define PAGE 4096
#define ROM_ADDRESS (0x100000000ULL - PAGE)
#define MOST_EXITS 1000
#define MOST_SECONDS 250
#define MOST_LEAVES 256
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

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long must(int fd, unsigned long request, void *argument, const char *what)
{
	long result = ioctl(fd, request, argument);

	if (result < 0)
		fail(what);
	return result;
}

/* Runs the guest, or only completes its instruction; is there another exit? */
static int run(struct run *run, int enter)
{
	run->shared->immediate_exit = !enter;
	if (!ioctl(run->vcpu, KVM_RUN, 0))
		return 1;
	if (errno != EINTR)
		fail("KVM_RUN");
	if (enter) {
		fprintf(stderr, "KVM_RUN was interrupted\n");
		exit(1);
	}
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

static void *read_file(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY);
	off_t length = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	void *memory;

	if (length < 0)
		fail(path);
	memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (memory == MAP_FAILED)
		fail(path);
	close(fd);
	*size = length;
	return memory;
}

static struct kvm_cpuid2 *read_cpuid(const char *path)
{
	size_t size = sizeof(struct kvm_cpuid2) + MOST_LEAVES * sizeof(struct kvm_cpuid_entry2);
	struct kvm_cpuid2 *cpuid = calloc(1, size);
	struct kvm_cpuid_entry2 *entry = cpuid->entries;
	FILE *file = fopen(path, "r");

	if (!file)
		fail(path);
	while (cpuid->nent < MOST_LEAVES &&
	       fscanf(file, "%x %x %x %x %x %x", &entry->function, &entry->index, &entry->eax,
		      &entry->ebx, &entry->ecx, &entry->edx) == 6) {
		if (entry->function == 7 || entry->function == 0xd)
			entry->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		cpuid->nent++;
		entry++;
	}
	fclose(file);
	return cpuid;
}

static void map(int vm, int slot, uint64_t gpa, void *memory, size_t size, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uintptr_t)memory,
	};

	must(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

/* What KVM had no CPUID for when it reset the processor: the signature in RDX, and that there is no
 * APIC without its own interrupt controllers.
 */
static void finish_reset(int vcpu, const struct kvm_cpuid2 *cpuid)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	must(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.apic_base = 0;
	must(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	must(vcpu, KVM_GET_REGS, &regs, "KVM_GET_REGS");
	for (uint32_t n = 0; n < cpuid->nent; n++)
		if (cpuid->entries[n].function == 1)
			regs.rdx = cpuid->entries[n].eax;
	must(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

static void run_guest(int kvm, const char *path, void *rom, struct kvm_cpuid2 *cpuid)
{
	struct kvm_enable_cap msrs = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { KVM_MSR_EXIT_REASON_UNKNOWN },
	};
	struct run guest = { .vm = must(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM") };
	size_t size, shared = must(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
	void *memory = read_file(path, &size);
	int exits = 0;

	must(guest.vm, KVM_ENABLE_CAP, &msrs, "KVM_ENABLE_CAP");
	map(guest.vm, 0, 0, memory, size, 0);
	map(guest.vm, 1, ROM_ADDRESS, rom, PAGE, KVM_MEM_READONLY);
	guest.vcpu = must(guest.vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
	guest.shared = mmap(NULL, shared, PROT_READ | PROT_WRITE, MAP_SHARED, guest.vcpu, 0);
	if (guest.shared == MAP_FAILED)
		fail("mmap of the virtual processor");
	must(guest.vcpu, KVM_SET_CPUID2, cpuid, "KVM_SET_CPUID2");
	finish_reset(guest.vcpu, cpuid);
	printf("{\"guest\": \"%s\"}\n{\"accesses\": [], \"exit\": \"reset\", ", path);
	tell_state(guest.vcpu, guest.shared);
	printf("}\n");
	while (one_exit(&guest) && ++exits < MOST_EXITS)
		;
	munmap(guest.shared, shared);
	munmap(memory, size);
	close(guest.vcpu);
	close(guest.vm);
}

int main(int argc, char **argv)
{
	int kvm = open("/dev/kvm", O_RDWR);
	struct kvm_cpuid2 *cpuid;
	size_t size;
	void *rom;

	if (argc < 4) {
		fprintf(stderr, "usage: kvm_run CPUID ROM GUEST...\n");
		return 2;
	}
	if (kvm < 0)
		fail("/dev/kvm");
	alarm(MOST_SECONDS);
	cpuid = read_cpuid(argv[1]);
	rom = read_file(argv[2], &size);
	for (int n = 3; n < argc; n++)
		run_guest(kvm, argv[n], rom, cpuid);
	return 0;
}
