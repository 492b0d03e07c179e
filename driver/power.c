// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * When the machine sleeps, reboots, starts another kernel, or panics.
 *
 * Suspend and hibernation are refused: the CPUs of the sidecar would lose their state. Before a
 * reboot or kexec no command is begun any more, running ones are cancelled, a CPU that does not
 * end its command is halted by INIT, virtual processors end, and nobody is notified from then on:
 * idle CPUs stay halted in the sidecar, and the next kernel's driver finds them. In a panic the
 * notification alone is ended, by plain stores.
 */
#include "sidecar.h"

#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/reboot.h>
#include <linux/suspend.h>

#include "vp.h"

#define CANCEL_MS 1000

static int on_sleep(struct notifier_block *block, unsigned long event, void *data)
{
	switch (event) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		pr_err("the machine cannot sleep while the sidecar has CPUs: unload the driver and take all CPUs online, or shut down\n");
		return notifier_from_errno(-EBUSY);
	default:
		return NOTIFY_DONE;
	}
}

static void refuse(struct sidecar_node *node)
{
	unsigned long flags;

	spin_lock_irqsave(&node->lock, flags);
	node->refusing = true;
	spin_unlock_irqrestore(&node->lock, flags);
}

static void quiesce(struct sidecar_node *node, ktime_t deadline)
{
	struct sidecar_cpu *cpu;

	sidecar_for_each_cpu(cpu, node) {
		if (cpu->linux_only)
			continue;
		if (!sidecar_wait_until(cpu->wait, !sidecar_in_command(cpu), deadline)) {
			sidecar_cpu_err(cpu, "runs a command that does not end: halted by INIT");
			sidecar_halt_by_init(cpu);
		}
		sidecar_vp_shut_down(cpu);
	}
	sidecar_response_silence(node);
}

static int on_reboot(struct notifier_block *block, unsigned long event, void *data)
{
	ktime_t deadline = sidecar_deadline(CANCEL_MS);
	struct sidecar_node *node;
	struct sidecar_cpu *cpu;
	unsigned int i;

	WRITE_ONCE(sidecar.stopping, true);
	sidecar_for_each_node(node, i) {
		refuse(node);
		sidecar_for_each_cpu(cpu, node)
			sidecar_cancel(cpu);
	}
	sidecar_for_each_node(node, i)
		quiesce(node, deadline);
	return NOTIFY_DONE;
}

static int on_panic(struct notifier_block *block, unsigned long event, void *data)
{
	struct sidecar_node *node;
	unsigned int i;

	sidecar_for_each_node(node, i)
		sidecar_response_silence(node);
	return NOTIFY_DONE;
}

static struct notifier_block sleep_block = { .notifier_call = on_sleep };
static struct notifier_block reboot_block = { .notifier_call = on_reboot };
static struct notifier_block panic_block = { .notifier_call = on_panic };

int sidecar_power_register(void)
{
	int err = register_pm_notifier(&sleep_block);

	if (err)
		return err;
	err = register_reboot_notifier(&reboot_block);
	if (err) {
		unregister_pm_notifier(&sleep_block);
		return err;
	}
	atomic_notifier_chain_register(&panic_notifier_list, &panic_block);
	return 0;
}

void sidecar_power_unregister(void)
{
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_block);
	unregister_reboot_notifier(&reboot_block);
	unregister_pm_notifier(&sleep_block);
}
