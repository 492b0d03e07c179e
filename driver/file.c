// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * /dev/sidecarN: open, close, ioctl, read, poll. What they mean, and every errno: docs/driver.md.
 *
 * A CPU is named by its Linux number, which is the ioctl's argument itself. START, RUN and RESTART
 * claim a CPU that nobody has.
 */
#include "sidecar.h"

#include <linux/fs.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vp.h"

/* What INFO answers; as upstream. */
struct sidecar_info {
	u32 base_cpu;
	u32 cpu_count;
	u32 per_cpu_shmem;
};

void sidecar_file_init(struct sidecar_file *file, struct sidecar_node *node)
{
	file->node = node;
	mutex_init(&file->map_lock);
	mutex_init(&file->read_lock);
	mutex_init(&file->vp_lock);
	init_waitqueue_head(&file->wait);
	INIT_LIST_HEAD(&file->finished);
}

/* Its claims and runs end. */
void sidecar_file_end(struct sidecar_file *file)
{
	sidecar_abandon(file);
	mutex_destroy(&file->vp_lock);
	mutex_destroy(&file->read_lock);
	mutex_destroy(&file->map_lock);
}

static int open(struct inode *inode, struct file *filp)
{
	struct sidecar_node *node = container_of(inode->i_cdev, struct sidecar_node, cdev);
	struct sidecar_file *file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);

	if (!file)
		return -ENOMEM;
	sidecar_file_init(file, node);
	file->mapping = filp->f_mapping;
	filp->private_data = file;
	return nonseekable_open(inode, filp);
}

static int close(struct inode *inode, struct file *filp)
{
	struct sidecar_file *file = filp->private_data;

	sidecar_file_end(file);
	kfree(file);
	return 0;
}

static int answer_info(const struct sidecar_node *node, void __user *to)
{
	struct sidecar_info info = {
		.base_cpu = node->base_cpu,
		.cpu_count = node->cpu_count,
		.per_cpu_shmem = SIDECAR_SHARED_BYTES,
	};

	BUILD_BUG_ON(SIDECAR_IOCTL_INFO != _IOR(0xb8, 0xf3, struct sidecar_info));
	return copy_to_user(to, &info, sizeof(info)) ? -EFAULT : 0;
}

static long ioctl(struct file *filp, unsigned int request, unsigned long argument)
{
	static int (*const commands[])(struct sidecar_cpu *cpu, struct sidecar_file *file) = {
		[SIDECAR_IOCTL_START - SIDECAR_IOCTL_START] = sidecar_start,
		[SIDECAR_IOCTL_STOP - SIDECAR_IOCTL_START] = sidecar_stop,
		[SIDECAR_IOCTL_RUN - SIDECAR_IOCTL_START] = sidecar_run,
		[SIDECAR_IOCTL_CLAIM - SIDECAR_IOCTL_START] = sidecar_claim,
		[SIDECAR_IOCTL_RELEASE - SIDECAR_IOCTL_START] = sidecar_release,
		[SIDECAR_IOCTL_RESTART - SIDECAR_IOCTL_START] = sidecar_restart,
	};
	struct sidecar_file *file = filp->private_data;
	unsigned int index = request - SIDECAR_IOCTL_START;
	struct sidecar_cpu *cpu;

	if (request == SIDECAR_IOCTL_INFO)
		return answer_info(file->node, (void __user *)argument);
	if (index >= ARRAY_SIZE(commands) || !commands[index])
		return sidecar_vp_ioctl(file, request, argument);
	cpu = sidecar_node_cpu(file->node, argument);
	if (!cpu)
		return -EINVAL;
	return commands[index](cpu, file);
}

/* Tells of as many ended runs as there are and fit, each once; returns the bytes written. */
static ssize_t tell_finished(struct sidecar_file *file, char __user *to, size_t size)
{
	struct sidecar_cpu *cpu;
	ssize_t done = 0;

	mutex_lock(&file->read_lock);
	while (size - done >= sizeof(u32) && (cpu = sidecar_next_finished(file))) {
		if (put_user(cpu->number, (u32 __user *)(to + done))) {
			done = done ? done : -EFAULT;
			break;
		}
		sidecar_told(cpu);
		done += sizeof(u32);
	}
	mutex_unlock(&file->read_lock);
	return done;
}

/* u32 CPU numbers; waits for the first. */
static ssize_t read(struct file *filp, char __user *to, size_t size, loff_t *position)
{
	struct sidecar_file *file = filp->private_data;
	ssize_t done;
	int err;

	if (size < sizeof(u32))
		return -EINVAL;
	if (READ_ONCE(file->node->control->needs_attention))
		sidecar_scan(file->node);
	while (!(done = tell_finished(file, to, size))) {
		if (filp->f_flags & O_NONBLOCK)
			return -EAGAIN;
		err = wait_event_interruptible(file->wait, !list_empty_careful(&file->finished));
		if (err)
			return err;
	}
	return done;
}

static __poll_t poll(struct file *filp, poll_table *table)
{
	struct sidecar_file *file = filp->private_data;

	poll_wait(filp, &file->wait, table);
	if (READ_ONCE(file->node->control->needs_attention))
		sidecar_scan(file->node);
	return list_empty_careful(&file->finished) ? 0 : EPOLLIN | EPOLLRDNORM;
}

const struct file_operations sidecar_file_operations = {
	.owner = THIS_MODULE,
	.open = open,
	.release = close,
	.unlocked_ioctl = ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.read = read,
	.poll = poll,
	.mmap = sidecar_mmap,
};
