// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Virtual processors of CPUs: given, taken away, and what becomes of them when a CPU is restarted.
 *
 * A CPU knows of its virtual processor by its privileged page alone; vp_created, written last, says
 * that there is one. To take it away the number is set to 0 and the CPU runs the empty command:
 * then it has let go of the pages. A faulted CPU gets INIT instead. One that does neither is LOST,
 * and keeps pages and guest memory until it has come back.
 *
 * Ref: docs/virtual_processors.md, "Giving a CPU a virtual processor".
 */
#include "sidecar.h"

#include <linux/atomic.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <asm/cpufeature.h>
#include <asm/fpu/types.h>
#include <asm/processor.h>

#include "vp.h"

#define PAGES_BYTES (SIDECAR_VP_PAGES * SIDECAR_PAGE_SIZE)
#define SHUT_DOWN_MS 1000

/* vp_created of the last one: no two have the same. */
static atomic64_t creations;

static int require_hardware(void)
{
	if (!boot_cpu_has(X86_FEATURE_SVM)) {
		pr_err("there can be no virtual processor: the processor has no AMD SVM, or firmware has switched it off\n");
		return -EOPNOTSUPP;
	}
	if (!boot_cpu_has(X86_FEATURE_NPT)) {
		pr_err("there can be no virtual processor: the processor has no nested paging\n");
		return -EOPNOTSUPP;
	}
	return 0;
}

/* node->lock is held. */
int sidecar_require_held(const struct sidecar_cpu *cpu, const struct sidecar_file *file)
{
	lockdep_assert_held(&cpu->node->lock);
	if (cpu->linux_only)
		return -ENOENT;
	return cpu->owner == file ? 0 : -EPERM;
}

/* --- given ---------------------------------------------------------------------------------- */

static struct sidecar_vp *allocate(struct sidecar_vm *vm)
{
	struct sidecar_vp *vp = kzalloc(sizeof(*vp), GFP_KERNEL_ACCOUNT);

	if (!vp)
		return NULL;
	vp->pages = alloc_pages_exact(PAGES_BYTES, GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!vp->pages) {
		kfree(vp);
		return NULL;
	}
	vp->vm = vm;
	INIT_LIST_HEAD(&vp->doorbells);
	return vp;
}

static void release(struct sidecar_vp *vp)
{
	free_pages_exact(vp->pages, PAGES_BYTES);
	kfree(vp);
}

/* The registers that the command page holds, as after RESET: it was cleared after its last holder.
 * Ref: SDM vol. 3A, table 10-1.
 */
static void reset_context(struct sidecar_command_page *page)
{
	struct fxregs_state *fx = (struct fxregs_state *)page->cpu_context.fx_state;

	memset(&page->cpu_context, 0, sizeof(page->cpu_context));
	page->cpu_context.gps[2] = cpuid_eax(1);
	fx->cwd = 0x37f;
	fx->mxcsr = MXCSR_DEFAULT;
}

/* The CPU is in no command. What an earlier one left in its TLB is gone before the first entry. */
static void announce(struct sidecar_cpu *cpu)
{
	struct sidecar_privileged_page *page = cpu->privileged;
	struct sidecar_vp *vp = cpu->vp;

	lockdep_assert_held(&cpu->node->lock);
	vp->generation = page->guest_generation + 1;
	WRITE_ONCE(page->guest_generation, vp->generation);
	WRITE_ONCE(page->vp_pages_pa, virt_to_phys(vp->pages));
	WRITE_ONCE(page->guest_root_pa, virt_to_phys(vp->vm->root));
	WRITE_ONCE(page->iopm_pa, sidecar_iopm_pa());
	smp_store_release(&page->vp_created, atomic64_inc_return(&creations));
}

static int give(struct sidecar_cpu *cpu, struct sidecar_file *file, struct sidecar_vp *vp)
{
	unsigned long flags;
	int err;

	spin_lock_irqsave(&cpu->node->lock, flags);
	err = sidecar_require_held(cpu, file);
	if (!err)
		err = sidecar_require_available(cpu, file);
	if (!err && cpu->vp)
		err = -EEXIST;
	if (!err && sidecar_status(cpu) != SIDECAR_CPU_STATUS_IDLE)
		err = -EIO;
	if (!err) {
		cpu->vp = vp;
		reset_context(cpu->command);
		WRITE_ONCE(cpu->privileged->doorbell, 0);
		announce(cpu);
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return err;
}

/* VP_CREATE: takes over the reference to the guest memory if it succeeds. */
int sidecar_vp_create(struct sidecar_cpu *cpu, struct sidecar_file *file, struct sidecar_vm *vm)
{
	struct sidecar_vp *vp;
	int err = require_hardware();

	if (err)
		return err;
	vp = allocate(vm);
	if (!vp)
		return -ENOMEM;
	err = give(cpu, file, vp);
	if (err)
		release(vp);
	return err;
}

/* --- taken away ----------------------------------------------------------------------------- */

/* The CPU, SYNC or STARTING here, uses nothing of it any more. */
static void detach(struct sidecar_cpu *cpu)
{
	struct sidecar_privileged_page *page = cpu->privileged;
	struct sidecar_vp *vp = cpu->vp;
	struct sidecar_vm *vm = vp->vm;
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	cpu->vp = NULL;
	WRITE_ONCE(page->vp_pages_pa, 0);
	WRITE_ONCE(page->guest_root_pa, 0);
	WRITE_ONCE(page->iopm_pa, 0);
	WRITE_ONCE(page->doorbell, 0);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	release(vp);
	sidecar_vm_put(vm);
}

static void leave(struct sidecar_cpu *cpu)
{
	unsigned long flags;

	spin_lock_irqsave(&cpu->node->lock, flags);
	cpu->vp->leaving = true;
	spin_unlock_irqrestore(&cpu->node->lock, flags);
}

/* An idle CPU runs the empty command, upon which it forgets. False if it does not end. */
static bool let_go(struct sidecar_cpu *cpu, unsigned int ms)
{
	WRITE_ONCE(cpu->privileged->vp_created, 0);
	WRITE_ONCE(cpu->command->command, SIDECAR_COMMAND_NONE);
	if (sidecar_move(cpu, SIDECAR_CPU_STATUS_IDLE, SIDECAR_CPU_STATUS_RUN) !=
	    SIDECAR_CPU_STATUS_IDLE)
		return !sidecar_in_command(cpu);
	sidecar_request(cpu);
	return sidecar_wait_until(cpu->wait, !sidecar_in_command(cpu), sidecar_deadline(ms));
}

/* The CPU is SYNC, and AVAIL or LOST afterwards. -EIO if it is LOST, and its memory with it. */
static int take_away(struct sidecar_cpu *cpu)
{
	u8 status;

	sidecar_unbind_all(cpu->vp);
	if (!let_go(cpu, sidecar_timeout_ms)) {
		leave(cpu);
		sidecar_publish_state(cpu, SIDECAR_STARTING);
		sidecar_time_out(cpu, "the removal of its virtual processor");
		return READ_ONCE(cpu->state) == SIDECAR_LOST ? -EIO : 0;
	}
	status = sidecar_status(cpu);
	if (status == SIDECAR_CPU_STATUS_FAULTED) {
		sidecar_tell_fault(cpu);
		sidecar_halt_by_init(cpu);
	} else if (status != SIDECAR_CPU_STATUS_IDLE) {
		leave(cpu);
		sidecar_cpu_err(cpu, "has status %s (%#x) after the removal of its virtual processor: lost",
				sidecar_status_name(status), status);
		sidecar_publish_state(cpu, SIDECAR_LOST);
		return -EIO;
	}
	detach(cpu);
	sidecar_publish_state(cpu, SIDECAR_AVAIL);
	return 0;
}

/* VP_DESTROY */
int sidecar_vp_destroy(struct sidecar_cpu *cpu, struct sidecar_file *file)
{
	unsigned long flags;
	int err;

	spin_lock_irqsave(&cpu->node->lock, flags);
	err = sidecar_require_held(cpu, file);
	if (!err)
		err = sidecar_require_available(cpu, file);
	if (!err && !cpu->vp)
		err = -ENOENT;
	if (!err)
		sidecar_set_state(cpu, SIDECAR_SYNC);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return err ? err : take_away(cpu);
}

/* The file of its claim is closed; no run of the CPU is in flight. */
void sidecar_vp_abandon(struct sidecar_cpu *cpu)
{
	unsigned long flags;
	bool mine = false;

	if (!cpu->vp)
		return;
	spin_lock_irqsave(&cpu->node->lock, flags);
	if (cpu->state == SIDECAR_AVAIL) {
		sidecar_set_state(cpu, SIDECAR_SYNC);
		mine = true;
	} else {
		cpu->vp->leaving = true;
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	if (mine)
		take_away(cpu);
	else
		sidecar_unbind_all(cpu->vp);
}

/* --- restarts, reboot, unloading ------------------------------------------------------------ */

/* The CPU, STARTING, has got INIT and not yet STARTUP: its virtual processor begins anew. */
void sidecar_vp_renew(struct sidecar_cpu *cpu)
{
	unsigned long flags;

	WRITE_ONCE(cpu->privileged->vp_created, 0);
	if (!sidecar_has_vp(cpu))
		return;
	memset(cpu->vp->pages, 0, PAGES_BYTES);
	spin_lock_irqsave(&cpu->node->lock, flags);
	announce(cpu);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
}

/* The CPU, STARTING, has arrived. */
void sidecar_vp_came_back(struct sidecar_cpu *cpu)
{
	if (cpu->vp && cpu->vp->leaving)
		detach(cpu);
}

/* The machine reboots; no command is begun any more. Nothing is freed. */
void sidecar_vp_shut_down(struct sidecar_cpu *cpu)
{
	if (cpu->vp && sidecar_status(cpu) == SIDECAR_CPU_STATUS_IDLE)
		let_go(cpu, SHUT_DOWN_MS);
	WRITE_ONCE(cpu->privileged->vp_created, 0);
}

/* The driver is unloaded. */
void sidecar_vp_forsake(const struct sidecar_cpu *cpu)
{
	if (cpu->vp)
		sidecar_cpu_err(cpu, "is lost: the memory of its last virtual processor stays in use");
}
