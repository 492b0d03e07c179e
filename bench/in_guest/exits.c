// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What exits of a guest cost a VMM in C.
 *
 *	exits time   WHERE IMAGE ROUNDS COUNT KIND	rounds of the guest: COUNT exits of KIND, and the VMM's
 *	exits memory WHERE IMAGE GUESTS PAGES		memory that the kernel has for guests of so many pages
 *
 * WHERE is `kvm`, or DEVICE:CPU; further guests are on the CPUs that follow. IMAGE is of exit_guest.py. `time` prints
 * the line of times.h, `memory` bytes per guest.
 */
#define _GNU_SOURCE
#include "guests.h"
#include "times.h"

#define TOUCH 2
#define MOST_GUESTS 16

/* --- time ----------------------------------------------------------------------------------- */

static struct guest timed;

static void to_its_next_exit(void)
{
	run(&timed);
}

static void measure_time(int cpu, int rounds)
{
	create(&timed, cpu);
	to_its_next_exit();
	measure(to_its_next_exit, rounds, 0);
}

/* --- memory --------------------------------------------------------------------------------- */

/* Free pages, with those that CPUs keep for themselves. */
static long free_pages(void)
{
	FILE *file = fopen("/proc/zoneinfo", "r");
	char line[256];
	long sum = 0, number;

	if (!file)
		err(1, "/proc/zoneinfo");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, " nr_free_pages %ld", &number) == 1 ||
		    sscanf(line, " count: %ld", &number) == 1)
			sum += number;
	fclose(file);
	return sum;
}

static void measure_memory(int cpu, int guests, int pages)
{
	struct guest guest[MOST_GUESTS];
	long before;

	if (guests < 1 || guests > MOST_GUESTS)
		errx(1, "not so many guests");
	parameters->count = pages;
	parameters->kind = TOUCH;
	before = free_pages();
	for (int i = 0; i < guests; i++) {
		create(&guest[i], cpu + i);
		run(&guest[i]);
		run(&guest[i]);
	}
	printf("%ld\n", (before - free_pages()) * SIDECAR_PAGE_SIZE / guests);
}

int main(int argc, char **argv)
{
	int cpu;

	if (!(argc == 7 && !strcmp(argv[1], "time")) && !(argc == 6 && !strcmp(argv[1], "memory"))) {
		fprintf(stderr, "usage: exits time WHERE IMAGE ROUNDS COUNT KIND | memory WHERE IMAGE GUESTS PAGES\n");
		return 2;
	}
	cpu = open_where(argv[2]);
	read_image(argv[3]);
	if (argc == 7) {
		parameters->count = atoi(argv[5]);
		parameters->kind = atoi(argv[6]);
		measure_time(cpu, atoi(argv[4]));
	} else {
		memory_bytes = (size_t)atoi(argv[5]) * SIDECAR_PAGE_SIZE;
		memory = memory_of(memory_bytes);
		measure_memory(cpu, atoi(argv[4]), atoi(argv[5]));
	}
	return 0;
}
