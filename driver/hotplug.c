// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * CPUs between the sidecar and Linux, by Linux's own switch /sys/devices/system/cpu/cpuN/online.
 *
 * Online: the prepare callback runs on another CPU before Linux sends INIT and STARTUP. It takes
 * the CPU out of the sidecar, waiting a bounded time for a command to end; if it fails, Linux does
 * not touch the CPU and the write of "1" fails. Offline, and an online that Linux rolled back: the
 * same callback's counterpart runs after the CPU is dead and brings it back through the trampoline;
 * it never fails, a CPU that does not come is LOST.
 *
 * Linux's part of its own INIT on 6.12 (CPUHP_BP_KICK_AP) comes after all prepare callbacks.
 *
 * CPUs that are not the sidecar's are left alone, but for the response interrupt: it is on a node's
 * first CPU while that is online.
 */
#include "sidecar.h"

#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>

#include "vp.h"

static enum cpuhp_state prepare_state, online_state;

/* A run may have ended whose attention interrupt is still on its way. */
static bool may_take(struct sidecar_cpu *cpu)
{
	enum sidecar_state state;

	if (READ_ONCE(cpu->node->control->needs_attention))
		sidecar_scan(cpu->node);
	state = READ_ONCE(cpu->state);
	return state != SIDECAR_SYNC && state != SIDECAR_STARTING && state != SIDECAR_ASYNC &&
	       state != SIDECAR_STOPPING;
}

static void give_up(struct sidecar_cpu *cpu)
{
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	cpu->wanted = false;
	spin_unlock_irqrestore(&cpu->node->lock, flags);
}

/*
 * 0 and SYNC, or STARTING if it was LOST; 1 if the CPU is Linux's already; -EBUSY if it has a
 * virtual processor, whose registers would be lost; -EAGAIN while something runs on it, and then
 * nobody begins a command until it was taken or given up.
 */
static int try_take(struct sidecar_cpu *cpu)
{
	unsigned long flags;
	int result = 0;

	spin_lock_irqsave(&cpu->node->lock, flags);
	if (cpu->state == SIDECAR_REMOVED)
		result = 1;
	else if (sidecar_has_vp(cpu))
		result = -EBUSY;
	else if (!may_take(cpu))
		result = -EAGAIN;
	else
		sidecar_set_state(cpu, cpu->state == SIDECAR_LOST ? SIDECAR_STARTING :
								    SIDECAR_SYNC);
	cpu->wanted = result == -EAGAIN;
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return result;
}

/* The same, after waiting. */
static int take(struct sidecar_cpu *cpu)
{
	ktime_t deadline = sidecar_deadline(sidecar_timeout_ms);
	int result = try_take(cpu);

	while (result == -EAGAIN && sidecar_wait_until(cpu->wait, may_take(cpu), deadline))
		result = try_take(cpu);
	if (result == -EAGAIN)
		give_up(cpu);
	return result;
}

static bool left(const struct sidecar_cpu *cpu)
{
	return sidecar_status(cpu) != SIDECAR_CPU_STATUS_REMOVE;
}

/* The CPU, SYNC, leaves the sidecar: REMOVED, and halted until INIT. */
static int remove(struct sidecar_cpu *cpu)
{
	ktime_t deadline = sidecar_deadline(sidecar_timeout_ms);
	u8 found = sidecar_move(cpu, SIDECAR_CPU_STATUS_IDLE, SIDECAR_CPU_STATUS_REMOVE);

	if (found == SIDECAR_CPU_STATUS_IDLE) {
		sidecar_request(cpu);
		if (!sidecar_wait_until(cpu->wait, left(cpu), deadline)) {
			cpu->returned = true;
			sidecar_publish_state(cpu, SIDECAR_STARTING);
			sidecar_time_out(cpu, "its removal");
			return -ETIMEDOUT;
		}
	}
	if (sidecar_status(cpu) == SIDECAR_CPU_STATUS_FAULTED) {
		sidecar_tell_fault(cpu);
		sidecar_halt_by_init(cpu);
		sidecar_move(cpu, SIDECAR_CPU_STATUS_FAULTED, SIDECAR_CPU_STATUS_REMOVED);
	}
	found = sidecar_status(cpu);
	if (found != SIDECAR_CPU_STATUS_REMOVED) {
		sidecar_cpu_err(cpu, "cannot be removed: its status is %s (%#x): lost",
				sidecar_status_name(found), found);
		sidecar_publish_state(cpu, SIDECAR_LOST);
		return -EIO;
	}
	cpu->conversions++;
	sidecar_publish_state(cpu, SIDECAR_REMOVED);
	return 0;
}

/* Linux is about to start the CPU `number`. Never -EBUSY: upon that newer kernels try five times
 * more.
 */
static int prepare(unsigned int number)
{
	struct sidecar_cpu *cpu = sidecar_find_cpu(number);
	int err;

	if (!cpu || cpu->linux_only)
		return 0;
	err = take(cpu);
	if (err == -EAGAIN)
		sidecar_cpu_err(cpu, "Linux cannot have it: it is still busy after %u ms (%s)",
				sidecar_timeout_ms, sidecar_state_name(READ_ONCE(cpu->state)));
	if (err == -EBUSY) {
		sidecar_cpu_err(cpu, "Linux cannot have it: it has a virtual processor");
		return -EAGAIN;
	}
	if (err)
		return min(err, 0);
	if (cpu->state == SIDECAR_STARTING) {
		if (!sidecar_bring_up(cpu))
			return -EIO;
		return prepare(number);
	}
	return remove(cpu);
}

/* The CPU `number` is dead, or was never started. */
static int dead(unsigned int number)
{
	struct sidecar_cpu *cpu = sidecar_find_cpu(number);
	struct sidecar_node *node;
	unsigned long flags;
	bool ours = false;
	unsigned int i;

	sidecar_for_each_node(node, i)
		if (node->response_cpu == number) {
			sidecar_response_follow(node);
			sidecar_scan(node);
		}
	if (!cpu || cpu->linux_only)
		return 0;
	spin_lock_irqsave(&cpu->node->lock, flags);
	if (cpu->state == SIDECAR_REMOVED) {
		ours = true;
		cpu->returned = true;
		sidecar_set_state(cpu, SIDECAR_STARTING);
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	if (ours)
		sidecar_bring_up(cpu);
	return 0;
}

/* On the CPU itself: it is online. */
static int online(unsigned int number)
{
	struct sidecar_node *node;
	unsigned int i;

	sidecar_for_each_node(node, i)
		if (node->base_cpu == number)
			sidecar_response_move(node, number);
	return 0;
}

/* On the CPU itself: it is going offline. */
static int going(unsigned int number)
{
	struct sidecar_node *node;
	unsigned int i, to;

	sidecar_for_each_node(node, i) {
		if (node->response_cpu != number)
			continue;
		to = cpumask_any_but(cpu_online_mask, number);
		if (to < nr_cpu_ids)
			sidecar_response_move(node, to);
	}
	return 0;
}

/* cpus_read_lock() is held; no callback is called for CPUs that are online already. */
int sidecar_hotplug_register(void)
{
	int state;

	state = cpuhp_setup_state_nocalls_cpuslocked(CPUHP_BP_PREPARE_DYN, "x86/sidecar:prepare",
						     prepare, dead);
	if (state < 0)
		return state;
	prepare_state = state;
	state = cpuhp_setup_state_nocalls_cpuslocked(CPUHP_AP_ONLINE_DYN, "x86/sidecar:online",
						     online, going);
	if (state < 0) {
		cpuhp_remove_state_nocalls_cpuslocked(prepare_state);
		return state;
	}
	online_state = state;
	return 0;
}

void sidecar_hotplug_unregister(void)
{
	cpuhp_remove_state_nocalls(online_state);
	cpuhp_remove_state_nocalls(prepare_state);
}
