// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The command and register pages of claimed CPUs in user page tables.
 *
 * A page is inserted when it is first touched, if the file holds its CPU, and taken out when the
 * claim ends; map_lock makes check and insertion one step against the end of the claim. A mapping
 * of a part of the region may only be of CPUs that the file holds. The whole region may always be
 * mapped, as upstream's client does: touching a CPU's page in it claims the CPU if nobody has it.
 * What may not be touched is answered with SIGBUS.
 *
 * The pages are write-back for user space as for the sidecar: the memory type follows the
 * driver's own mapping.
 */
#include "sidecar.h"

#include <linux/mm.h>

#include "compat.h"

/* vm_private_data of a mapping of the whole region. */
static char whole;

static vm_fault_t fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct sidecar_file *file = vma->vm_file->private_data;
	unsigned long index = vmf->pgoff / SIDECAR_SHARED_PAGES;
	struct sidecar_node *node = file->node;
	vm_fault_t result = VM_FAULT_SIGBUS;
	struct sidecar_cpu *cpu;
	phys_addr_t pa;

	if (index >= node->cpu_count)
		return VM_FAULT_SIGBUS;
	cpu = &node->cpus[index];
	pa = sidecar_shared_pa(node->memory_pa, index, vmf->pgoff % SIDECAR_SHARED_PAGES);
	mutex_lock(&file->map_lock);
	if (vma->vm_private_data == &whole && !READ_ONCE(cpu->owner))
		sidecar_claim(cpu, file);
	if (READ_ONCE(cpu->owner) == file)
		result = vmf_insert_pfn(vma, vmf->address, PHYS_PFN(pa));
	mutex_unlock(&file->map_lock);
	return result;
}

/* Growing, moving to another offset and inheriting are refused by the flags. */
static const struct vm_operations_struct operations = {
	.fault = fault,
};

static bool holds_all(const struct sidecar_file *file, unsigned long first, unsigned long end)
{
	unsigned long page;

	for (page = first; page < end; page++)
		if (READ_ONCE(file->node->cpus[page / SIDECAR_SHARED_PAGES].owner) != file)
			return false;
	return true;
}

int sidecar_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct sidecar_file *file = filp->private_data;
	unsigned long all = (unsigned long)file->node->cpu_count * SIDECAR_SHARED_PAGES;
	unsigned long first = vma->vm_pgoff;
	unsigned long count = vma_pages(vma);

	if (first >= all || count > all - first)
		return -EINVAL;
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	if (count != all && !holds_all(file, first, first + count))
		return -EACCES;
	/* Nor by mprotect() later. */
	sidecar_vm_flags_clear(vma, VM_MAYEXEC);
	sidecar_vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY);
	vma->vm_private_data = count == all ? &whole : NULL;
	vma->vm_ops = &operations;
	return 0;
}

/* Takes a CPU's pages out of all mappings of the file; map_lock is held. */
void sidecar_unmap(struct sidecar_file *file, const struct sidecar_cpu *cpu)
{
	lockdep_assert_held(&file->map_lock);
	unmap_mapping_range(file->mapping, (loff_t)cpu->index * SIDECAR_SHARED_BYTES,
			    SIDECAR_SHARED_BYTES, 1);
}
