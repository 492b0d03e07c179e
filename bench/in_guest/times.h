/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * How long something takes, many times over. For one program.
 *
 * begin() and end() enclose what is measured; they are there to be found in QEMU's execution log, by their names: so
 * they are not static, not inlined, and not the same code, which would be one function.
 */
#ifndef TIMES_H
#define TIMES_H

#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

__attribute__((noinline)) void begin(void)
{
	__asm__ volatile("nop" : : : "memory");
}

__attribute__((noinline)) void end(void)
{
	__asm__ volatile("nop; nop" : : : "memory");
}

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

static void stay_awake(int us)
{
	double end = seconds() + us / 1e6;

	while (us && seconds() < end)
		_mm_pause();
}

/* Prints one line: minimum, lower quartile, median, upper quartile and maximum in nanoseconds. */
static void measure(void (*what)(void), int count, int gap_us)
{
	uint64_t *taken = calloc(count, sizeof(*taken));
	double started = seconds(), ns;
	uint64_t first = __rdtsc();

	if (!taken || count < 1)
		err(1, "no room for so many");
	for (int i = 0; i < count; i++) {
		begin();
		uint64_t before = __rdtsc();

		what();
		taken[i] = __rdtsc() - before;
		end();
		stay_awake(gap_us);
	}
	ns = (seconds() - started) * 1e9 / (__rdtsc() - first);
	qsort(taken, count, sizeof(*taken), by_size);
	for (int i = 0; i <= 4; i++)
		printf("%.0f%c", taken[(long)(count - 1) * i / 4] * ns, i == 4 ? '\n' : ' ');
	free(taken);
}

#endif /* TIMES_H */
