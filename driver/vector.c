// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The interrupt by which the CPUs of a node ask for attention: a vector of the driver's own, from
 * Linux's vector domain, on one CPU.
 *
 * That is the node's first CPU while it is online, otherwise another one. The pair of APIC id and
 * vector stands in the control page as one aligned u64, so the sidecar never sees halves of two
 * pairs. It is changed with cpu_hotplug_lock held, or before anybody else knows the node. When it
 * moves, the new interrupt is there before the old one goes; then the node is scanned, in case a
 * CPU has used the old pair in between.
 *
 * Ref: SDM vol. 3A, 11.12.9; Linux, arch/x86/kernel/apic/vector.c.
 */
#include "sidecar.h"

#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <asm/hw_irq.h>
#include <asm/irqdomain.h>
#include <asm/smp.h>

/* How long a CPU may take from reading the pair to sending by it. */
#define SETTLE_US 10000

static irqreturn_t attention(int irq, void *data)
{
	struct sidecar_node *node = data;

	WRITE_ONCE(node->interrupts, node->interrupts + 1);
	sidecar_scan(node);
	return IRQ_HANDLED;
}

static void free_vector(struct sidecar_node *node, int irq)
{
	free_irq(irq, node);
	irq_dispose_mapping(irq);
}

/* An interrupt on the CPU `on`, with its handler; or an error. */
static int allocate_vector(struct sidecar_node *node, unsigned int on)
{
	struct irq_alloc_info info = { .mask = cpumask_of(on) };
	int irq, err;

	irq = irq_domain_alloc_irqs(x86_vector_domain, 1, NUMA_NO_NODE, &info);
	if (irq < 0)
		return irq;
	irq_set_handler(irq, handle_edge_irq);
	err = request_irq(irq, attention, IRQF_NOBALANCING | IRQF_NO_THREAD, dev_name(&node->dev),
			  node);
	if (err) {
		irq_dispose_mapping(irq);
		return err;
	}
	return irq;
}

static void publish(struct sidecar_node *node, u32 apic_id, u32 vector)
{
	WRITE_ONCE(*(u64 *)&node->control->response_cpu, (u64)vector << 32 | apic_id);
	/* Pairs with the fence before the ICR write: what was asked by the old pair is scanned. */
	smp_mb();
}

/* Nobody is notified any more. In any context, and any number of times. */
void sidecar_response_silence(struct sidecar_node *node)
{
	publish(node, 0, 0);
}

/* Publishes where Linux has the interrupt now; not when the machine is about to reboot. */
void sidecar_response_follow(struct sidecar_node *node)
{
	struct irq_data *data = irq_get_irq_data(node->irq);
	unsigned int on = cpumask_first(irq_data_get_effective_affinity_mask(data));

	node->response_cpu = on;
	publish(node, cpu_physical_id(on), irqd_cfg(data)->vector);
	if (READ_ONCE(node->refusing))
		sidecar_response_silence(node);
}

/* To the CPU `to`, which is online. If that fails, Linux moves the interrupt when its CPU goes. */
void sidecar_response_move(struct sidecar_node *node, unsigned int to)
{
	int old = node->irq;
	int irq;

	if (node->response_cpu == to)
		return;
	irq = allocate_vector(node, to);
	if (irq < 0) {
		pr_err("node %u: no interrupt vector on CPU %u (error %d), it stays on CPU %u\n",
		       node->index, to, irq, node->response_cpu);
		return;
	}
	node->irq = irq;
	sidecar_response_follow(node);
	usleep_range(SETTLE_US, 2 * SETTLE_US);
	free_vector(node, old);
	sidecar_scan(node);
}

/* CPUs do not go or come meanwhile. */
int sidecar_response_set_up(struct sidecar_node *node)
{
	unsigned int on = cpu_online(node->base_cpu) ? node->base_cpu :
			  cpumask_first(cpu_online_mask);
	int irq = allocate_vector(node, on);

	if (irq < 0) {
		pr_err("node %u: no interrupt vector on CPU %u (error %d)\n", node->index, on, irq);
		return irq;
	}
	node->irq = irq;
	sidecar_response_follow(node);
	return 0;
}

void sidecar_response_tear_down(struct sidecar_node *node)
{
	sidecar_response_silence(node);
	if (!node->irq)
		return;
	usleep_range(SETTLE_US, 2 * SETTLE_US);
	free_vector(node, node->irq);
	node->irq = 0;
}
