// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * sidecar_bench.ko: what a command costs from inside Linux, beside Linux's own way to another CPU.
 *
 *	modprobe sidecar; insmod sidecar_bench.ko cpu=1 linux_cpu=3 count=1000 gap_us=100
 *	cat /sys/kernel/debug/sidecar_bench/run		an empty command on the sidecar's CPU 1
 *	cat /sys/kernel/debug/sidecar_bench/smp_call	a call of an empty function on CPU 3, and its end
 *
 * Each look at a file measures anew and gives one line: minimum, lower quartile, median, upper
 * quartile and maximum of `count` times in nanoseconds. Between two there is a gap, in which the
 * other CPU halts again and this one stays awake. The two functions that enclose what is measured
 * are there to be found in QEMU's execution log.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/smp.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>
#include <asm/msr.h>
#include <asm/tsc.h>

#include "holder.h"

static unsigned int cpu = 1;
module_param(cpu, uint, 0444);
MODULE_PARM_DESC(cpu, "a CPU of the sidecar");

static unsigned int linux_cpu = 3;
module_param(linux_cpu, uint, 0444);
MODULE_PARM_DESC(linux_cpu, "a CPU that Linux runs, and lets idle");

static unsigned int count = 1000;
module_param(count, uint, 0644);
MODULE_PARM_DESC(count, "how often");

static unsigned int gap_us = 100;
module_param(gap_us, uint, 0644);
MODULE_PARM_DESC(gap_us, "pause between two, in us");

static struct sidecar_holder *holder;
static struct dentry *folder;

/* Not the same code, which would be one function. */
static noinline void sidecar_bench_begin(void)
{
	asm volatile("nop" : : : "memory");
}

static noinline void sidecar_bench_end(void)
{
	asm volatile("nop; nop" : : : "memory");
}

/* --- what is measured ----------------------------------------------------------------------- */

static int run(void)
{
	return sidecar_run_held(holder);
}

static void nothing(void *unused)
{
}

static int smp_call(void)
{
	return smp_call_function_single(linux_cpu, nothing, NULL, true);
}

/* --- measuring ------------------------------------------------------------------------------ */

static int by_size(const void *left, const void *right)
{
	u64 a = *(const u64 *)left, b = *(const u64 *)right;

	return a < b ? -1 : a > b;
}

static int measure(struct seq_file *file, int (*what)(void))
{
	unsigned int times = READ_ONCE(count), i;
	u64 *taken;
	int err = 0;

	if (!times)
		return -EINVAL;
	taken = vmalloc_array(times, sizeof(*taken));
	if (!taken)
		return -ENOMEM;
	for (i = 0; i < times && !err; i++) {
		u64 started;

		sidecar_bench_begin();
		started = rdtsc_ordered();
		err = what();
		taken[i] = rdtsc_ordered() - started;
		sidecar_bench_end();
		udelay(gap_us);
		cond_resched();
	}
	if (!err) {
		sort(taken, times, sizeof(*taken), by_size, NULL);
		for (i = 0; i <= 4; i++)
			seq_printf(file, "%llu%c",
				   mul_u64_u32_div(taken[(u64)(times - 1) * i / 4], 1000000, tsc_khz),
				   i == 4 ? '\n' : ' ');
	}
	vfree(taken);
	return err;
}

static int run_show(struct seq_file *file, void *unused)
{
	return measure(file, run);
}
DEFINE_SHOW_ATTRIBUTE(run);

static int smp_call_show(struct seq_file *file, void *unused)
{
	return measure(file, smp_call);
}
DEFINE_SHOW_ATTRIBUTE(smp_call);

static int __init load(void)
{
	holder = sidecar_hold(cpu);
	if (IS_ERR(holder))
		return PTR_ERR(holder);
	folder = debugfs_create_dir("sidecar_bench", NULL);
	debugfs_create_file("run", 0400, folder, NULL, &run_fops);
	debugfs_create_file("smp_call", 0400, folder, NULL, &smp_call_fops);
	return 0;
}

static void __exit unload(void)
{
	debugfs_remove(folder);
	sidecar_let_go(holder);
}

module_init(load);
module_exit(unload);

MODULE_DESCRIPTION("Measures commands to the sidecar, and Linux's own calls to another CPU");
MODULE_AUTHOR("The sidecar-kernel project");
MODULE_LICENSE("Dual MIT/GPL");
