// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A change of nested page tables is taken note of by every CPU that may use them.
 *
 * guest_generation in a CPU's privileged page is counted up after the change; the CPU flushes and
 * stores the number into seen_generation before it uses the tables again. A CPU that is in no
 * command need not be asked: RUN is a full barrier on both sides, so it will find the number. A
 * CPU that does not take note in time is LOST, and keeps what it may still use.
 *
 * Ref: docs/virtual_processors.md, "Changing guest memory".
 */
#include "sidecar.h"

#include <linux/delay.h>

#include "vp.h"

#define SHORTEST_LOOK_US 20
#define LONGEST_LOOK_US 2000

static bool uses(const struct sidecar_cpu *cpu, const struct sidecar_vm *vm)
{
	lockdep_assert_held(&cpu->node->lock);
	return cpu->vp && cpu->vp->vm == vm;
}

static void ask(struct sidecar_cpu *cpu, const struct sidecar_vm *vm)
{
	struct sidecar_privileged_page *page = cpu->privileged;
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	if (uses(cpu, vm)) {
		cpu->vp->generation = page->guest_generation + 1;
		WRITE_ONCE(page->guest_generation, cpu->vp->generation);
		smp_mb();
		if (sidecar_in_command(cpu))
			sidecar_request(cpu);
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
}

static bool acknowledged(struct sidecar_cpu *cpu, const struct sidecar_vm *vm)
{
	unsigned long flags;
	bool done;

	spin_lock_irqsave(&cpu->node->lock, flags);
	done = !uses(cpu, vm) || !sidecar_in_command(cpu) ||
	       (s64)(smp_load_acquire(&cpu->privileged->seen_generation) -
		     cpu->vp->generation) >= 0;
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return done;
}

/* A LOST CPU is not waited for a second time. */
static bool await(struct sidecar_cpu *cpu, const struct sidecar_vm *vm, ktime_t deadline)
{
	unsigned long us = SHORTEST_LOOK_US;

	while (!acknowledged(cpu, vm)) {
		if (READ_ONCE(cpu->state) == SIDECAR_LOST || ktime_after(ktime_get(), deadline))
			return acknowledged(cpu, vm);
		usleep_range(us, 2 * us);
		us = min_t(unsigned long, 2 * us, LONGEST_LOOK_US);
	}
	return true;
}

/* A started run of a CPU that does not listen: its end is told, and nothing else is begun on it.
 * A RUN, or a restart, has a bound of its own.
 */
static void lose(struct sidecar_cpu *cpu, const struct sidecar_vm *vm)
{
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	if (uses(cpu, vm) && sidecar_in_command(cpu) &&
	    (cpu->state == SIDECAR_ASYNC || cpu->state == SIDECAR_STOPPING)) {
		sidecar_set_state(cpu, SIDECAR_LOST);
		list_add_tail(&cpu->finished, &cpu->owner->finished);
		wake_up_interruptible(&cpu->owner->wait);
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	sidecar_cpu_err(cpu, "has not taken note of a change of its guest's memory, its status is %s, its state %s",
			sidecar_status_name(sidecar_status(cpu)),
			sidecar_state_name(READ_ONCE(cpu->state)));
}

#define for_every_cpu(cpu, node, i) \
	sidecar_for_each_node(node, i) \
		sidecar_for_each_cpu(cpu, node)

/* Has every CPU taken note of the last change? */
bool sidecar_vm_settled(const struct sidecar_vm *vm)
{
	struct sidecar_node *node;
	struct sidecar_cpu *cpu;
	unsigned int i;

	for_every_cpu(cpu, node, i)
		if (!acknowledged(cpu, vm))
			return false;
	return true;
}

/* After a change of the tables: true once no CPU uses what was there before. vm->lock is held. */
bool sidecar_vm_flush(const struct sidecar_vm *vm)
{
	ktime_t deadline = sidecar_deadline(sidecar_timeout_ms);
	struct sidecar_node *node;
	struct sidecar_cpu *cpu;
	bool all = true;
	unsigned int i;

	lockdep_assert_held(&vm->lock);
	for_every_cpu(cpu, node, i)
		ask(cpu, vm);
	for_every_cpu(cpu, node, i) {
		if (await(cpu, vm, deadline))
			continue;
		lose(cpu, vm);
		all = false;
	}
	return all;
}
