// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Memory of the caller is pinned for a guest, and counted.
 *
 * For long (FOLL_LONGTERM), so that Linux moves it out of the way of what must stay movable first.
 * Which pages are pinned is recorded in the nested page tables alone.
 *
 * Ref: Linux Documentation/core-api/pin_user_pages.rst, case 2.
 */
#include "sidecar.h"

#include <linux/capability.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "vp.h"

#define PAGES_AT_ONCE 512

/* Against the limit of locked memory, as other drivers count what they pin. */
int sidecar_pin_account(struct sidecar_vm *vm, u64 pages)
{
	u64 limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	if (atomic64_add_return(pages, &vm->mm->pinned_vm) <= limit || capable(CAP_IPC_LOCK))
		return 0;
	atomic64_sub(pages, &vm->mm->pinned_vm);
	return -ENOMEM;
}

/*
 * For writing wherever that is possible: a page that is shared until it is written to would
 * otherwise become another one for the process than for the guest.
 */
static int pin(u64 address, unsigned int count, bool writable, struct page **pages)
{
	int done = pin_user_pages_fast(address, count, FOLL_LONGTERM | FOLL_WRITE, pages);

	if (done == -EFAULT && !writable)
		done = pin_user_pages_fast(address, count, FOLL_LONGTERM, pages);
	return done ? done : -EFAULT;
}

/* As many pages as `count`, or none. */
static int pin_all(u64 address, unsigned int count, bool writable, struct page **pages)
{
	unsigned int done = 0;
	int more;

	while (done < count) {
		more = fatal_signal_pending(current) ? -EINTR :
		       pin(address + (u64)done * PAGE_SIZE, count - done, writable, pages + done);
		if (more < 0) {
			unpin_user_pages(pages, done);
			return more;
		}
		done += more;
	}
	return 0;
}

/* Pins the memory of a range and enters it into the tables, where no CPU sees it yet. */
int sidecar_pin_range(struct sidecar_vm *vm, const struct sidecar_range *range, u64 address,
		      u32 rights)
{
	struct page **pages = (struct page **)__get_free_page(GFP_KERNEL);
	u64 gpa = range->gpa, end = range->gpa + range->size;
	unsigned int count;
	int err = 0;

	BUILD_BUG_ON(PAGES_AT_ONCE * sizeof(*pages) > PAGE_SIZE);
	if (!pages)
		return -ENOMEM;
	for (; gpa < end && !err; gpa += (u64)count * PAGE_SIZE) {
		count = PAGES_AT_ONCE - PHYS_PFN(gpa) % PAGES_AT_ONCE;
		count = min_t(u64, count, PHYS_PFN(end - gpa));
		err = pin_all(address + (gpa - range->gpa), count, range->writable, pages);
		if (err)
			break;
		err = sidecar_npt_enter(vm->root, gpa, pages, count, rights);
		if (err)
			unpin_user_pages(pages, count);
		cond_resched();
	}
	free_page((unsigned long)pages);
	return err;
}
