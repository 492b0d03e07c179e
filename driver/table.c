// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The SDCR table: read once when the driver is loaded, checked in full, and kept as a copy.
 *
 * The ACPI core has checked the table's checksum. What is refused here is refused with a sentence:
 * another revision or ABI, a table that contradicts itself, and CPU numbers that are not Linux's.
 *
 * Ref: ACPI 6.5, 5.2.6; layout/acpi.py.
 */
#include "sidecar.h"

#include <linux/acpi.h>
#include <linux/cpumask.h>
#include <linux/slab.h>
#include <asm/smp.h>

#define SDCR_SIGNATURE "SDCR"
#define SDCR_REVISION 1
#define SIPI_REACH 0x100000

static const struct sidecar_sdcr *table;

static int check_abi(void)
{
	if (table->abi_version != SIDECAR_ABI_VERSION || table->abi_hash != SIDECAR_ABI_HASH) {
		pr_err("the SDCR table has ABI version %u, hash %#llx; this driver has version %u, hash %#llx: build both from one source\n",
		       table->abi_version, table->abi_hash, SIDECAR_ABI_VERSION, SIDECAR_ABI_HASH);
		return -EPROTO;
	}
	return 0;
}

static bool fits(const char *what, u32 offset, u32 count, size_t entry, u32 limit, u32 length)
{
	u64 end = offset + (u64)count * entry;

	if (count >= 1 && count <= limit && offset >= sizeof(*table) && end <= length)
		return true;
	pr_err("the SDCR table has %u %s entries at %#x to %#llx, expected 1 to %u of them between %#zx and %#x\n",
	       count, what, offset, end, limit, sizeof(*table), length);
	return false;
}

const struct sidecar_sdcr_node *sidecar_table_node(unsigned int index)
{
	return (const void *)table + table->node_offset + index * sizeof(struct sidecar_sdcr_node);
}

/* Does the node lie where the formulas of the ABI put its parts, and are its CPUs in the map? */
static int check_node(unsigned int index)
{
	const struct sidecar_sdcr_node *node = sidecar_table_node(index);
	u32 count = node->cpu_count;
	u32 i;

	if (count < 1 || count > SIDECAR_MAX_CPUS ||
	    (u64)node->base_cpu + count > table->cpu_count) {
		pr_err("node %u has CPUs %u to %llu, expected at most %u\n", index, node->base_cpu,
		       (u64)node->base_cpu + count - 1, table->cpu_count - 1);
		return -EINVAL;
	}
	if (node->control_pa % SIDECAR_PAGE_SIZE ||
	    node->shared_pa != sidecar_shared_pa(node->control_pa, 0,
						 SIDECAR_SHARED_PAGE_COMMAND) ||
	    node->private_pa != sidecar_private_pa(node->control_pa, count, 0,
						   SIDECAR_PRIVATE_PAGE_PML4) ||
	    node->memory_bytes < sidecar_required_memory(count)) {
		pr_err("node %u: control page at %#llx, shared pages at %#llx, private pages at %#llx, %#llx bytes do not belong together\n",
		       index, node->control_pa, node->shared_pa, node->private_pa,
		       node->memory_bytes);
		return -EINVAL;
	}
	for (i = node->base_cpu; i < node->base_cpu + count; i++) {
		if (sidecar.cpu_map[i].node != index) {
			pr_err("CPU %u is of node %u in the CPU map, expected node %u\n", i,
			       sidecar.cpu_map[i].node, index);
			return -EINVAL;
		}
	}
	return 0;
}

/* Is the CPU that Linux calls `number` the one that the sidecar calls so? */
static int check_cpu(unsigned int number)
{
	const struct sidecar_cpu_map_entry *entry = &sidecar.cpu_map[number];

	if (entry->linux_number != number) {
		pr_err("entry %u of the CPU map is of CPU %u\n", number, entry->linux_number);
		return -EINVAL;
	}
	if (number >= nr_cpu_ids || !cpu_possible(number)) {
		if (entry->node == SIDECAR_NO_NODE)
			return 0;
		pr_err("CPU %u (APIC id %#x, node %u) is not known to Linux, which has %u CPUs: boot it without nr_cpus= and possible_cpus=\n",
		       number, entry->apic_id, entry->node, nr_cpu_ids);
		return -ENODEV;
	}
	if (cpu_physical_id(number) != entry->apic_id) {
		pr_err("CPU %u has APIC id %#x in Linux and %#x in the sidecar's CPU map: Linux numbers the CPUs differently\n",
		       number, (u32)cpu_physical_id(number), entry->apic_id);
		return -ENODEV;
	}
	return 0;
}

static int check_table(void)
{
	u32 length = table->header[4] | table->header[5] << 8 | table->header[6] << 16 |
		     (u32)table->header[7] << 24;
	unsigned int i;
	int err;

	if (length < sizeof(*table)) {
		pr_err("the SDCR table has %#x bytes, expected at least %#zx\n", length,
		       sizeof(*table));
		return -EINVAL;
	}
	if (table->header[8] != SDCR_REVISION) {
		pr_err("the SDCR table has revision %u, expected %u\n", table->header[8],
		       SDCR_REVISION);
		return -EPROTO;
	}
	err = check_abi();
	if (err)
		return err;
	if (!fits("node", table->node_offset, table->node_count, sizeof(struct sidecar_sdcr_node),
		  SIDECAR_MAX_NODES, length) ||
	    !fits("CPU", table->cpu_offset, table->cpu_count, sizeof(struct sidecar_cpu_map_entry),
		  SIDECAR_MAX_CPUS, length))
		return -EINVAL;
	if (table->trampoline_pa % SIDECAR_PAGE_SIZE || table->trampoline_pa >= SIPI_REACH) {
		pr_err("the trampoline page is at %#llx, where no SIPI reaches\n",
		       table->trampoline_pa);
		return -EINVAL;
	}
	sidecar.trampoline_pa = table->trampoline_pa;
	sidecar.node_count = table->node_count;
	sidecar.cpu_count = table->cpu_count;
	sidecar.cpu_map = kmemdup((const void *)table + table->cpu_offset,
				  table->cpu_count * sizeof(*sidecar.cpu_map), GFP_KERNEL);
	if (!sidecar.cpu_map)
		return -ENOMEM;
	for (i = 0; i < table->node_count && !err; i++)
		err = check_node(i);
	for (i = 0; i < table->cpu_count && !err; i++)
		err = check_cpu(i);
	return err;
}

/* Fills `sidecar` from the table. On success the table stays mapped until it is forgotten. */
int sidecar_table_read(void)
{
	struct acpi_table_header *header;
	acpi_status status;
	int err;

	status = acpi_get_table(SDCR_SIGNATURE, 0, &header);
	if (status == AE_NO_MEMORY)
		return -ENOMEM;
	if (ACPI_FAILURE(status)) {
		pr_info("there is no SDCR table: this machine was booted without the sidecar\n");
		return -ENODEV;
	}
	table = (const void *)header;
	err = check_table();
	if (err)
		sidecar_table_forget();
	return err;
}

void sidecar_table_forget(void)
{
	kfree(sidecar.cpu_map);
	sidecar.cpu_map = NULL;
	acpi_put_table((struct acpi_table_header *)table);
	table = NULL;
}
