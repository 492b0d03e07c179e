// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A guest's memory: the file descriptor of VM_CREATE, MAP and UNMAP. docs/driver.md has the rules.
 *
 * Memory of the caller is pinned for as long as a range maps it. An UNMAP hides the range, has
 * every CPU take note (generation.c), and only then unpins. What not every CPU has acknowledged is
 * held: pinned, until a later call finds that all have, or the last virtual processor is gone.
 *
 * The file may be closed before or after the virtual processors end: what closing unmaps is the
 * same, and the tables live as long as any of them.
 */
#include "sidecar.h"

#include <linux/anon_inodes.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/interval_tree.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vp.h"

#define GUEST_END (1ULL << SIDECAR_GUEST_ADDRESS_BITS)
#define ALL_RIGHTS (SIDECAR_GUEST_RIGHTS_READ | SIDECAR_GUEST_RIGHTS_WRITE | \
		    SIDECAR_GUEST_RIGHTS_EXECUTE)

static bool is_range(u64 gpa, u64 size)
{
	return size && PAGE_ALIGNED(gpa) && PAGE_ALIGNED(size) && gpa < GUEST_END &&
	       size <= GUEST_END - gpa;
}

/* --- ranges ----------------------------------------------------------------------------------- */

/* The range is gone; no CPU uses its pages, of which some may never have been entered. */
static void release(struct sidecar_vm *vm, struct sidecar_range *range)
{
	sidecar_npt_take(vm->root, range->gpa, range->size, range->writable);
	atomic64_sub(PHYS_PFN(range->size), &vm->mm->pinned_vm);
	interval_tree_remove(&range->pages, &vm->ranges);
	kfree(range);
}

/* The first range that has a page from `first` to `last`, or NULL. */
static struct sidecar_range *find(struct sidecar_vm *vm, unsigned long first, unsigned long last)
{
	struct interval_tree_node *found = interval_tree_iter_first(&vm->ranges, first, last);

	return found ? container_of(found, struct sidecar_range, pages) : NULL;
}

static struct sidecar_range *after(struct sidecar_range *range)
{
	struct interval_tree_node *found = interval_tree_iter_next(&range->pages, 0, ULONG_MAX);

	return found ? container_of(found, struct sidecar_range, pages) : NULL;
}

static void release_held(struct sidecar_vm *vm)
{
	struct sidecar_range *range, *next;

	for (range = find(vm, 0, ULONG_MAX); range; range = next) {
		next = after(range);
		if (range->held)
			release(vm, range);
	}
	vm->held = 0;
}

/* Releases what was held, if all CPUs have taken note since. */
static void settle(struct sidecar_vm *vm)
{
	if (vm->held && sidecar_vm_settled(vm))
		release_held(vm);
}

static void hold(struct sidecar_vm *vm, struct sidecar_range *range)
{
	range->held = true;
	vm->held++;
}

/* --- MAP and UNMAP -------------------------------------------------------------------------- */

static int add(struct sidecar_vm *vm, struct sidecar_range *range, u64 address, u32 rights)
{
	int err = find(vm, range->pages.start, range->pages.last) ? -EEXIST :
		  sidecar_pin_account(vm, PHYS_PFN(range->size));

	if (err) {
		kfree(range);
		return err;
	}
	interval_tree_insert(&range->pages, &vm->ranges);
	err = sidecar_pin_range(vm, range, address, rights);
	if (err)
		release(vm, range);
	else
		sidecar_npt_show(vm->root, range->gpa, range->size);
	return err;
}

static int map(struct sidecar_vm *vm, const void __user *from)
{
	struct sidecar_memory_map wanted;
	struct sidecar_range *range;
	int err;

	if (copy_from_user(&wanted, from, sizeof(wanted)))
		return -EFAULT;
	if (!is_range(wanted.gpa, wanted.size) || !PAGE_ALIGNED(wanted.user_address) ||
	    !(wanted.rights & SIDECAR_GUEST_RIGHTS_READ) || wanted.rights & ~ALL_RIGHTS ||
	    wanted.reserved_1c)
		return -EINVAL;
	if (!access_ok(u64_to_user_ptr(wanted.user_address), wanted.size))
		return -EFAULT;
	range = kzalloc(sizeof(*range), GFP_KERNEL_ACCOUNT);
	if (!range)
		return -ENOMEM;
	range->gpa = wanted.gpa;
	range->size = wanted.size;
	range->pages.start = PHYS_PFN(wanted.gpa);
	range->pages.last = PHYS_PFN(wanted.gpa + wanted.size) - 1;
	range->writable = wanted.rights & SIDECAR_GUEST_RIGHTS_WRITE;
	if (mutex_lock_killable(&vm->lock)) {
		kfree(range);
		return -EINTR;
	}
	settle(vm);
	err = add(vm, range, wanted.user_address, wanted.rights);
	mutex_unlock(&vm->lock);
	return err;
}

static int remove(struct sidecar_vm *vm, struct sidecar_range *range)
{
	sidecar_npt_hide(vm->root, range->gpa, range->size);
	if (!sidecar_vm_flush(vm)) {
		pr_err("%llu pages at guest address %#llx stay pinned until every CPU has taken note that they are unmapped\n",
		       range->size >> PAGE_SHIFT, range->gpa);
		hold(vm, range);
		return -ETIMEDOUT;
	}
	release(vm, range);
	return 0;
}

static int unmap(struct sidecar_vm *vm, const void __user *from)
{
	struct sidecar_memory_unmap wanted;
	struct sidecar_range *range;
	int err;

	if (copy_from_user(&wanted, from, sizeof(wanted)))
		return -EFAULT;
	if (!is_range(wanted.gpa, wanted.size))
		return -EINVAL;
	if (mutex_lock_killable(&vm->lock))
		return -EINTR;
	settle(vm);
	range = find(vm, PHYS_PFN(wanted.gpa), PHYS_PFN(wanted.gpa));
	if (range && range->gpa == wanted.gpa && range->size == wanted.size && !range->held)
		err = remove(vm, range);
	else
		err = -ENOENT;
	mutex_unlock(&vm->lock);
	return err;
}

static long ioctl(struct file *filp, unsigned int request, unsigned long argument)
{
	struct sidecar_vm *vm = filp->private_data;
	const void __user *from = (const void __user *)argument;

	BUILD_BUG_ON(SIDECAR_VM_IOCTL_MAP != _IOW(0xb8, 0xfc, struct sidecar_memory_map));
	BUILD_BUG_ON(SIDECAR_VM_IOCTL_UNMAP != _IOW(0xb8, 0xfd, struct sidecar_memory_unmap));
	if (request != SIDECAR_VM_IOCTL_MAP && request != SIDECAR_VM_IOCTL_UNMAP)
		return -ENOTTY;
	if (vm->mm != current->mm)
		return -EPERM;
	return request == SIDECAR_VM_IOCTL_MAP ? map(vm, from) : unmap(vm, from);
}

/* --- the object ----------------------------------------------------------------------------- */

/* No CPU has the tables any more. */
static void destroy(struct kref *references)
{
	struct sidecar_vm *vm = container_of(references, struct sidecar_vm, references);
	struct sidecar_range *range;

	while ((range = find(vm, 0, ULONG_MAX)))
		release(vm, range);
	sidecar_npt_destroy(vm->root);
	mmdrop(vm->mm);
	mutex_destroy(&vm->lock);
	kfree(vm);
}

void sidecar_vm_put(struct sidecar_vm *vm)
{
	kref_put(&vm->references, destroy);
}

/* All at once. */
static void unmap_all(struct sidecar_vm *vm)
{
	struct sidecar_range *range;
	u64 pages = 0;

	for (range = find(vm, 0, ULONG_MAX); range; range = after(range)) {
		sidecar_npt_hide(vm->root, range->gpa, range->size);
		if (!range->held)
			hold(vm, range);
		pages += PHYS_PFN(range->size);
	}
	if (!pages)
		return;
	if (sidecar_vm_flush(vm))
		release_held(vm);
	else
		pr_err("%llu pages of a closed guest memory stay pinned until every CPU has taken note\n",
		       pages);
}

static int close(struct inode *inode, struct file *filp)
{
	struct sidecar_vm *vm = filp->private_data;

	mutex_lock(&vm->lock);
	unmap_all(vm);
	mutex_unlock(&vm->lock);
	sidecar_vm_put(vm);
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.release = close,
	.unlocked_ioctl = ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* VM_CREATE: a file descriptor. */
int sidecar_vm_create(void)
{
	struct sidecar_vm *vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	int fd;

	if (!vm)
		return -ENOMEM;
	vm->root = sidecar_npt_create();
	if (!vm->root) {
		kfree(vm);
		return -ENOMEM;
	}
	kref_init(&vm->references);
	mutex_init(&vm->lock);
	vm->ranges = RB_ROOT_CACHED;
	vm->mm = current->mm;
	mmgrab(vm->mm);
	fd = anon_inode_getfd("[sidecar-vm]", &operations, vm, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		sidecar_vm_put(vm);
	return fd;
}

/* The object behind a file descriptor of this process, with a reference; or an error. */
struct sidecar_vm *sidecar_vm_get(int fd)
{
	struct file *file = fget(fd);
	struct sidecar_vm *vm;

	if (!file)
		return ERR_PTR(-EBADF);
	vm = file->private_data;
	if (file->f_op != &operations)
		vm = ERR_PTR(-EINVAL);
	else if (vm->mm != current->mm)
		vm = ERR_PTR(-EPERM);
	else
		kref_get(&vm->references);
	fput(file);
	return vm;
}
