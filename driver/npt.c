// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Nested page tables of a guest: four levels, and the record of which pages are pinned for it.
 *
 * A page goes through three steps, so that nothing is released that a CPU may still use:
 *
 *   enter   its entry is there, and not present
 *   show    the entry, and the tables that lead to it, are present: CPUs walk them at any time
 *   hide    not present again; a table without present entries is not present either
 *   take    once no CPU uses an older translation: pages are unpinned, empty tables freed
 *
 * An entry that is not present still names its page or table: the processor ignores the rest of
 * such an entry. Only `take` clears it. All calls for one root are serialised by the caller.
 *
 * Ref: AMD64 APM vol. 2, 5.3 (entries), 15.25 (nested paging; USER is needed, 15.25.6).
 */
#include "sidecar.h"

#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <asm/pgtable_types.h>

#include "vp.h"

#define ENTRIES 512
#define TOP 3
#define LARGE 1
#define ADDRESS GENMASK_ULL(51, 12)
#define TABLE (_PAGE_USER | _PAGE_RW | _PAGE_ACCESSED)

/* Bytes of guest memory under one entry. */
static u64 span(int level)
{
	return 1ULL << (PAGE_SHIFT + 9 * level);
}

static u64 *slot(u64 *table, int level, u64 gpa)
{
	return &table[gpa >> (PAGE_SHIFT + 9 * level) & (ENTRIES - 1)];
}

static u64 next(u64 gpa, u64 end, int level)
{
	return min(end, (gpa | (span(level) - 1)) + 1);
}

static u64 *table_of(u64 entry)
{
	return phys_to_virt(entry & ADDRESS);
}

static bool is_leaf(u64 entry, int level)
{
	return level == 0 || entry & _PAGE_PSE;
}

static bool any(const u64 *table, u64 bits)
{
	unsigned int i;

	for (i = 0; i < ENTRIES; i++)
		if (table[i] & bits)
			return true;
	return false;
}

u64 *sidecar_npt_create(void)
{
	return (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
}

static void destroy(u64 *table, int level)
{
	unsigned int i;

	for (i = 0; level && i < ENTRIES; i++)
		if (table[i])
			destroy(table_of(table[i]), level - 1);
	free_page((unsigned long)table);
}

/* Frees the tables; every range has been taken, and no CPU has the root. */
void sidecar_npt_destroy(u64 *root)
{
	destroy(root, TOP);
}

/* The entry of a level for an address, with the tables above it; NULL if there is no memory. */
static u64 *entry_for(u64 *table, int wanted, u64 gpa)
{
	int level;

	for (level = TOP; level > wanted; level--) {
		u64 *entry = slot(table, level, gpa);

		if (!*entry) {
			u64 *below = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);

			if (!below)
				return NULL;
			WRITE_ONCE(*entry, virt_to_phys(below) | TABLE);
		}
		table = table_of(*entry);
	}
	return slot(table, wanted, gpa);
}

static bool in_a_row(struct page **pages)
{
	unsigned long first = page_to_pfn(pages[0]);
	unsigned int i;

	if (first % ENTRIES)
		return false;
	for (i = 1; i < ENTRIES; i++)
		if (page_to_pfn(pages[i]) != first + i)
			return false;
	return true;
}

static u64 leaf(const struct page *page, u32 rights)
{
	u64 entry = PFN_PHYS(page_to_pfn(page)) | _PAGE_USER | _PAGE_ACCESSED;

	if (rights & SIDECAR_GUEST_RIGHTS_WRITE)
		entry |= _PAGE_RW | _PAGE_DIRTY;
	if (!(rights & SIDECAR_GUEST_RIGHTS_EXECUTE))
		entry |= _PAGE_NX;
	return entry;
}

/*
 * Pages at a guest address where nothing is, all within the same 2 MiB. One entry for all if they
 * fill these and lie so. Nothing has changed if this fails.
 */
int sidecar_npt_enter(u64 *root, u64 gpa, struct page **pages, unsigned int count, u32 rights)
{
	unsigned int i;
	u64 *entry;

	if (count == ENTRIES && in_a_row(pages)) {
		entry = entry_for(root, LARGE, gpa);
		if (!entry)
			return -ENOMEM;
		if (!*entry) {
			WRITE_ONCE(*entry, leaf(pages[0], rights) | _PAGE_PSE);
			return 0;
		}
	}
	entry = entry_for(root, 0, gpa);
	if (!entry)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		WRITE_ONCE(entry[i], leaf(pages[i], rights));
	return 0;
}

/* What is below is there before it can be reached. Has the table anything present then? */
static bool set_present(u64 *table, int level, u64 gpa, u64 end, bool present)
{
	u64 after;

	for (; gpa < end; gpa = after) {
		u64 *entry = slot(table, level, gpa);
		bool wanted = present;

		after = next(gpa, end, level);
		if (!*entry)
			continue;
		if (!is_leaf(*entry, level)) {
			wanted = set_present(table_of(*entry), level - 1, gpa, after, present);
			cond_resched();
		}
		smp_wmb();
		WRITE_ONCE(*entry, wanted ? *entry | _PAGE_PRESENT : *entry & ~(u64)_PAGE_PRESENT);
	}
	return any(table, _PAGE_PRESENT);
}

void sidecar_npt_show(u64 *root, u64 gpa, u64 size)
{
	set_present(root, TOP, gpa, gpa + size, true);
}

void sidecar_npt_hide(u64 *root, u64 gpa, u64 size)
{
	set_present(root, TOP, gpa, gpa + size, false);
}

static void take(u64 *table, int level, u64 gpa, u64 end, bool dirty)
{
	u64 after;

	for (; gpa < end; gpa = after) {
		u64 *entry = slot(table, level, gpa);

		after = next(gpa, end, level);
		if (!*entry)
			continue;
		if (is_leaf(*entry, level)) {
			unpin_user_page_range_dirty_lock(pfn_to_page(PHYS_PFN(*entry & ADDRESS)),
							 level == LARGE ? ENTRIES : 1, dirty);
		} else {
			take(table_of(*entry), level - 1, gpa, after, dirty);
			cond_resched();
			if (*entry & _PAGE_PRESENT || any(table_of(*entry), ~0ULL))
				continue;
			free_page((unsigned long)table_of(*entry));
		}
		WRITE_ONCE(*entry, 0);
	}
}

/* The range was hidden, or never shown, and no CPU uses an older translation. */
void sidecar_npt_take(u64 *root, u64 gpa, u64 size, bool dirty)
{
	take(root, TOP, gpa, gpa + size, dirty);
}
