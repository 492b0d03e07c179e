// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Interrupts to a sidecar CPU, and its way back through the trampoline by INIT and STARTUP.
 *
 * INIT comes first, so that nothing of the CPU's former life touches its pages any more; a change
 * of status that it made with its last instructions is found afterwards. That a CPU has come back
 * is told by its own count of arrivals: its status alone could be the former life's.
 *
 * Ref: SDM vol. 3A, 9.4.4.1 (10 ms from INIT to STARTUP), 11.6.1 and 11.12.9 (x2APIC ICR).
 */
#include "sidecar.h"

#include <linux/delay.h>
#include <asm/apic.h>
#include <asm/msr.h>

#include "vp.h"

#define ATTEMPTS 3
#define ARRIVE_MS 2000
#define INIT_US 10000

/* One x2APIC ICR write. It is not serialising: the fences make earlier stores visible first. */
static void send(const struct sidecar_cpu *cpu, u32 low)
{
	preempt_disable();
	asm volatile("mfence; lfence" : : : "memory");
	wrmsrl(APIC_BASE_MSR + (APIC_ICR >> 4), (u64)cpu->apic_id << 32 | low);
	preempt_enable();
}

/* Makes the CPU look at its status. */
void sidecar_request(const struct sidecar_cpu *cpu)
{
	send(cpu, APIC_INT_ASSERT | APIC_DM_FIXED | cpu->node->request_vector);
}

/* After this the CPU executes nothing until STARTUP. */
void sidecar_halt_by_init(const struct sidecar_cpu *cpu)
{
	send(cpu, APIC_INT_ASSERT | APIC_DM_INIT);
	usleep_range(INIT_US, 2 * INIT_US);
}

/* Makes the status RUN, whatever the CPU's former life left there; false if it left no status. */
static bool publish_run(struct sidecar_cpu *cpu)
{
	u8 found = sidecar_status(cpu);

	while (found != SIDECAR_CPU_STATUS_RUN) {
		u8 old = found;

		if (!sidecar_cpu_transition_allowed(old, SIDECAR_CPU_STATUS_RUN,
						    SIDECAR_PARTY_DRIVER)) {
			sidecar_cpu_err(cpu, "cannot be restarted: its status is %#x", old);
			return false;
		}
		found = sidecar_move(cpu, old, SIDECAR_CPU_STATUS_RUN);
		if (found == old)
			break;
	}
	return true;
}

static bool arrived(const struct sidecar_cpu *cpu, u64 before)
{
	return READ_ONCE(cpu->diagnostic->boot.arrivals) != before &&
	       sidecar_status(cpu) != SIDECAR_CPU_STATUS_RUN;
}

static bool try_once(struct sidecar_cpu *cpu)
{
	u64 before = READ_ONCE(cpu->diagnostic->boot.arrivals);
	ktime_t deadline;

	sidecar_halt_by_init(cpu);
	sidecar_vp_renew(cpu);
	WRITE_ONCE(cpu->privileged->restart_count, cpu->privileged->restart_count + 1);
	if (!publish_run(cpu))
		return false;
	send(cpu, APIC_INT_ASSERT | APIC_DM_STARTUP | (sidecar.trampoline_pa >> 12));
	deadline = sidecar_deadline(ARRIVE_MS);
	return sidecar_wait_until(cpu->wait, arrived(cpu, before), deadline) &&
	       sidecar_status(cpu) == SIDECAR_CPU_STATUS_IDLE;
}

/* The CPU is STARTING, and AVAIL or LOST afterwards. It may have faulted on its way. */
bool sidecar_bring_up(struct sidecar_cpu *cpu)
{
	int attempt;

	for (attempt = 0; attempt < ATTEMPTS && !READ_ONCE(sidecar.stopping); attempt++) {
		if (try_once(cpu)) {
			sidecar_vp_came_back(cpu);
			sidecar_publish_state(cpu, SIDECAR_AVAIL);
			return true;
		}
		sidecar_tell_fault(cpu);
	}
	if (attempt == ATTEMPTS)
		sidecar_cpu_err(cpu, "did not come back after %d times INIT and STARTUP, its status is %s: lost",
				attempt, sidecar_status_name(sidecar_status(cpu)));
	sidecar_publish_state(cpu, SIDECAR_LOST);
	return false;
}

/* The CPU, STARTING, has not done `what` in time: INIT, then back through the trampoline. */
void sidecar_time_out(struct sidecar_cpu *cpu, const char *what)
{
	cpu->timeouts++;
	sidecar_cpu_err(cpu, "did not end %s within %u ms, its status is %s, its last command %#x: restarting it",
			what, sidecar_timeout_ms, sidecar_status_name(sidecar_status(cpu)),
			cpu->last_command);
	if (sidecar_bring_up(cpu))
		sidecar_cpu_info(cpu, "was restarted");
}

/* RESTART: INIT and a new arrival. A started run is abandoned without an answer. */
int sidecar_restart(struct sidecar_cpu *cpu, struct sidecar_file *file)
{
	unsigned long flags;
	int err;

	spin_lock_irqsave(&cpu->node->lock, flags);
	err = sidecar_require_available(cpu, file);
	if ((err == -EIO && cpu->state == SIDECAR_LOST) ||
	    (err == -EBUSY && cpu->owner == file &&
	     (sidecar_in_flight(cpu) || cpu->state == SIDECAR_AVAIL)))
		err = 0;
	if (!err) {
		sidecar_own(cpu, file);
		list_del_init(&cpu->finished);
		sidecar_set_state(cpu, SIDECAR_STARTING);
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	if (err)
		return err;
	return sidecar_bring_up(cpu) ? 0 : -EIO;
}
