// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What takes its time after the driver is loaded: CPUs that Linux shall have are brought online,
 * CPUs that are the sidecar's and not with it are restarted.
 *
 * The shim boots Linux with maxcpus=1, so the first CPUs of later nodes and those that policy
 * leaves to Linux are offline until somebody brings them online: that is here, unless online=0.
 */
#include "sidecar.h"

#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/ktime.h>
#include <linux/workqueue.h>

static bool is_linuxs(unsigned int number)
{
	const struct sidecar_cpu *cpu = sidecar_find_cpu(number);

	return !cpu || cpu->linux_only;
}

static void bring_online(struct work_struct *work)
{
	unsigned int number, count = 0;
	ktime_t before = ktime_get();
	int err;

	for (number = 0; number < sidecar.cpu_count; number++) {
		if (READ_ONCE(sidecar.stopping))
			return;
		if (number >= nr_cpu_ids || !cpu_present(number) || cpu_online(number) ||
		    !is_linuxs(number))
			continue;
		err = add_cpu(number);
		if (err)
			pr_err("CPU %u is Linux's and cannot be brought online (error %d)\n",
			       number, err);
		else
			pr_info("CPU %u is Linux's: brought online\n", number);
		count += !err;
	}
	if (count)
		pr_info("brought %u CPUs online in %lld ms\n", count,
			ktime_ms_delta(ktime_get(), before));
}

/* Is the CPU one that attach.c left to be restarted? A CPU that never arrived comes last, as it
 * will hardly do so now.
 */
static bool wants_restart(const struct sidecar_cpu *cpu, bool arrived)
{
	return READ_ONCE(cpu->state) == SIDECAR_STARTING && cpu->left_behind &&
	       !READ_ONCE(cpu->diagnostic->boot.arrivals) != arrived;
}

static void bring_back_all(bool arrived)
{
	struct sidecar_node *node;
	struct sidecar_cpu *cpu;
	unsigned int i;

	sidecar_for_each_node(node, i) {
		sidecar_for_each_cpu(cpu, node) {
			if (READ_ONCE(sidecar.stopping))
				return;
			if (!wants_restart(cpu, arrived))
				continue;
			cpu->left_behind = false;
			if (sidecar_bring_up(cpu))
				sidecar_cpu_info(cpu, "is back with the sidecar");
		}
	}
}

static void bring_back(struct work_struct *work)
{
	bring_back_all(true);
	bring_back_all(false);
}

static DECLARE_WORK(online_work, bring_online);
static DECLARE_WORK(back_work, bring_back);

void sidecar_background_start(void)
{
	queue_work(system_unbound_wq, &back_work);
	if (sidecar_online)
		queue_work(system_unbound_wq, &online_work);
}

/* Waits for the CPU that is at work. */
void sidecar_background_stop(void)
{
	WRITE_ONCE(sidecar.stopping, true);
	cancel_work_sync(&online_work);
	cancel_work_sync(&back_work);
}
