// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * /sys/class/sidecar/sidecarN: the node, and a folder cpuM for each of its CPUs, M the Linux
 * number. The files are described in docs/driver.md; all are read only, and reading runs nothing.
 */
#include "sidecar.h"

#include <linux/fs.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

static dev_t first_device;

static struct class sidecar_class = {
	.name = "sidecar",
};

/* --- node ----------------------------------------------------------------------------------- */

#define NODE_ATTRIBUTE(field, format, value) \
static ssize_t field##_show(struct device *dev, struct device_attribute *attr, char *text) \
{ \
	const struct sidecar_node *node = container_of(dev, struct sidecar_node, dev); \
\
	return sysfs_emit(text, format "\n", value); \
} \
static DEVICE_ATTR_RO(field)

NODE_ATTRIBUTE(abi_version, "%u", node->control->abi_version);
NODE_ATTRIBUTE(abi_hash, "%#018llx", node->control->abi_hash);
NODE_ATTRIBUTE(base_cpu, "%u", node->base_cpu);
NODE_ATTRIBUTE(cpu_count, "%u", node->cpu_count);
NODE_ATTRIBUTE(response_cpu, "%u", READ_ONCE(node->response_cpu));
NODE_ATTRIBUTE(response_vector, "%u", READ_ONCE(node->control->response_vector));
NODE_ATTRIBUTE(interrupts, "%llu", READ_ONCE(node->interrupts));

static struct attribute *node_attrs[] = {
	&dev_attr_abi_version.attr,
	&dev_attr_abi_hash.attr,
	&dev_attr_base_cpu.attr,
	&dev_attr_cpu_count.attr,
	&dev_attr_response_cpu.attr,
	&dev_attr_response_vector.attr,
	&dev_attr_interrupts.attr,
	NULL
};
ATTRIBUTE_GROUPS(node);

/* --- CPU ------------------------------------------------------------------------------------ */

static struct sidecar_cpu *cpu_of(struct kobject *kobj)
{
	return container_of(kobj, struct sidecar_cpu, kobj);
}

#define CPU_ATTRIBUTE(field, format, value) \
static ssize_t field##_show(struct kobject *kobj, struct kobj_attribute *attr, char *text) \
{ \
	const struct sidecar_cpu *cpu = cpu_of(kobj); \
\
	return sysfs_emit(text, format "\n", value); \
} \
static struct kobj_attribute cpu_##field = __ATTR_RO(field)

CPU_ATTRIBUTE(state, "%s", sidecar_state_name(READ_ONCE(cpu->state)));
CPU_ATTRIBUTE(status, "%s", sidecar_status_name(sidecar_status(cpu)));
CPU_ATTRIBUTE(apic_id, "%u", cpu->apic_id);
CPU_ATTRIBUTE(index, "%u", cpu->index);
CPU_ATTRIBUTE(policy, "%s", cpu->linux_only ? "linux" : "sidecar");
CPU_ATTRIBUTE(claimed, "%u", !!READ_ONCE(cpu->owner));
CPU_ATTRIBUTE(vp, "%u", !!READ_ONCE(cpu->vp));
CPU_ATTRIBUTE(commands, "%llu", READ_ONCE(cpu->diagnostic->counters.commands));
CPU_ATTRIBUTE(errors, "%llu", READ_ONCE(cpu->diagnostic->counters.errors));
CPU_ATTRIBUTE(requests, "%llu", READ_ONCE(cpu->diagnostic->counters.requests));
CPU_ATTRIBUTE(faults, "%llu", READ_ONCE(cpu->diagnostic->fault.count));
CPU_ATTRIBUTE(arrivals, "%llu", READ_ONCE(cpu->diagnostic->boot.arrivals));
CPU_ATTRIBUTE(restarts, "%llu", READ_ONCE(cpu->privileged->restart_count));
CPU_ATTRIBUTE(conversions, "%llu", READ_ONCE(cpu->conversions));
CPU_ATTRIBUTE(timeouts, "%llu", READ_ONCE(cpu->timeouts));
CPU_ATTRIBUTE(stuck_ms, "%llu", sidecar_stuck_ms(cpu));

static ssize_t stray_show(struct kobject *kobj, struct kobj_attribute *attr, char *text)
{
	const struct sidecar_counters *counters = &cpu_of(kobj)->diagnostic->counters;
	u64 sum = READ_ONCE(counters->spurious);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(counters->stray); i++)
		sum += READ_ONCE(counters->stray[i]);
	return sysfs_emit(text, "%llu\n", sum);
}

static struct kobj_attribute cpu_stray = __ATTR_RO(stray);

static ssize_t last_fault_show(struct kobject *kobj, struct kobj_attribute *attr, char *text)
{
	const struct sidecar_fault_record *record = &cpu_of(kobj)->diagnostic->fault;
	int length;

	if (!READ_ONCE(record->count))
		return sysfs_emit(text, "none\n");
	length = sidecar_format_fault(record, text, PAGE_SIZE - 1);
	text[length] = '\n';
	return length + 1;
}

static struct kobj_attribute cpu_last_fault = __ATTR_RO(last_fault);

static struct attribute *cpu_attrs[] = {
	&cpu_state.attr,
	&cpu_status.attr,
	&cpu_apic_id.attr,
	&cpu_index.attr,
	&cpu_policy.attr,
	&cpu_claimed.attr,
	&cpu_vp.attr,
	&cpu_commands.attr,
	&cpu_errors.attr,
	&cpu_requests.attr,
	&cpu_faults.attr,
	&cpu_stray.attr,
	&cpu_arrivals.attr,
	&cpu_restarts.attr,
	&cpu_conversions.attr,
	&cpu_timeouts.attr,
	&cpu_stuck_ms.attr,
	&cpu_last_fault.attr,
	NULL
};

static ssize_t diagnostic_read(struct file *file, struct kobject *kobj, struct bin_attribute *attr,
			       char *to, loff_t offset, size_t count)
{
	return memory_read_from_buffer(to, count, &offset, cpu_of(kobj)->diagnostic,
				       SIDECAR_PAGE_SIZE);
}

static ssize_t log_read(struct file *file, struct kobject *kobj, struct bin_attribute *attr,
			char *to, loff_t offset, size_t count)
{
	return memory_read_from_buffer(to, count, &offset, cpu_of(kobj)->log, SIDECAR_PAGE_SIZE);
}

static BIN_ATTR(diagnostic, 0400, diagnostic_read, NULL, SIDECAR_PAGE_SIZE);
static BIN_ATTR(log, 0400, log_read, NULL, SIDECAR_PAGE_SIZE);

static struct bin_attribute *cpu_bin_attrs[] = {
	&bin_attr_diagnostic,
	&bin_attr_log,
	NULL
};

static const struct attribute_group cpu_group = {
	.attrs = cpu_attrs,
	.bin_attrs = cpu_bin_attrs,
};

__ATTRIBUTE_GROUPS(cpu);

static void release_cpu(struct kobject *kobj)
{
	complete(&cpu_of(kobj)->released);
}

static const struct kobj_type cpu_type = {
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = cpu_groups,
	.release = release_cpu,
};

static void remove_cpu_folder(struct sidecar_cpu *cpu)
{
	kobject_put(&cpu->kobj);
	wait_for_completion(&cpu->released);
}

static int add_cpu_folders(struct sidecar_node *node)
{
	struct sidecar_cpu *cpu;
	int err;

	sidecar_for_each_cpu(cpu, node) {
		err = kobject_init_and_add(&cpu->kobj, &cpu_type, &node->dev.kobj, "cpu%u",
					   cpu->number);
		if (err) {
			do
				remove_cpu_folder(cpu);
			while (cpu-- > node->cpus);
			return err;
		}
	}
	return 0;
}

/* --- both ----------------------------------------------------------------------------------- */

/* Makes the node's device file and folder; the node is in use from here on. */
int sidecar_node_publish(struct sidecar_node *node)
{
	int err;

	node->dev.class = &sidecar_class;
	node->dev.groups = node_groups;
	node->dev.devt = first_device + node->index;
	cdev_init(&node->cdev, &sidecar_file_operations);
	node->cdev.owner = THIS_MODULE;
	err = cdev_device_add(&node->cdev, &node->dev);
	if (err)
		return err;
	err = add_cpu_folders(node);
	if (err)
		cdev_device_del(&node->cdev, &node->dev);
	return err;
}

/* No file of the node is open. */
void sidecar_node_unpublish(struct sidecar_node *node)
{
	struct sidecar_cpu *cpu;

	sidecar_for_each_cpu(cpu, node)
		remove_cpu_folder(cpu);
	cdev_device_del(&node->cdev, &node->dev);
}

int sidecar_class_register(void)
{
	int err = alloc_chrdev_region(&first_device, 0, SIDECAR_MAX_NODES, "sidecar");

	if (err)
		return err;
	err = class_register(&sidecar_class);
	if (err)
		unregister_chrdev_region(first_device, SIDECAR_MAX_NODES);
	return err;
}

void sidecar_class_unregister(void)
{
	class_unregister(&sidecar_class);
	unregister_chrdev_region(first_device, SIDECAR_MAX_NODES);
}
