// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * CPUs for other modules of Linux: to the rest of the driver a holder is one more open file.
 */
#include "sidecar.h"

#include <linux/err.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "holder.h"

struct sidecar_holder {
	struct sidecar_file file;
	struct sidecar_cpu *cpu;
};

struct sidecar_holder *sidecar_hold(unsigned int linux_number)
{
	struct sidecar_cpu *cpu = sidecar_find_cpu(linux_number);
	struct sidecar_holder *holder;
	int err;

	if (!cpu)
		return ERR_PTR(-EINVAL);
	holder = kzalloc(sizeof(*holder), GFP_KERNEL);
	if (!holder)
		return ERR_PTR(-ENOMEM);
	sidecar_file_init(&holder->file, cpu->node);
	holder->cpu = cpu;
	err = sidecar_claim(cpu, &holder->file);
	if (err) {
		sidecar_file_end(&holder->file);
		kfree(holder);
		return ERR_PTR(err);
	}
	return holder;
}
EXPORT_SYMBOL_GPL(sidecar_hold);

int sidecar_run_held(struct sidecar_holder *holder)
{
	return sidecar_run(holder->cpu, &holder->file);
}
EXPORT_SYMBOL_GPL(sidecar_run_held);

void sidecar_let_go(struct sidecar_holder *holder)
{
	sidecar_file_end(&holder->file);
	kfree(holder);
}
EXPORT_SYMBOL_GPL(sidecar_let_go);

struct sidecar_command_page *sidecar_held_page(const struct sidecar_holder *holder)
{
	return holder->cpu->command;
}
EXPORT_SYMBOL_GPL(sidecar_held_page);
