// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * How evenly time passes for a thread of Linux: what the sidecar's MEASURE_GAPS does, in a program.
 *
 *	gaps CPU TICKS		looks at the TSC for so many ticks, on that CPU, with nothing else allowed to run there
 *
 * Prints the fields of GapsAnswer in their order: ticks, longest, 64 sums, 64 counts. Statically linked, for a guest
 * that has no compiler.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <x86intrin.h>

#define BINS 64

static uint64_t sums[BINS], counts[BINS];

int main(int argc, char **argv)
{
	struct sched_param first = { .sched_priority = 50 };
	uint64_t ticks, longest = 0, started, before, now;
	cpu_set_t set;

	if (argc != 3) {
		fprintf(stderr, "usage: gaps CPU TICKS\n");
		return 2;
	}
	ticks = strtoull(argv[2], NULL, 0);
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof(set), &set) || mlockall(MCL_CURRENT) ||
	    sched_setscheduler(0, SCHED_FIFO, &first)) {
		perror("gaps");
		return 1;
	}
	started = before = __rdtsc();
	do {
		uint64_t gap;
		int bin;

		now = __rdtsc();
		gap = now - before;
		before = now;
		bin = BINS - 1 - __builtin_clzll(gap | 1);
		sums[bin] += gap;
		counts[bin]++;
		if (gap > longest)
			longest = gap;
	} while (now - started < ticks);
	printf("%llu %llu", (unsigned long long)(now - started), (unsigned long long)longest);
	for (int i = 0; i < BINS; i++)
		printf(" %llu", (unsigned long long)sums[i]);
	for (int i = 0; i < BINS; i++)
		printf(" %llu", (unsigned long long)counts[i]);
	putchar('\n');
	return 0;
}
