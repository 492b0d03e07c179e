// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Runs guests under KVM and tells of every exit: one half of a comparison, vp_run.py is the other.
 *
 *	kvm_run CPUID ROM GUEST...
 *
 * CPUID has a line per answer of the guest's CPUID: leaf, subleaf, EAX, EBX, ECX, EDX. ROM is the
 * page below 4 GiB, a GUEST is its memory from 0 on. Each begins in the reset state.
 *
 * Prints JSON, one object per line: {"guest": file}, then for the reset state and each exit
 * what kvm_exits.h tells.
 *
 * Ref: Linux Documentation/virt/kvm/api.rst.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm_exits.h"
#include "kvm_state.h"

#define PAGE 4096
#define ROM_ADDRESS (0x100000000ULL - PAGE)
#define MOST_EXITS 1000
#define MOST_SECONDS 250
#define MOST_LEAVES 256

static void *read_file(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY);
	off_t length = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	void *memory;

	if (length < 0)
		err(1, "%s", path);
	memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "%s", path);
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
		err(1, "%s", path);
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
		err(1, "mmap of the virtual processor");
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
		err(1, "/dev/kvm");
	alarm(MOST_SECONDS);
	cpuid = read_cpuid(argv[1]);
	rom = read_file(argv[2], &size);
	for (int n = 3; n < argc; n++)
		run_guest(kvm, argv[n], rom, cpuid);
	return 0;
}
