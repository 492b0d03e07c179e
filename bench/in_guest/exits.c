// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What exits of a guest cost a VMM in C.
 *
 *	exits time   WHERE IMAGE ROUNDS COUNT KIND	rounds of the guest: COUNT exits of KIND, and the VMM's
 *	exits memory WHERE IMAGE GUESTS PAGES		memory that the kernel has for guests of so many pages
 *
 * WHERE is `kvm`, or DEVICE:CPU; further guests are on the CPUs that follow. IMAGE is of exit_guest.py. `time` prints
 * the same line as dispatch.c, `memory` bytes per guest. begin() and end() enclose what is measured, for QEMU's plugin.
 */
#define _GNU_SOURCE
#include <time.h>
#include <x86intrin.h>

#include "guests.h"

#define TOUCH 2
#define MOST_GUESTS 16

/* Not the same code, which would be one function. */
__attribute__((noinline)) void begin(void)
{
	__asm__ volatile("nop" : : : "memory");
}

__attribute__((noinline)) void end(void)
{
	__asm__ volatile("nop; nop" : : : "memory");
}

/* --- time ----------------------------------------------------------------------------------- */

static int by_size(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void measure_time(int cpu, int rounds)
{
	uint64_t *taken = calloc(rounds, sizeof(*taken));
	struct guest guest;
	double started, ns;
	uint64_t first;

	if (!taken || rounds < 1)
		fail("no room for so many");
	create(&guest, cpu);
	run(&guest);
	started = seconds();
	first = __rdtsc();
	for (int i = 0; i < rounds; i++) {
		begin();
		uint64_t before = __rdtsc();

		run(&guest);
		taken[i] = __rdtsc() - before;
		end();
	}
	ns = (seconds() - started) * 1e9 / (__rdtsc() - first);
	qsort(taken, rounds, sizeof(*taken), by_size);
	for (int i = 0; i <= 4; i++)
		printf("%.0f%c", taken[(long)(rounds - 1) * i / 4] * ns, i == 4 ? '\n' : ' ');
	free(taken);
}

/* --- memory --------------------------------------------------------------------------------- */

/* Free pages, with those that CPUs keep for themselves. */
static long free_pages(void)
{
	FILE *file = fopen("/proc/zoneinfo", "r");
	char line[256];
	long sum = 0, number;

	if (!file)
		fail("/proc/zoneinfo");
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
		fail("not so many guests");
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
