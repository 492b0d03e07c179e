// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A node: its memory requested, so that nobody else uses it, and mapped write-back; its control
 * page checked against the table; its CPUs by index.
 *
 * /proc/iomem shows the memory as "sidecarN"; /dev/mem gives out none of it from then on.
 */
#include "sidecar.h"

#include <linux/cpumask.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/slab.h>

#include "vp.h"

static int check_control_page(const struct sidecar_node *node)
{
	const struct sidecar_control_page *control = node->control;

	if (control->abi_version != SIDECAR_ABI_VERSION || control->abi_hash != SIDECAR_ABI_HASH) {
		pr_err("node %u: its control page has ABI version %u, hash %#llx; this driver has version %u, hash %#llx\n",
		       node->index, control->abi_version, control->abi_hash, SIDECAR_ABI_VERSION,
		       SIDECAR_ABI_HASH);
		return -EPROTO;
	}
	if (control->index != node->index || control->base_cpu != node->base_cpu ||
	    control->cpu_count != node->cpu_count ||
	    control->request_vector != SIDECAR_REQUEST_VECTOR) {
		pr_err("node %u: its control page is of node %u with CPUs %u to %u and request vector %#x; expected CPUs %u to %u and vector %#x\n",
		       node->index, control->index, control->base_cpu,
		       control->base_cpu + control->cpu_count - 1, control->request_vector,
		       node->base_cpu, node->base_cpu + node->cpu_count - 1,
		       SIDECAR_REQUEST_VECTOR);
		return -EPROTO;
	}
	return 0;
}

static void *shared_page(const struct sidecar_node *node, unsigned int index,
			 enum sidecar_shared_page page)
{
	return (void *)node->control + sidecar_shared_pa(0, index, page);
}

static void *private_page(const struct sidecar_node *node, unsigned int index,
			  enum sidecar_private_page page)
{
	return (void *)node->control + sidecar_private_pa(0, node->cpu_count, index, page);
}

static void set_up_cpu(struct sidecar_node *node, unsigned int index)
{
	struct sidecar_cpu *cpu = &node->cpus[index];
	const struct sidecar_cpu_map_entry *entry = &sidecar.cpu_map[node->base_cpu + index];

	cpu->node = node;
	cpu->number = node->base_cpu + index;
	cpu->index = index;
	cpu->apic_id = entry->apic_id;
	cpu->linux_only = index == 0 || entry->policy != SIDECAR_CPU_POLICY_SIDECAR;
	cpu->status = &node->control->cpu_status[index];
	cpu->command = shared_page(node, index, SIDECAR_SHARED_PAGE_COMMAND);
	cpu->registers = shared_page(node, index, SIDECAR_SHARED_PAGE_REGISTER);
	cpu->privileged = private_page(node, index, SIDECAR_PRIVATE_PAGE_PRIVILEGED);
	cpu->diagnostic = private_page(node, index, SIDECAR_PRIVATE_PAGE_DIAGNOSTIC);
	cpu->log = private_page(node, index, SIDECAR_PRIVATE_PAGE_LOG);
	cpu->state = cpu->linux_only ? SIDECAR_REMOVED : SIDECAR_STARTING;
	if (sidecar_status(cpu) != SIDECAR_CPU_STATUS_FAULTED)
		cpu->faults_told = cpu->diagnostic->fault.count;
	INIT_LIST_HEAD(&cpu->finished);
	init_waitqueue_head(&cpu->wait);
	init_completion(&cpu->released);
}

static int map_memory(struct sidecar_node *node)
{
	phys_addr_t end = node->memory_pa + node->memory_bytes - 1;

	node->region = request_mem_region(node->memory_pa, node->memory_bytes,
					  dev_name(&node->dev));
	if (!node->region) {
		pr_err("node %u: its memory at %pa to %pa belongs to another driver\n", node->index,
		       &node->memory_pa, &end);
		return -EBUSY;
	}
	node->control = memremap(node->memory_pa, node->memory_bytes, MEMREMAP_WB);
	if (!node->control) {
		pr_err("node %u: its memory at %pa to %pa cannot be mapped write-back\n",
		       node->index, &node->memory_pa, &end);
		return -ENOMEM;
	}
	return 0;
}

static void release_node(struct device *dev)
{
	struct sidecar_node *node = container_of(dev, struct sidecar_node, dev);

	kfree(node->cpus);
	kfree(node);
}

/* A node as the table has it, known to nobody yet. */
struct sidecar_node *sidecar_node_create(const struct sidecar_sdcr_node *entry, unsigned int index)
{
	struct sidecar_node *node = kzalloc(sizeof(*node), GFP_KERNEL);
	unsigned int i;
	int err;

	if (!node)
		return ERR_PTR(-ENOMEM);
	device_initialize(&node->dev);
	node->dev.release = release_node;
	node->index = index;
	node->base_cpu = entry->base_cpu;
	node->cpu_count = entry->cpu_count;
	node->request_vector = SIDECAR_REQUEST_VECTOR;
	node->memory_pa = entry->control_pa;
	node->memory_bytes = entry->memory_bytes;
	spin_lock_init(&node->lock);
	err = dev_set_name(&node->dev, "sidecar%u", index);
	if (err)
		goto fail;
	node->cpus = kcalloc(node->cpu_count, sizeof(*node->cpus), GFP_KERNEL);
	if (!node->cpus) {
		err = -ENOMEM;
		goto fail;
	}
	err = map_memory(node);
	if (err)
		goto fail;
	err = check_control_page(node);
	if (err)
		goto fail;
	for (i = 0; i < node->cpu_count; i++)
		set_up_cpu(node, i);
	return node;
fail:
	sidecar_node_destroy(node);
	return ERR_PTR(err);
}

/* Nobody uses the node any more. */
void sidecar_node_destroy(struct sidecar_node *node)
{
	unsigned int i;

	for (i = 0; node->cpus && i < node->cpu_count; i++)
		sidecar_vp_forsake(&node->cpus[i]);
	if (node->control)
		memunmap(node->control);
	if (node->region)
		release_mem_region(node->memory_pa, node->memory_bytes);
	put_device(&node->dev);
}
