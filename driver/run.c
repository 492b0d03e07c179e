// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Commands on a CPU, from the claim to the end.
 *
 *   AVAIL -> SYNC or ASYNC     under node->lock, in which IDLE becomes RUN in the control page
 *   request vector             to the CPU, unless it says that it looks itself; under the same
 *                              lock, because after it the command may have ended, and Linux may
 *                              have the CPU
 *   RUN -> IDLE                by the CPU; its attention interrupt has the node scanned
 *   SYNC -> AVAIL              by who waits; ASYNC -> STOPPED by the scan, -> AVAIL by read()
 *
 * A command that does not end in time gets INIT and the CPU is restarted: its pages are not used
 * again before that.
 */
#include "sidecar.h"

#include <linux/sched/signal.h>
#include <asm/msr.h>
#include <asm/tsc.h>

#include "vp.h"

#define LOOKS_PER_PAUSE 32

/* Of the TSC, a fortieth less: this is in every command, and a shift is cheaper than a division. */
static u64 ticks(unsigned int us)
{
	return (u64)us * tsc_khz >> 10;
}

/* The CPU is told to run what is in its command page; the file holds it from now on. */
static int begin(struct sidecar_cpu *cpu, struct sidecar_file *file, enum sidecar_state state)
{
	/* For a message alone: user space may change it at any time. */
	u32 command = READ_ONCE(cpu->command->command);
	u8 found = SIDECAR_CPU_STATUS_IDLE;
	unsigned long flags;
	int err;

	spin_lock_irqsave(&cpu->node->lock, flags);
	err = sidecar_require_available(cpu, file);
	if (!err && cpu->owner && cpu->returned) {
		/* What is in its page may be half of what the holder wrote there. */
		cpu->returned = false;
		err = -ESTALE;
	}
	if (!err) {
		WRITE_ONCE(cpu->privileged->quiet,
			   state == SIDECAR_SYNC && READ_ONCE(sidecar_poll_us));
		WRITE_ONCE(cpu->privileged->halt_poll, ticks(READ_ONCE(sidecar_halt_poll_us)));
		found = sidecar_move(cpu, SIDECAR_CPU_STATUS_IDLE, SIDECAR_CPU_STATUS_RUN);
		if (found == SIDECAR_CPU_STATUS_IDLE) {
			sidecar_own(cpu, file);
			cpu->last_command = command;
			WRITE_ONCE(cpu->state, state);
			/* After a locked exchange of the status: see halt_poll in kernel/park.py */
			if (!READ_ONCE(cpu->privileged->polling))
				sidecar_request(cpu);
		} else {
			err = -EIO;
			WRITE_ONCE(cpu->privileged->quiet, 0);
			if (found != SIDECAR_CPU_STATUS_FAULTED)
				sidecar_set_state(cpu, SIDECAR_LOST);
		}
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	if (!err)
		return 0;
	if (found == SIDECAR_CPU_STATUS_FAULTED)
		sidecar_tell_fault(cpu);
	else if (found != SIDECAR_CPU_STATUS_IDLE)
		sidecar_cpu_err(cpu, "is not idle, its status is %s (%#x): lost",
				sidecar_status_name(found), found);
	return err;
}

/* Asks for an early end. node->lock is held. */
static bool move_to_stop(struct sidecar_cpu *cpu)
{
	lockdep_assert_held(&cpu->node->lock);
	if (cpu->state != SIDECAR_SYNC && cpu->state != SIDECAR_ASYNC)
		return false;
	if (sidecar_move(cpu, SIDECAR_CPU_STATUS_RUN, SIDECAR_CPU_STATUS_STOP) !=
	    SIDECAR_CPU_STATUS_RUN)
		return false;
	if (cpu->state == SIDECAR_ASYNC)
		sidecar_set_state(cpu, SIDECAR_STOPPING);
	sidecar_request(cpu);
	return true;
}

/* Asks whatever command runs to end early; false if none runs. It ends with an answer as always. */
bool sidecar_cancel(struct sidecar_cpu *cpu)
{
	unsigned long flags;
	bool asked;

	spin_lock_irqsave(&cpu->node->lock, flags);
	asked = move_to_stop(cpu);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return asked;
}

/* Looks for the end without sleeping, for poll_us at most and while nobody else wants this CPU;
 * true if the command ended. A PAUSE now and then has an emulated CPU let others run; it costs
 * more than many looks there.
 */
static bool poll_for_end(struct sidecar_cpu *cpu)
{
	u64 started = rdtsc(), longest = ticks(READ_ONCE(sidecar_poll_us));
	unsigned int looks;
	bool ended;

	if (!READ_ONCE(cpu->privileged->quiet))
		return false;
	for (looks = 1; !(ended = !sidecar_in_command(cpu)) && !need_resched() &&
			rdtsc() - started < longest; looks++)
		if (looks % LOOKS_PER_PAUSE == 0)
			cpu_relax();
	WRITE_ONCE(cpu->privileged->quiet, 0);
	/* The caller looks once more; the CPU reads `quiet` after it has changed its status. */
	if (!ended)
		smp_mb();
	return ended;
}

/* Waits for the end of the command; true if it ended. A signal cancels the command, which then has
 * the same time again.
 */
static bool wait_for_end(struct sidecar_cpu *cpu)
{
	ktime_t deadline;

	if (poll_for_end(cpu))
		return true;
	deadline = sidecar_deadline(sidecar_timeout_ms);
	while (sidecar_in_command(cpu) && ktime_before(ktime_get(), deadline)) {
		if (wait_event_interruptible_timeout(cpu->wait, !sidecar_in_command(cpu),
						     sidecar_patience(deadline)) >= 0)
			continue;
		sidecar_cancel(cpu);
		deadline = sidecar_deadline(sidecar_timeout_ms);
		return sidecar_wait_until(cpu->wait, !sidecar_in_command(cpu), deadline);
	}
	return !sidecar_in_command(cpu);
}

/* What the end of a run makes of the CPU; its status. node->lock is held. */
static u8 end(struct sidecar_cpu *cpu)
{
	u8 status = sidecar_status(cpu);

	sidecar_set_state(cpu, status == SIDECAR_CPU_STATUS_IDLE ||
			       status == SIDECAR_CPU_STATUS_FAULTED ?
			       SIDECAR_AVAIL : SIDECAR_LOST);
	return status;
}

/* RUN: the command to its end. */
int sidecar_run(struct sidecar_cpu *cpu, struct sidecar_file *file)
{
	unsigned long flags;
	int err = begin(cpu, file, SIDECAR_SYNC);
	u8 status;

	if (err)
		return err;
	if (!wait_for_end(cpu)) {
		sidecar_publish_state(cpu, SIDECAR_STARTING);
		sidecar_time_out(cpu, "a command");
		return -ETIMEDOUT;
	}
	spin_lock_irqsave(&cpu->node->lock, flags);
	status = end(cpu);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	if (status == SIDECAR_CPU_STATUS_IDLE)
		return 0;
	if (status == SIDECAR_CPU_STATUS_FAULTED)
		sidecar_tell_fault(cpu);
	else
		sidecar_cpu_err(cpu, "ended a command with status %s (%#x): lost",
				sidecar_status_name(status), status);
	return -EIO;
}

/* START: the command runs when this returns; read() tells of its end. */
int sidecar_start(struct sidecar_cpu *cpu, struct sidecar_file *file)
{
	return begin(cpu, file, SIDECAR_ASYNC);
}

/* STOP: 1 if the running command was asked to end, 0 if none runs any more. */
int sidecar_stop(struct sidecar_cpu *cpu, struct sidecar_file *file)
{
	unsigned long flags;
	int asked = 0;

	spin_lock_irqsave(&cpu->node->lock, flags);
	if (cpu->linux_only || cpu->state == SIDECAR_REMOVED)
		asked = -ENOENT;
	else if (cpu->owner && cpu->owner != file)
		asked = -EBUSY;
	else
		asked = move_to_stop(cpu);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return asked;
}

/* --- ends of started runs ------------------------------------------------------------------- */

static void scan_cpu(struct sidecar_cpu *cpu)
{
	if ((cpu->state == SIDECAR_ASYNC || cpu->state == SIDECAR_STOPPING) &&
	    !sidecar_in_command(cpu)) {
		sidecar_set_state(cpu, SIDECAR_STOPPED);
		list_add_tail(&cpu->finished, &cpu->owner->finished);
		wake_up_interruptible(&cpu->owner->wait);
	} else if (wq_has_sleeper(&cpu->wait)) {
		wake_up_all(&cpu->wait);
	}
}

/* Looks at every CPU of the node. In any context. */
void sidecar_scan(struct sidecar_node *node)
{
	struct sidecar_cpu *cpu;
	unsigned long flags;

	spin_lock_irqsave(&node->lock, flags);
	xchg(&node->control->needs_attention, 0);
	sidecar_for_each_cpu(cpu, node)
		scan_cpu(cpu);
	spin_unlock_irqrestore(&node->lock, flags);
	sidecar_for_each_cpu(cpu, node)
		sidecar_tell_fault(cpu);
}

/* A CPU whose started run has ended and is not told; NULL if there is none. */
struct sidecar_cpu *sidecar_next_finished(struct sidecar_file *file)
{
	struct sidecar_cpu *cpu;
	unsigned long flags;

	spin_lock_irqsave(&file->node->lock, flags);
	cpu = list_first_entry_or_null(&file->finished, struct sidecar_cpu, finished);
	spin_unlock_irqrestore(&file->node->lock, flags);
	return cpu;
}

/* The end is told; read_lock is held since next_finished(). A restart may have dropped it since. */
void sidecar_told(struct sidecar_cpu *cpu)
{
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	if (!list_empty(&cpu->finished)) {
		list_del_init(&cpu->finished);
		if (cpu->state == SIDECAR_STOPPED)
			end(cpu);
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
}

/* --- a file goes ---------------------------------------------------------------------------- */

/* Takes a CPU that still runs out of the started runs, to be restarted; false if it has ended. */
static bool give_up(struct sidecar_cpu *cpu)
{
	unsigned long flags;
	bool running;

	spin_lock_irqsave(&cpu->node->lock, flags);
	running = (cpu->state == SIDECAR_ASYNC || cpu->state == SIDECAR_STOPPING) &&
		  sidecar_in_command(cpu);
	if (running)
		sidecar_set_state(cpu, SIDECAR_STARTING);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return running;
}

/* Nobody is told of a run that has ended. */
static void forget_run(struct sidecar_cpu *cpu)
{
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	list_del_init(&cpu->finished);
	if (sidecar_in_flight(cpu))
		end(cpu);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
}

static void disown(struct sidecar_cpu *cpu)
{
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	if (cpu->state == SIDECAR_AVAIL)
		sidecar_scrub(cpu);
	cpu->owner = NULL;
	spin_unlock_irqrestore(&cpu->node->lock, flags);
}

/* The file is closed, nothing maps its CPUs' pages any more: its runs are cancelled, all at once,
 * and its virtual processors and claims end. What is SYNC or STARTING here is being converted or
 * returned by Linux, and its pages are cleared by its next arrival.
 */
void sidecar_abandon(struct sidecar_file *file)
{
	ktime_t deadline = sidecar_deadline(sidecar_timeout_ms);
	struct sidecar_node *node = file->node;
	struct sidecar_cpu *cpu;

	sidecar_for_each_cpu(cpu, node)
		if (READ_ONCE(cpu->owner) == file)
			sidecar_cancel(cpu);
	sidecar_for_each_cpu(cpu, node) {
		if (READ_ONCE(cpu->owner) != file)
			continue;
		if (sidecar_in_flight(cpu) &&
		    !sidecar_wait_until(cpu->wait, !sidecar_in_command(cpu), deadline) &&
		    give_up(cpu))
			sidecar_time_out(cpu, "a command whose file was closed");
		forget_run(cpu);
		sidecar_vp_abandon(cpu);
		disown(cpu);
	}
}
