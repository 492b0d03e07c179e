// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Doorbells: bits that make a running virtual processor return, posted by an ioctl or by the signal
 * of an eventfd.
 *
 * The bits stand in the CPU's privileged page; the CPU exchanges them with 0. It looks at them
 * before each entry of the guest, and takes the request interrupt during one, so a bit is not lost
 * whenever it is posted; until the next run it waits there.
 *
 * A binding hooks into the eventfd's wait queue and takes its count, under the queue's lock.
 */
#include "sidecar.h"

#include <linux/err.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/list.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "vp.h"

/* An eventfd that posts a bit. */
struct binding {
	struct list_head list;
	struct sidecar_cpu *cpu;
	unsigned int bit;
	struct eventfd_ctx *eventfd;
	wait_queue_head_t *queue;
	wait_queue_entry_t wait;
	poll_table table;
};

/* In any context, without a lock. The prefix is written out: see sidecar_move(). */
void sidecar_post(struct sidecar_cpu *cpu, u64 bits)
{
	asm volatile("lock orq %1, %0"
		     : "+m" (cpu->privileged->doorbell) : "r" (bits) : "memory", "cc");
	if (sidecar_status(cpu) == SIDECAR_CPU_STATUS_RUN)
		sidecar_request(cpu);
}

/* The eventfd is signalled, or closed, or there is room in it again. Its lock is held. */
static int signalled(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct binding *binding = container_of(wait, struct binding, wait);
	u64 count;

	if (key_to_poll(key) & EPOLLIN) {
		eventfd_ctx_do_read(binding->eventfd, &count);
		sidecar_post(binding->cpu, BIT_ULL(binding->bit));
	}
	return 0;
}

static void hook(struct file *file, wait_queue_head_t *queue, poll_table *table)
{
	struct binding *binding = container_of(table, struct binding, table);

	binding->queue = queue;
	add_wait_queue(queue, &binding->wait);
}

/* What was signalled before the hook was there. */
static void catch_up(struct binding *binding)
{
	u64 count;

	spin_lock_irq(&binding->queue->lock);
	eventfd_ctx_do_read(binding->eventfd, &count);
	spin_unlock_irq(&binding->queue->lock);
	if (count)
		sidecar_post(binding->cpu, BIT_ULL(binding->bit));
}

static struct binding *find(const struct sidecar_vp *vp, unsigned int bit)
{
	struct binding *binding;

	list_for_each_entry(binding, &vp->doorbells, list)
		if (binding->bit == bit)
			return binding;
	return NULL;
}

static int bind_file(struct sidecar_cpu *cpu, unsigned int bit, struct file *file)
{
	struct eventfd_ctx *eventfd = eventfd_ctx_fileget(file);
	struct binding *binding;

	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);
	binding = kzalloc(sizeof(*binding), GFP_KERNEL_ACCOUNT);
	if (!binding) {
		eventfd_ctx_put(eventfd);
		return -ENOMEM;
	}
	binding->cpu = cpu;
	binding->bit = bit;
	binding->eventfd = eventfd;
	init_waitqueue_func_entry(&binding->wait, signalled);
	init_poll_funcptr(&binding->table, hook);
	vfs_poll(file, &binding->table);
	catch_up(binding);
	list_add(&binding->list, &cpu->vp->doorbells);
	return 0;
}

/* The CPU has a virtual processor, which stays: file->vp_lock is held. */
int sidecar_bind(struct sidecar_cpu *cpu, unsigned int bit, int fd)
{
	struct file *file;
	int err;

	if (find(cpu->vp, bit))
		return -EBUSY;
	file = fget(fd);
	if (!file)
		return -EBADF;
	err = bind_file(cpu, bit, file);
	fput(file);
	return err;
}

static void unbind(struct binding *binding)
{
	remove_wait_queue(binding->queue, &binding->wait);
	eventfd_ctx_put(binding->eventfd);
	list_del(&binding->list);
	kfree(binding);
}

int sidecar_unbind(struct sidecar_vp *vp, unsigned int bit)
{
	struct binding *binding = find(vp, bit);

	if (!binding)
		return -ENOENT;
	unbind(binding);
	return 0;
}

/* No signal posts anything from now on. */
void sidecar_unbind_all(struct sidecar_vp *vp)
{
	struct binding *binding, *after;

	list_for_each_entry_safe(binding, after, &vp->doorbells, list)
		unbind(binding);
}
