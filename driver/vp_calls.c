// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The ioctls of /dev/sidecarN for virtual processors: their arguments. Every errno is in
 * docs/driver.md.
 */
#include "sidecar.h"

#include <linux/err.h>
#include <linux/uaccess.h>

#include "vp.h"

/* Fills in an argument, all of which begin with the number of a CPU; that CPU, or an error. */
static struct sidecar_cpu *read_argument(const struct sidecar_file *file, unsigned long from,
					 void *wanted, size_t size)
{
	struct sidecar_cpu *cpu;

	if (copy_from_user(wanted, (const void __user *)from, size))
		return ERR_PTR(-EFAULT);
	cpu = sidecar_node_cpu(file->node, *(const u32 *)wanted);
	return cpu ? cpu : ERR_PTR(-EINVAL);
}

static int create(struct sidecar_file *file, unsigned long argument)
{
	struct sidecar_vp_create wanted;
	struct sidecar_cpu *cpu = read_argument(file, argument, &wanted, sizeof(wanted));
	struct sidecar_vm *vm;
	int err;

	if (IS_ERR(cpu))
		return PTR_ERR(cpu);
	vm = sidecar_vm_get(wanted.vm_fd);
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	err = sidecar_vp_create(cpu, file, vm);
	if (err)
		sidecar_vm_put(vm);
	return err;
}

static int destroy(struct sidecar_file *file, unsigned long number)
{
	struct sidecar_cpu *cpu = sidecar_node_cpu(file->node, number);

	return cpu ? sidecar_vp_destroy(cpu, file) : -EINVAL;
}

/* node->lock is held. */
static int require_vp(const struct sidecar_cpu *cpu, const struct sidecar_file *file)
{
	int err = sidecar_require_held(cpu, file);

	return err || sidecar_has_vp(cpu) ? err : -ENOENT;
}

static int ring(struct sidecar_file *file, unsigned long argument)
{
	struct sidecar_doorbell wanted;
	struct sidecar_cpu *cpu = read_argument(file, argument, &wanted, sizeof(wanted));
	unsigned long flags;
	int err;

	if (IS_ERR(cpu))
		return PTR_ERR(cpu);
	if (wanted.reserved_4)
		return -EINVAL;
	spin_lock_irqsave(&cpu->node->lock, flags);
	err = require_vp(cpu, file);
	if (!err && wanted.bits)
		sidecar_post(cpu, wanted.bits);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	return err;
}

static int bind(struct sidecar_file *file, unsigned long argument)
{
	struct sidecar_doorbell_fd wanted;
	struct sidecar_cpu *cpu = read_argument(file, argument, &wanted, sizeof(wanted));
	unsigned long flags;
	int err;

	if (IS_ERR(cpu))
		return PTR_ERR(cpu);
	if (wanted.reserved_c || wanted.bit > 63)
		return -EINVAL;
	spin_lock_irqsave(&cpu->node->lock, flags);
	err = require_vp(cpu, file);
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	if (err)
		return err;
	if (wanted.eventfd == SIDECAR_NO_EVENTFD)
		return sidecar_unbind(cpu->vp, wanted.bit);
	return sidecar_bind(cpu, wanted.bit, wanted.eventfd);
}

/* What changes which virtual processors and bindings there are, one at a time for a file. */
static int locked(int (*call)(struct sidecar_file *, unsigned long), struct sidecar_file *file,
		  unsigned long argument)
{
	int result;

	mutex_lock(&file->vp_lock);
	result = call(file, argument);
	mutex_unlock(&file->vp_lock);
	return result;
}

long sidecar_vp_ioctl(struct sidecar_file *file, unsigned int request, unsigned long argument)
{
	BUILD_BUG_ON(SIDECAR_VP_IOCTL_VP_CREATE != _IOW(0xb8, 0xf8, struct sidecar_vp_create));
	BUILD_BUG_ON(SIDECAR_VP_IOCTL_DOORBELL != _IOW(0xb8, 0xfa, struct sidecar_doorbell));
	BUILD_BUG_ON(SIDECAR_VP_IOCTL_DOORBELL_FD != _IOW(0xb8, 0xfb, struct sidecar_doorbell_fd));
	switch (request) {
	case SIDECAR_VP_IOCTL_VM_CREATE:
		return argument ? -EINVAL : sidecar_vm_create();
	case SIDECAR_VP_IOCTL_VP_CREATE:
		return locked(create, file, argument);
	case SIDECAR_VP_IOCTL_VP_DESTROY:
		return locked(destroy, file, argument);
	case SIDECAR_VP_IOCTL_DOORBELL:
		return ring(file, argument);
	case SIDECAR_VP_IOCTL_DOORBELL_FD:
		return locked(bind, file, argument);
	default:
		return -ENOTTY;
	}
}
