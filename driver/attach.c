// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What the driver finds when it is loaded, and how it and Linux come to agree on every CPU.
 *
 * While no driver was loaded Linux may have taken CPUs, let them go, or been started anew by
 * kexec; another client may have left commands running. So the status bytes are looked at with
 * CPU hotplug held still, and every idle CPU has to answer an empty command. What is not as it
 * should be is restarted in the background (background.c); such a CPU is STARTING until then.
 */
#include "sidecar.h"

#include <linux/cpu.h>
#include <linux/cpumask.h>

/* All CPUs answer at the same time; a first command in an emulator takes milliseconds. */
#define ANSWER_MS 1000

/* Linux runs the CPU: so it is REMOVED, whatever the sidecar's last word was. */
static void note_taken(struct sidecar_cpu *cpu)
{
	u8 found = sidecar_status(cpu);

	while (found != SIDECAR_CPU_STATUS_REMOVED) {
		u8 old = found;

		if (!sidecar_cpu_transition_allowed(old, SIDECAR_CPU_STATUS_REMOVED,
						    SIDECAR_PARTY_DRIVER)) {
			sidecar_cpu_err(cpu, "Linux runs it, and its status is %#x", old);
			break;
		}
		found = sidecar_move(cpu, old, SIDECAR_CPU_STATUS_REMOVED);
		if (found == old)
			break;
	}
	sidecar_publish_state(cpu, SIDECAR_REMOVED);
}

/* Has the CPU run the command that does nothing. False if it is not idle. */
static bool ask(struct sidecar_cpu *cpu)
{
	WRITE_ONCE(cpu->command->command, SIDECAR_COMMAND_NONE);
	if (sidecar_move(cpu, SIDECAR_CPU_STATUS_IDLE, SIDECAR_CPU_STATUS_RUN) !=
	    SIDECAR_CPU_STATUS_IDLE)
		return false;
	sidecar_publish_state(cpu, SIDECAR_SYNC);
	sidecar_request(cpu);
	return true;
}

/* CPU hotplug is held still. SYNC afterwards if the CPU was asked to answer. */
static void look_at(struct sidecar_cpu *cpu)
{
	if (cpu->linux_only)
		return;
	/* A virtual processor of before is nobody's now, and its memory may be anybody's. Whoever
	 * looked for an end is gone.
	 */
	WRITE_ONCE(cpu->privileged->vp_created, 0);
	WRITE_ONCE(cpu->privileged->quiet, 0);
	WRITE_ONCE(cpu->privileged->halt_poll, 0);
	if (cpu_online(cpu->number)) {
		note_taken(cpu);
	} else if (sidecar_status(cpu) == SIDECAR_CPU_STATUS_FAULTED) {
		sidecar_tell_fault(cpu);
		sidecar_publish_state(cpu, SIDECAR_AVAIL);
	} else if (sidecar_status(cpu) != SIDECAR_CPU_STATUS_IDLE || !ask(cpu)) {
		cpu->left_behind = true;
	}
}

static void await_answer(struct sidecar_cpu *cpu, ktime_t deadline)
{
	if (sidecar_wait_until(cpu->wait, !sidecar_in_command(cpu), deadline)) {
		sidecar_scrub(cpu);
		sidecar_tell_fault(cpu);
		sidecar_publish_state(cpu, SIDECAR_AVAIL);
		return;
	}
	sidecar_cpu_err(cpu, "does not answer: restarting it");
	cpu->left_behind = true;
	sidecar_publish_state(cpu, SIDECAR_STARTING);
}

static void settle(void)
{
	ktime_t deadline = sidecar_deadline(ANSWER_MS);
	struct sidecar_node *node;
	struct sidecar_cpu *cpu;
	unsigned int i;

	sidecar_for_each_node(node, i)
		sidecar_for_each_cpu(cpu, node)
			look_at(cpu);
	sidecar_for_each_node(node, i)
		sidecar_for_each_cpu(cpu, node)
			if (cpu->state == SIDECAR_SYNC)
				await_answer(cpu, deadline);
}

static void report(const struct sidecar_node *node)
{
	const struct sidecar_cpu *cpu;
	unsigned int ours = 0, linux_has = 0, starting = 0;

	sidecar_for_each_cpu(cpu, node) {
		ours += cpu->state == SIDECAR_AVAIL;
		linux_has += cpu->state == SIDECAR_REMOVED;
		starting += cpu->state == SIDECAR_STARTING;
	}
	pr_info("node %u: CPUs %u to %u, %u ready, %u Linux's, %u to be restarted; response vector %u on CPU %u\n",
		node->index, node->base_cpu, node->base_cpu + node->cpu_count - 1, ours, linux_has,
		starting, node->control->response_vector, node->response_cpu);
}

/* Every node has its interrupt, every CPU its state, and Linux asks before it takes one. */
int sidecar_attach(void)
{
	struct sidecar_node *node;
	unsigned int i;
	int err = 0;

	cpus_read_lock();
	sidecar_for_each_node(node, i) {
		err = sidecar_response_set_up(node);
		if (err)
			break;
	}
	if (!err) {
		settle();
		err = sidecar_hotplug_register();
	}
	cpus_read_unlock();
	if (err) {
		sidecar_for_each_node(node, i)
			sidecar_response_tear_down(node);
		return err;
	}
	sidecar_for_each_node(node, i)
		report(node);
	return 0;
}

/* No CPU changes hands: what Linux has it keeps, what the sidecar has stays idle. */
void sidecar_detach(void)
{
	struct sidecar_node *node;
	unsigned int i;

	sidecar_hotplug_unregister();
	sidecar_for_each_node(node, i)
		sidecar_response_tear_down(node);
}
