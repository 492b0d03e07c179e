// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Which CPU is stuck, since when, in which command.
 *
 * A CPU that executes a command is sent the request vector now and then. It counts what it takes,
 * also while its virtual processor runs. One that has neither counted a request nor recorded an
 * event for hang_ms has interrupts off in a command that does not end: one line in dmesg says so,
 * and stuck_ms in sysfs since when. Nothing is done to it; STOP and RESTART are its user's, and
 * whoever waits for the command gives up after timeout_ms anyway.
 *
 * The beat also hears attention that no interrupt told of: were one lost, a reader of started runs
 * would sleep until the next.
 */
#include "sidecar.h"

#include <linux/workqueue.h>

#define BEATS_PER_HANG 4
#define BEAT_MS_IF_OFF 1000

static void look_at(struct sidecar_cpu *cpu, ktime_t now)
{
	struct sidecar_beat *beat = &cpu->beat;
	u64 requests = READ_ONCE(cpu->diagnostic->counters.requests);
	u64 events = READ_ONCE(cpu->diagnostic->recorder.written);
	bool moves = requests != beat->requests || events != beat->events;

	lockdep_assert_held(&cpu->node->lock);
	if (!sidecar_in_command(cpu) || cpu->state == SIDECAR_STARTING || moves) {
		if (beat->stuck)
			sidecar_cpu_info(cpu, "is not stuck any more, after %lld ms",
					 ktime_ms_delta(now, beat->since));
		beat->requests = requests;
		beat->events = events;
		beat->since = now;
		beat->stuck = false;
	} else if (!beat->stuck && ktime_ms_delta(now, beat->since) >= sidecar_hang_ms) {
		beat->stuck = true;
		sidecar_cpu_err(cpu, "is stuck since %lld ms in command %s (%#x), status %s: stop the command, or restart the CPU",
				ktime_ms_delta(now, beat->since),
				sidecar_command_name(cpu->last_command), cpu->last_command,
				sidecar_status_name(sidecar_status(cpu)));
	}
	if (sidecar_in_command(cpu) && cpu->state != SIDECAR_STARTING)
		sidecar_request(cpu);
}

static void beat(struct work_struct *work);
static DECLARE_DELAYED_WORK(beat_work, beat);

static void beat_again(void)
{
	unsigned int hang_ms = READ_ONCE(sidecar_hang_ms);
	unsigned int ms = hang_ms ? hang_ms / BEATS_PER_HANG : BEAT_MS_IF_OFF;

	queue_delayed_work(system_unbound_wq, &beat_work, msecs_to_jiffies(ms) + 1);
}

static void beat(struct work_struct *work)
{
	struct sidecar_node *node;
	struct sidecar_cpu *cpu;
	unsigned long flags;
	unsigned int i;

	sidecar_for_each_node(node, i) {
		if (READ_ONCE(node->control->needs_attention))
			sidecar_scan(node);
		sidecar_for_each_cpu(cpu, node) {
			if (cpu->linux_only || READ_ONCE(sidecar.stopping) ||
			    !READ_ONCE(sidecar_hang_ms))
				continue;
			spin_lock_irqsave(&node->lock, flags);
			look_at(cpu, ktime_get());
			spin_unlock_irqrestore(&node->lock, flags);
		}
	}
	beat_again();
}

/* How long the CPU has been stuck; 0 if it is not. */
u64 sidecar_stuck_ms(const struct sidecar_cpu *cpu)
{
	unsigned long flags;
	u64 ms = 0;

	spin_lock_irqsave(&cpu->node->lock, flags);
	if (cpu->beat.stuck)
		ms = ktime_ms_delta(ktime_get(), cpu->beat.since);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return ms;
}

void sidecar_heartbeat_start(void)
{
	beat_again();
}

void sidecar_heartbeat_stop(void)
{
	cancel_delayed_work_sync(&beat_work);
}
