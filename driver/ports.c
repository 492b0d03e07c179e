// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * I/O ports that guests use directly: those that the module parameter io_ports lists, and none
 * without it. A guest reaches whatever device answers there.
 *
 * One I/O permission map for all virtual processors: a bit per port, set where an access exits, and
 * a third page for accesses that begin at the last ports.
 *
 * Ref: AMD64 APM vol. 2, 15.10.1.
 */
#include "sidecar.h"

#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "vp.h"

#define PORTS 0x10000
#define BYTES (SIDECAR_IOPM_PAGES * SIDECAR_PAGE_SIZE)

char *sidecar_io_ports;
static u8 *map;

static bool parse(char *text, unsigned int *first, unsigned int *last)
{
	char *end = strchr(text, '-');

	if (end)
		*end++ = '\0';
	return !kstrtouint(text, 0, first) && !kstrtouint(end ? end : text, 0, last) &&
	       *first <= *last && *last < PORTS;
}

/* The list is written to. False if it is none. */
static bool pass_through(char *list)
{
	unsigned int port, last;
	char *item;

	while ((item = strsep(&list, ","))) {
		if (!parse(item, &port, &last))
			return false;
		for (; port <= last; port++)
			map[port / 8] &= ~(1 << port % 8);
	}
	return true;
}

int sidecar_ports_set_up(void)
{
	char *list;
	bool valid;

	if (!sidecar_io_ports || !*sidecar_io_ports)
		return 0;
	list = kstrdup(sidecar_io_ports, GFP_KERNEL);
	if (!list)
		return -ENOMEM;
	map = alloc_pages_exact(BYTES, GFP_KERNEL);
	if (!map) {
		kfree(list);
		return -ENOMEM;
	}
	memset(map, 0xff, BYTES);
	valid = pass_through(list);
	kfree(list);
	if (valid) {
		pr_warn("guests use I/O ports of this machine directly: %s\n", sidecar_io_ports);
		return 0;
	}
	pr_err("io_ports=%s is no list of I/O ports such as 0x2f8-0x2ff,0x80\n", sidecar_io_ports);
	sidecar_ports_tear_down();
	return -EINVAL;
}

void sidecar_ports_tear_down(void)
{
	if (map)
		free_pages_exact(map, BYTES);
	map = NULL;
}

/* Of the map; 0 for the sidecar's own, in which every access exits. */
phys_addr_t sidecar_iopm_pa(void)
{
	return map ? virt_to_phys(map) : 0;
}
