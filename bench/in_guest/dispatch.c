// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What a command costs from a C program, beside Linux's own ways to wake another thread.
 *
 *	dispatch run DEVICE CPU COUNT GAP_US		an empty command by ioctl RUN
 *	dispatch futex HERE THERE COUNT GAP_US		a thread on CPU THERE is woken and wakes this one, by futex
 *	dispatch eventfd HERE THERE COUNT GAP_US	likewise, by eventfd
 *
 * Prints the line of times.h. Between two commands there is a gap, in which the other side goes to sleep. Statically
 * linked, for a guest that has no compiler.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sidecar_abi.h"
#include "times.h"

enum turn { OURS, THEIRS, OVER };

static int device, number;
static int there_cpu;
static _Atomic uint32_t turn;
static int to_them, to_us;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "sched_setaffinity");
}

/* --- what is measured ----------------------------------------------------------------------- */

static void run(void)
{
	if (ioctl(device, SIDECAR_IOCTL_RUN, (unsigned long)number))
		err(1, "RUN");
}

static void wait_while(uint32_t value)
{
	while (atomic_load(&turn) == value)
		syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void pass_to(uint32_t value)
{
	atomic_store(&turn, value);
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void futex_there_and_back(void)
{
	pass_to(THEIRS);
	wait_while(THEIRS);
}

static void *futex_partner(void *unused)
{
	pin(there_cpu);
	for (;;) {
		wait_while(OURS);
		if (atomic_load(&turn) == OVER)
			return unused;
		pass_to(OURS);
	}
}

static void send(int file, uint64_t value)
{
	if (write(file, &value, sizeof(value)) != sizeof(value))
		err(1, "write");
}

static uint64_t receive(int file)
{
	uint64_t value;

	if (read(file, &value, sizeof(value)) != sizeof(value))
		err(1, "read");
	return value;
}

static void eventfd_there_and_back(void)
{
	send(to_them, 1);
	receive(to_us);
}

static void *eventfd_partner(void *unused)
{
	pin(there_cpu);
	while (receive(to_them) == 1)
		send(to_us, 1);
	return unused;
}

/* --- measuring ------------------------------------------------------------------------------ */

static void between_threads(char **words, void *(*partner)(void *), void (*what)(void))
{
	pthread_t thread;

	pin(atoi(words[0]));
	there_cpu = atoi(words[1]);
	to_them = eventfd(0, 0);
	to_us = eventfd(0, 0);
	if (to_them < 0 || to_us < 0 || pthread_create(&thread, NULL, partner, NULL))
		err(1, "a second thread");
	what();
	measure(what, atoi(words[2]), atoi(words[3]));
	pass_to(OVER);
	send(to_them, 2);
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "run")) {
		device = open(argv[2], O_RDWR);
		number = atoi(argv[3]);
		if (device < 0 || ioctl(device, SIDECAR_IOCTL_CLAIM, (unsigned long)number))
			err(1, "%s", argv[2]);
		measure(run, atoi(argv[4]), atoi(argv[5]));
	} else if (argc == 6 && !strcmp(argv[1], "futex")) {
		between_threads(argv + 2, futex_partner, futex_there_and_back);
	} else if (argc == 6 && !strcmp(argv[1], "eventfd")) {
		between_threads(argv + 2, eventfd_partner, eventfd_there_and_back);
	} else {
		fprintf(stderr, "usage: dispatch run DEVICE CPU COUNT GAP_US | futex|eventfd HERE THERE COUNT GAP_US\n");
		return 2;
	}
	return 0;
}
