/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * For other modules of Linux: a CPU of the sidecar, held as an open file of /dev/sidecarN holds it.
 *
 *	holder = sidecar_hold(5);		ERR_PTR as CLAIM, see docs/driver.md
 *	err = sidecar_run_held(holder);		as RUN: the command in the command page, to its end
 *	sidecar_let_go(holder);			the claim ends
 *
 * All three may sleep. One thread at a time uses a holder.
 */
#ifndef SIDECAR_HOLDER_H
#define SIDECAR_HOLDER_H

struct sidecar_command_page;
struct sidecar_holder;

struct sidecar_holder *sidecar_hold(unsigned int linux_number);
int sidecar_run_held(struct sidecar_holder *holder);
void sidecar_let_go(struct sidecar_holder *holder);

/* The CPU's command page, the holder's while no command runs. */
struct sidecar_command_page *sidecar_held_page(const struct sidecar_holder *holder);

#endif /* SIDECAR_HOLDER_H */
