// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The driver of the sidecar kernel: loading and unloading.
 *
 * Loaded: the SDCR table is read and checked, each node's memory requested and mapped, its
 * response interrupt set up, every CPU looked at, Linux's CPU hotplug followed, and only then are
 * device files made. Unloaded: the same backwards; no CPU changes hands, and nobody is notified
 * any more. Linux refuses to unload the driver while a device file is open.
 */
#include "sidecar.h"

#include <linux/module.h>
#include <linux/slab.h>
#include <asm/apic.h>

#include "vp.h"

struct sidecar_machine sidecar;

static int set_timeout(const char *text, const struct kernel_param *param)
{
	return param_set_uint_minmax(text, param, 10, 600000);
}

static const struct kernel_param_ops timeout_ops = {
	.set = set_timeout,
	.get = param_get_uint,
};

unsigned int sidecar_timeout_ms = 5000;
module_param_cb(timeout_ms, &timeout_ops, &sidecar_timeout_ms, 0644);
MODULE_PARM_DESC(timeout_ms, "longest wait for a command or a removal, 10 to 600000 ms; then the CPU is restarted");

static int set_poll(const char *text, const struct kernel_param *param)
{
	return param_set_uint_minmax(text, param, 0, 1000);
}

static const struct kernel_param_ops poll_ops = {
	.set = set_poll,
	.get = param_get_uint,
};

unsigned int sidecar_poll_us;
module_param_cb(poll_us, &poll_ops, &sidecar_poll_us, 0644);
MODULE_PARM_DESC(poll_us, "how long RUN looks for the end of the command before it sleeps, 0 to 1000 us");

unsigned int sidecar_halt_poll_us;
module_param_cb(halt_poll_us, &poll_ops, &sidecar_halt_poll_us, 0644);
MODULE_PARM_DESC(halt_poll_us, "how long a CPU looks for its next command after one before it halts, 0 to 1000 us");

static int set_hang(const char *text, const struct kernel_param *param)
{
	return param_set_uint_minmax(text, param, 0, 600000);
}

static const struct kernel_param_ops hang_ops = {
	.set = set_hang,
	.get = param_get_uint,
};

unsigned int sidecar_hang_ms = 10000;
module_param_cb(hang_ms, &hang_ops, &sidecar_hang_ms, 0644);
MODULE_PARM_DESC(hang_ms, "a CPU that gives no sign of life in a command for so long is reported as stuck, to 600000 ms; 0: never");

bool sidecar_online = true;
module_param_named(online, sidecar_online, bool, 0444);
MODULE_PARM_DESC(online, "bring online the CPUs that the sidecar leaves to Linux");

module_param_named(io_ports, sidecar_io_ports, charp, 0444);
MODULE_PARM_DESC(io_ports, "I/O ports that guests of virtual processors use directly, such as 0x2f8-0x2ff,0x80");

static void destroy_nodes(void)
{
	while (sidecar.node_count)
		sidecar_node_destroy(sidecar.nodes[--sidecar.node_count]);
	kfree(sidecar.nodes);
	sidecar.nodes = NULL;
}

static int create_nodes(void)
{
	unsigned int count = sidecar.node_count;
	struct sidecar_node *node;
	unsigned int i;

	sidecar.node_count = 0;
	sidecar.nodes = kcalloc(count, sizeof(*sidecar.nodes), GFP_KERNEL);
	if (!sidecar.nodes)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		node = sidecar_node_create(sidecar_table_node(i), i);
		if (IS_ERR(node)) {
			destroy_nodes();
			return PTR_ERR(node);
		}
		sidecar.nodes[i] = node;
		sidecar.node_count = i + 1;
	}
	return 0;
}

static void unpublish_nodes(unsigned int count)
{
	while (count)
		sidecar_node_unpublish(sidecar.nodes[--count]);
}

static int publish_nodes(void)
{
	struct sidecar_node *node;
	unsigned int i;
	int err;

	sidecar_for_each_node(node, i) {
		err = sidecar_node_publish(node);
		if (err) {
			unpublish_nodes(i);
			return err;
		}
	}
	return 0;
}

static int __init set_up(void)
{
	int err;

	if (!x2apic_enabled()) {
		pr_err("Linux runs the APICs in xAPIC mode, in which the driver cannot interrupt the sidecar's CPUs: boot the machine with an IOMMU that remaps interrupts (QEMU: -machine q35,kernel-irqchip=split -device intel-iommu,intremap=on,eim=on) and without nox2apic or intremap=off\n");
		return -ENODEV;
	}
	err = sidecar_ports_set_up();
	if (err)
		return err;
	err = sidecar_table_read();
	if (err)
		goto tear_down_ports;
	err = create_nodes();
	if (err)
		goto forget_table;
	err = sidecar_class_register();
	if (err)
		goto destroy_nodes;
	err = sidecar_attach();
	if (err)
		goto unregister_class;
	err = sidecar_power_register();
	if (err)
		goto detach;
	err = publish_nodes();
	if (err)
		goto unregister_power;
	sidecar_background_start();
	sidecar_heartbeat_start();
	return 0;

unregister_power:
	sidecar_power_unregister();
detach:
	sidecar_detach();
unregister_class:
	sidecar_class_unregister();
destroy_nodes:
	destroy_nodes();
forget_table:
	sidecar_table_forget();
tear_down_ports:
	sidecar_ports_tear_down();
	return err;
}

static int __init load(void)
{
	int err = set_up();

	if (err == -ENOMEM)
		pr_err("not loaded: there is not enough memory\n");
	return err;
}

static void __exit unload(void)
{
	sidecar_heartbeat_stop();
	sidecar_background_stop();
	unpublish_nodes(sidecar.node_count);
	sidecar_power_unregister();
	sidecar_detach();
	sidecar_class_unregister();
	destroy_nodes();
	sidecar_table_forget();
	sidecar_ports_tear_down();
}

module_init(load);
module_exit(unload);

MODULE_DESCRIPTION("Driver of the sidecar kernel, which owns most CPUs of the machine");
MODULE_AUTHOR("The sidecar-kernel project");
MODULE_LICENSE("Dual MIT/GPL");
