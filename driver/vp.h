/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Virtual processors: guest memory, what a CPU needs to run a guest, doorbells. docs/driver.md says
 * what user space sees of it, docs/virtual_processors.md what the sidecar does.
 *
 * Locks, with those of sidecar.h, outermost first:
 *
 *   file->vp_lock   mutex: creation, removal and doorbells of the virtual processors of a file
 *   vm->lock        mutex: ranges, tables and pins of a guest memory; held while the driver waits,
 *                   for a bounded time, for CPUs to take note of a change
 *   mmap_lock       taken by Linux for pinning
 *   node->lock      cpu->vp, and the fields of it that are not constant, for reading; written by
 *                   who holds SYNC or STARTING or knows the CPU to be AVAIL or LOST under the lock
 *
 * A signal of a bound eventfd posts its bit without any lock: it may come from wherever eventfds
 * are signalled, also from a wake-up that is done with node->lock held. The binding goes before
 * what it uses.
 */
#ifndef SIDECAR_VP_H
#define SIDECAR_VP_H

#include <linux/interval_tree.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/types.h>

#include "sidecar.h"

struct page;

/* One MAP. `pages` are the numbers of its guest pages; to put it into the tree, or to take it out,
 * needs no memory, so an UNMAP never lacks any.
 */
struct sidecar_range {
	struct interval_tree_node pages;
	u64 gpa;
	u64 size;
	bool writable;
	/* Unmapped, but not acknowledged by every CPU: its pages stay pinned. */
	bool held;
};

/* A guest's memory: the object of VM_CREATE. Its file refers to it, and each virtual processor. */
struct sidecar_vm {
	struct kref references;
	/* The process that may change it, and whose limit its pages count against. */
	struct mm_struct *mm;
	u64 *root;
	struct mutex lock;
	/* struct sidecar_range, of which no two overlap. */
	struct rb_root_cached ranges;
	unsigned int held;
};

/* A virtual processor: cpu->vp. */
struct sidecar_vp {
	struct sidecar_vm *vm;
	void *pages;
	struct list_head doorbells;
	/* Of guest_generation, to be acknowledged. */
	u64 generation;
	/* Its CPU is LOST and its holder gone: it ends when the CPU comes back. */
	bool leaving;
};

/* node->lock is held, or the CPU is SYNC or STARTING here. */
static inline bool sidecar_has_vp(const struct sidecar_cpu *cpu)
{
	return cpu->vp && !cpu->vp->leaving;
}

/* npt.c */
u64 *sidecar_npt_create(void);
void sidecar_npt_destroy(u64 *root);
int sidecar_npt_enter(u64 *root, u64 gpa, struct page **pages, unsigned int count, u32 rights);
void sidecar_npt_show(u64 *root, u64 gpa, u64 size);
void sidecar_npt_hide(u64 *root, u64 gpa, u64 size);
void sidecar_npt_take(u64 *root, u64 gpa, u64 size, bool dirty);

/* pin.c */
int sidecar_pin_account(struct sidecar_vm *vm, u64 pages);
int sidecar_pin_range(struct sidecar_vm *vm, const struct sidecar_range *range, u64 address,
		      u32 rights);

/* vm.c */
int sidecar_vm_create(void);
struct sidecar_vm *sidecar_vm_get(int fd);
void sidecar_vm_put(struct sidecar_vm *vm);

/* generation.c */
bool sidecar_vm_settled(const struct sidecar_vm *vm);
bool sidecar_vm_flush(const struct sidecar_vm *vm);

/* vp_calls.c */
long sidecar_vp_ioctl(struct sidecar_file *file, unsigned int request, unsigned long argument);

/* vp.c */
int sidecar_require_held(const struct sidecar_cpu *cpu, const struct sidecar_file *file);
int sidecar_vp_create(struct sidecar_cpu *cpu, struct sidecar_file *file, struct sidecar_vm *vm);
int sidecar_vp_destroy(struct sidecar_cpu *cpu, struct sidecar_file *file);
void sidecar_vp_renew(struct sidecar_cpu *cpu);
void sidecar_vp_came_back(struct sidecar_cpu *cpu);
void sidecar_vp_abandon(struct sidecar_cpu *cpu);
void sidecar_vp_shut_down(struct sidecar_cpu *cpu);
void sidecar_vp_forsake(const struct sidecar_cpu *cpu);

/* doorbell.c */
void sidecar_post(struct sidecar_cpu *cpu, u64 bits);
int sidecar_bind(struct sidecar_cpu *cpu, unsigned int bit, int fd);
int sidecar_unbind(struct sidecar_vp *vp, unsigned int bit);
void sidecar_unbind_all(struct sidecar_vp *vp);

/* ports.c */
extern char *sidecar_io_ports;
int sidecar_ports_set_up(void);
void sidecar_ports_tear_down(void);
phys_addr_t sidecar_iopm_pa(void);

#endif /* SIDECAR_VP_H */
