// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * One CPU: its private state, and whose it is. Its status byte is changed by sidecar_move().
 */
#include "sidecar.h"

#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/string.h>

#include "vp.h"

const char *sidecar_status_name(u8 status)
{
	static const char *const names[] = {
		[SIDECAR_CPU_STATUS_REMOVED] = "removed",
		[SIDECAR_CPU_STATUS_IDLE] = "idle",
		[SIDECAR_CPU_STATUS_RUN] = "run",
		[SIDECAR_CPU_STATUS_STOP] = "stop",
		[SIDECAR_CPU_STATUS_REMOVE] = "remove",
		[SIDECAR_CPU_STATUS_FAULTED] = "faulted",
	};

	return status < ARRAY_SIZE(names) ? names[status] : "unknown";
}

const char *sidecar_command_name(u32 command)
{
	switch (command) {
	case SIDECAR_COMMAND_NONE:
		return "none";
	case SIDECAR_COMMAND_RUN_VP:
		return "run_vp";
	case SIDECAR_COMMAND_GET_VP_REGISTERS:
		return "get_vp_registers";
	case SIDECAR_COMMAND_SET_VP_REGISTERS:
		return "set_vp_registers";
	case SIDECAR_COMMAND_TRANSLATE_GVA:
		return "translate_gva";
	case SIDECAR_COMMAND_RAISE:
		return "raise";
	case SIDECAR_COMMAND_GET_VP_XSAVE:
		return "get_vp_xsave";
	case SIDECAR_COMMAND_SET_VP_XSAVE:
		return "set_vp_xsave";
	default:
		return "unknown";
	}
}

/* --- state: the driver's own ---------------------------------------------------------------- */

const char *sidecar_state_name(enum sidecar_state state)
{
	static const char *const names[] = {
		[SIDECAR_AVAIL] = "available",
		[SIDECAR_SYNC] = "sync",
		[SIDECAR_STARTING] = "starting",
		[SIDECAR_ASYNC] = "async",
		[SIDECAR_STOPPING] = "stopping",
		[SIDECAR_STOPPED] = "stopped",
		[SIDECAR_REMOVED] = "removed",
		[SIDECAR_LOST] = "lost",
	};

	return names[state];
}

/* node->lock is held. Whoever waits for the CPU looks again. */
void sidecar_set_state(struct sidecar_cpu *cpu, enum sidecar_state state)
{
	lockdep_assert_held(&cpu->node->lock);
	WRITE_ONCE(cpu->state, state);
	if (wq_has_sleeper(&cpu->wait))
		wake_up_all(&cpu->wait);
}

/* The same for who holds SYNC or STARTING and not the lock. */
void sidecar_publish_state(struct sidecar_cpu *cpu, enum sidecar_state state)
{
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	sidecar_set_state(cpu, state);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
}

/* A run that was started and that nobody has been told of. */
bool sidecar_in_flight(const struct sidecar_cpu *cpu)
{
	enum sidecar_state state = READ_ONCE(cpu->state);

	return state == SIDECAR_ASYNC || state == SIDECAR_STOPPING || state == SIDECAR_STOPPED;
}

/* --- which CPU ------------------------------------------------------------------------------ */

/* By Linux number, over all nodes; NULL if it is of none. */
struct sidecar_cpu *sidecar_find_cpu(unsigned int number)
{
	u16 node;

	if (number >= sidecar.cpu_count)
		return NULL;
	node = sidecar.cpu_map[number].node;
	if (node >= sidecar.node_count)
		return NULL;
	return sidecar_node_cpu(sidecar.nodes[node], number);
}

/* By Linux number, in one node; NULL if it is not of this node. */
struct sidecar_cpu *sidecar_node_cpu(struct sidecar_node *node, unsigned long number)
{
	if (number < node->base_cpu || number - node->base_cpu >= node->cpu_count)
		return NULL;
	return &node->cpus[number - node->base_cpu];
}

/* --- whose CPU ------------------------------------------------------------------------------ */

/* node->lock is held. May `file` use the CPU, and does nothing run on it? */
int sidecar_require_available(const struct sidecar_cpu *cpu, const struct sidecar_file *file)
{
	lockdep_assert_held(&cpu->node->lock);
	if (cpu->linux_only)
		return -ENOENT;
	if (cpu->node->refusing)
		return -ESHUTDOWN;
	if (cpu->owner && cpu->owner != file)
		return -EBUSY;
	if (cpu->wanted)
		return -EBUSY;
	switch (cpu->state) {
	case SIDECAR_AVAIL:
		/* Linux had the CPU in between: the end of its last run is still to be told. */
		return list_empty(&cpu->finished) ? 0 : -EBUSY;
	case SIDECAR_REMOVED:
		return -ENOENT;
	case SIDECAR_LOST:
		return -EIO;
	default:
		return -EBUSY;
	}
}

static void clear_pages(struct sidecar_cpu *cpu)
{
	struct sidecar_command_page *page = cpu->command;

	memset(page, 0, offsetof(struct sidecar_command_page, abi_version));
	memset_after(page, 0, abi_hash);
	memset(cpu->registers, 0, SIDECAR_PAGE_SIZE);
}

/* node->lock is held. `file` has the CPU from now on. The pages of a LOST CPU were not cleared when
 * their last holder went; whatever the CPU does, that holder's data are gone now.
 */
void sidecar_own(struct sidecar_cpu *cpu, struct sidecar_file *file)
{
	lockdep_assert_held(&cpu->node->lock);
	if (!cpu->owner && cpu->state == SIDECAR_LOST)
		clear_pages(cpu);
	cpu->owner = file;
	cpu->returned = false;
}

/* From now on only `file` may use the CPU. Claims do not nest. A LOST CPU may be claimed, to be
 * restarted.
 */
int sidecar_claim(struct sidecar_cpu *cpu, struct sidecar_file *file)
{
	unsigned long flags;
	int err;

	spin_lock_irqsave(&cpu->node->lock, flags);
	if (cpu->owner && !cpu->linux_only)
		err = -EBUSY;
	else
		err = sidecar_require_available(cpu, file);
	if (err == -EIO && cpu->state == SIDECAR_LOST)
		err = 0;
	if (!err)
		sidecar_own(cpu, file);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return err;
}

/* -EPERM if `file` does not hold the CPU, -EBUSY while a command runs or its end is not told, or if
 * it has a virtual processor.
 */
static int require_released(const struct sidecar_cpu *cpu, const struct sidecar_file *file)
{
	lockdep_assert_held(&cpu->node->lock);
	if (cpu->linux_only)
		return -ENOENT;
	if (cpu->owner != file)
		return -EPERM;
	if (cpu->state == SIDECAR_SYNC || cpu->state == SIDECAR_STARTING ||
	    sidecar_in_flight(cpu) || !list_empty(&cpu->finished) || sidecar_has_vp(cpu))
		return -EBUSY;
	return 0;
}

/* Ends a claim: the pages are taken out of the file's mappings and cleared before anybody else can
 * claim the CPU.
 */
int sidecar_release(struct sidecar_cpu *cpu, struct sidecar_file *file)
{
	unsigned long flags;
	int err;

	mutex_lock(&file->map_lock);
	spin_lock_irqsave(&cpu->node->lock, flags);
	err = require_released(cpu, file);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	if (err)
		goto out;
	sidecar_unmap(file, cpu);
	spin_lock_irqsave(&cpu->node->lock, flags);
	err = require_released(cpu, file);
	if (!err) {
		sidecar_scrub(cpu);
		cpu->owner = NULL;
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
out:
	mutex_unlock(&file->map_lock);
	return err;
}

/* Clears what a client has left in the shared pages, but for version and hash, which the CPU has
 * written; unless the pages are not the driver's: then the CPU's next arrival clears them.
 */
void sidecar_scrub(struct sidecar_cpu *cpu)
{
	u8 status = sidecar_status(cpu);

	if (status == SIDECAR_CPU_STATUS_IDLE || status == SIDECAR_CPU_STATUS_FAULTED)
		clear_pages(cpu);
}
