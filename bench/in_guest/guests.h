/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The guest of exit_guest.py, on a CPU of the sidecar by the driver, or on this one by Linux's KVM. For one program.
 *
 * Guest memory is the caller's own, in small pages, filled before anything is counted, and the same for all guests.
 *
 * Ref: docs/virtual_processors.md; Linux, Documentation/virt/kvm/api.rst.
 */
#ifndef GUESTS_H
#define GUESTS_H

#include <err.h>
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

#include "sidecar_abi.h"

#define IMAGE_BYTES (3 * SIDECAR_PAGE_SIZE)
#define IMAGE_GPA (0x100000000ULL - IMAGE_BYTES)
#define CODE_OFFSET (2 * SIDECAR_PAGE_SIZE)
#define ALL_RIGHTS (SIDECAR_GUEST_RIGHTS_READ | SIDECAR_GUEST_RIGHTS_WRITE | \
		    SIDECAR_GUEST_RIGHTS_EXECUTE)
#define SHARED_BYTES (SIDECAR_SHARED_PAGES * SIDECAR_PAGE_SIZE)
#define CPUID_ENTRIES 256

/* The guest's, at the begin of its page of code. */
struct parameters {
	uint32_t count;
	uint32_t kind;
};

struct guest {
	int cpu;
	struct sidecar_command_page *page;
	int vcpu;
	struct kvm_run *kvm;
};

static int device = -1, kvm = -1;
static void *image, *memory;
static size_t memory_bytes;
static volatile struct parameters *parameters;

static int call(const char *name, int file, unsigned long request, const void *argument)
{
	int result = ioctl(file, request, argument);

	if (result < 0)
		err(1, "%s", name);
	return result;
}

/* --- a guest on a CPU of the sidecar -------------------------------------------------------- */

static void sidecar_map(int vm, uint64_t gpa, const void *at, size_t size)
{
	struct sidecar_memory_map map = {
		.gpa = gpa, .size = size, .user_address = (uintptr_t)at, .rights = ALL_RIGHTS,
	};

	call("MAP", vm, SIDECAR_VM_IOCTL_MAP, &map);
}

static void sidecar_create(struct guest *guest, int cpu)
{
	int vm = call("VM_CREATE", device, SIDECAR_VP_IOCTL_VM_CREATE, NULL);
	struct sidecar_vp_create vp = { .cpu = cpu, .vm_fd = vm };

	guest->cpu = cpu;
	call("CLAIM", device, SIDECAR_IOCTL_CLAIM, (void *)(unsigned long)cpu);
	guest->page = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device,
			   (off_t)cpu * SHARED_BYTES);
	if (guest->page == MAP_FAILED)
		err(1, "mmap of the command page");
	sidecar_map(vm, IMAGE_GPA, image, IMAGE_BYTES);
	if (memory_bytes)
		sidecar_map(vm, 0, memory, memory_bytes);
	call("VP_CREATE", device, SIDECAR_VP_IOCTL_VP_CREATE, &vp);
}

/* To the OUT, which is over with this. */
static void sidecar_run(struct guest *guest)
{
	struct sidecar_command_page *page = guest->page;
	const struct sidecar_intercept_header *header = (void *)page->intercept_message.payload;

	page->command = SIDECAR_COMMAND_RUN_VP;
	call("RUN", device, SIDECAR_IOCTL_RUN, (void *)(unsigned long)guest->cpu);
	if (page->has_error || page->run.end != SIDECAR_RUN_END_INTERCEPT ||
	    page->intercept_message.message_type !=
		    SIDECAR_HV_MESSAGE_TYPE_X64_IO_PORT_INTERCEPT) {
		errno = EPROTO;
		err(1, "the guest did something else");
	}
	page->run.advance_rip = header->instruction_length & 15;
}

/* --- a guest by KVM ------------------------------------------------------------------------- */

static void kvm_map(int vm, uint32_t slot, uint64_t gpa, const void *at, size_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uintptr_t)at,
	};

	call("SET_USER_MEMORY_REGION", vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Without it there is no 64-bit mode. */
static void kvm_set_cpuid(int vcpu)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) +
					     CPUID_ENTRIES * sizeof(cpuid->entries[0]));

	if (!cpuid)
		err(1, "calloc");
	cpuid->nent = CPUID_ENTRIES;
	call("GET_SUPPORTED_CPUID", kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
	call("SET_CPUID2", vcpu, KVM_SET_CPUID2, cpuid);
	free(cpuid);
}

static void kvm_create(struct guest *guest)
{
	int vm = call("CREATE_VM", kvm, KVM_CREATE_VM, NULL);

	kvm_map(vm, 0, IMAGE_GPA, image, IMAGE_BYTES);
	if (memory_bytes)
		kvm_map(vm, 1, 0, memory, memory_bytes);
	guest->vcpu = call("CREATE_VCPU", vm, KVM_CREATE_VCPU, NULL);
	guest->kvm = mmap(NULL, call("GET_VCPU_MMAP_SIZE", kvm, KVM_GET_VCPU_MMAP_SIZE, NULL),
			  PROT_READ | PROT_WRITE, MAP_SHARED, guest->vcpu, 0);
	if (guest->kvm == MAP_FAILED)
		err(1, "mmap of kvm_run");
	kvm_set_cpuid(guest->vcpu);
}

static void kvm_run(struct guest *guest)
{
	call("KVM_RUN", guest->vcpu, KVM_RUN, NULL);
	if (guest->kvm->exit_reason != KVM_EXIT_IO) {
		errno = EPROTO;
		err(1, "the guest did something else");
	}
}

/* --- either --------------------------------------------------------------------------------- */

static void create(struct guest *guest, int cpu)
{
	if (kvm >= 0)
		kvm_create(guest);
	else
		sidecar_create(guest, cpu);
}

static void run(struct guest *guest)
{
	if (kvm >= 0)
		kvm_run(guest);
	else
		sidecar_run(guest);
}

static void *memory_of(size_t size)
{
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || (madvise(at, size, MADV_NOHUGEPAGE) && errno != EINVAL))
		err(1, "memory of the guest");
	memset(at, 0, size);
	return at;
}

/* The first CPU. */
static int open_where(char *where)
{
	char *colon = strchr(where, ':');

	if (!strcmp(where, "kvm")) {
		kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
		if (kvm < 0)
			err(1, "/dev/kvm");
		return 0;
	}
	if (!colon) {
		errno = EINVAL;
		err(1, "%s", where);
	}
	*colon = 0;
	device = open(where, O_RDWR | O_CLOEXEC);
	if (device < 0)
		err(1, "%s", where);
	return atoi(colon + 1);
}

static void read_image(const char *name)
{
	int file = open(name, O_RDONLY);

	image = memory_of(IMAGE_BYTES);
	if (file < 0 || read(file, image, IMAGE_BYTES) != (ssize_t)IMAGE_BYTES)
		err(1, "%s", name);
	close(file);
	parameters = (void *)((char *)image + CODE_OFFSET);
}

#endif /* GUESTS_H */
