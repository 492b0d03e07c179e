/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The driver's own structures, its private states, and its locking.
 *
 * Private states of a CPU, of which the sidecar knows nothing; docs/driver.md draws them:
 *
 *   AVAIL     nothing runs                STARTING  being restarted, returned, or looked at
 *   SYNC      somebody waits right here   ASYNC     runs; read() will tell of its end
 *   STOPPING  ASYNC, cancelled            STOPPED   ended, not yet told
 *   REMOVED   Linux's                     LOST      did not come back after INIT and STARTUP
 *
 * SYNC and STARTING belong to one thread, which alone moves the CPU out of them. A CPU becomes
 * SYNC or ASYNC in the same critical section in which RUN is stored in the control page, so that
 * no scan can take the IDLE from before a start for its end.
 *
 * Locks, in the order in which they are taken:
 *
 *   cpu_hotplug_lock   held by Linux around the callbacks in hotplug.c, for reading by attach.c;
 *                      protects which CPU takes a node's response interrupt (vector.c)
 *   file->vp_lock, vm->lock    mutexes: virtual processors and their memory, see vp.h
 *   file->read_lock    mutex: a number that is read is told to one reader
 *   mmap_lock          held by Linux around mmap and page faults
 *   file->map_lock     mutex: a CPU's pages are inserted into user page tables, or taken out,
 *                      together with the check, or the end, of the claim
 *   node->lock         spinlock, interrupts off: state, owner and finished list of every CPU of
 *                      the node, the finished lists of its files, wanted, returned (also written
 *                      by who holds SYNC), last_command, faults_told, beat, refusing
 *
 * The interrupt handler (vector.c) takes node->lock alone: it exchanges needs_attention with 0,
 * marks ended ASYNC runs STOPPED, and wakes whoever waits for a CPU or reads a file. Under
 * node->lock and in the handler nobody sleeps; under all others one may.
 *
 * While the driver waits for a CPU it holds cpu_hotplug_lock in the callbacks of Linux and while it
 * is loaded, file->vp_lock in VP_DESTROY, vm->lock in UNMAP and when the guest memory's file is
 * closed, and else no lock. A thread that has made a CPU SYNC or STARTING takes none of these three
 * before it has let go of the CPU.
 */
#ifndef SIDECAR_H
#define SIDECAR_H

#define pr_fmt(fmt) "sidecar: " fmt

#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/cdev.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/kobject.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>

#include "sidecar_abi.h"

#define SIDECAR_SHARED_BYTES (SIDECAR_SHARED_PAGES * SIDECAR_PAGE_SIZE)

enum sidecar_state {
	SIDECAR_AVAIL,
	SIDECAR_SYNC,
	SIDECAR_STARTING,
	SIDECAR_ASYNC,
	SIDECAR_STOPPING,
	SIDECAR_STOPPED,
	SIDECAR_REMOVED,
	SIDECAR_LOST,
};

struct sidecar_node;

/* What the heartbeat saw last; see heartbeat.c. */
struct sidecar_beat {
	u64 requests;
	u64 events;
	ktime_t since;
	bool stuck;
};

/* One open of /dev/sidecarN, or one holder (holder.c): what is claimed by it is claimed by nobody
 * else. `mapping` is NULL for a holder, whose claim ends with it.
 */
struct sidecar_file {
	struct sidecar_node *node;
	struct address_space *mapping;
	struct mutex map_lock;
	struct mutex read_lock;
	struct mutex vp_lock;
	wait_queue_head_t wait;
	struct list_head finished;
};

struct sidecar_vp;

/* One CPU of a node. Only the fields from `state` to `vp` ever change. */
struct sidecar_cpu {
	struct sidecar_node *node;
	unsigned int number;
	unsigned int index;
	u32 apic_id;
	/* The first CPU of a node, or one that policy leaves to Linux: never the sidecar's. */
	bool linux_only;
	/* STARTING since the driver was loaded: background.c restarts it. */
	bool left_behind;

	u8 *status;
	struct sidecar_command_page *command;
	void *registers;
	struct sidecar_privileged_page *privileged;
	struct sidecar_diagnostic_page *diagnostic;
	struct sidecar_log_ring *log;

	enum sidecar_state state;
	struct sidecar_file *owner;
	struct list_head finished;
	/* Linux waits for the CPU: no command is begun. */
	bool wanted;
	/* Linux has had it since; its holder, whose pages were cleared, has not been told. */
	bool returned;
	u32 last_command;
	u64 faults_told;
	struct sidecar_beat beat;
	/* Its virtual processor, or NULL: see vp.h. */
	struct sidecar_vp *vp;

	/* Written by who holds SYNC or STARTING. */
	u64 conversions;
	u64 timeouts;

	/* Woken when the status or the state has changed. */
	wait_queue_head_t wait;
	struct kobject kobj;
	struct completion released;
};

/* One node: its pages, its CPUs, its device file. */
struct sidecar_node {
	unsigned int index;
	unsigned int base_cpu;
	unsigned int cpu_count;
	u32 request_vector;
	phys_addr_t memory_pa;
	size_t memory_bytes;
	struct resource *region;
	struct sidecar_control_page *control;

	/* See sidecar_response_move(). */
	int irq;
	unsigned int response_cpu;

	spinlock_t lock;
	bool refusing;
	struct sidecar_cpu *cpus;
	struct device dev;
	struct cdev cdev;
	u64 interrupts;
};

/* The machine; written while the driver is loaded and unloaded, otherwise only read. */
struct sidecar_machine {
	phys_addr_t trampoline_pa;
	unsigned int cpu_count;
	struct sidecar_cpu_map_entry *cpu_map;
	unsigned int node_count;
	struct sidecar_node **nodes;
	/* No CPU is restarted any more: the driver is being unloaded, or the machine reboots. */
	bool stopping;
};

extern struct sidecar_machine sidecar;
extern unsigned int sidecar_timeout_ms;
extern unsigned int sidecar_poll_us;
extern unsigned int sidecar_halt_poll_us;
extern unsigned int sidecar_hang_ms;
extern bool sidecar_online;

#define sidecar_for_each_node(node, i) \
	for ((i) = 0; (i) < sidecar.node_count && ((node) = sidecar.nodes[i], true); (i)++)

#define sidecar_for_each_cpu(cpu, node) \
	for ((cpu) = (node)->cpus; (cpu) < (node)->cpus + (node)->cpu_count; (cpu)++)

#define SIDECAR_CPU_FMT "CPU %u (APIC id %#x, node %u, index %u)"
#define SIDECAR_CPU_ARGS(cpu) \
	(cpu)->number, (cpu)->apic_id, (cpu)->node->index, (cpu)->index

#define sidecar_cpu_err(cpu, fmt, ...) \
	pr_err(SIDECAR_CPU_FMT ": " fmt "\n", SIDECAR_CPU_ARGS(cpu), ##__VA_ARGS__)
#define sidecar_cpu_info(cpu, fmt, ...) \
	pr_info(SIDECAR_CPU_FMT ": " fmt "\n", SIDECAR_CPU_ARGS(cpu), ##__VA_ARGS__)

/* table.c */
int sidecar_table_read(void);
void sidecar_table_forget(void);
const struct sidecar_sdcr_node *sidecar_table_node(unsigned int index);

/* node.c */
struct sidecar_node *sidecar_node_create(const struct sidecar_sdcr_node *entry,
					 unsigned int index);
void sidecar_node_destroy(struct sidecar_node *node);

/* cpu.c */
/* Whatever the CPU has stored before it stored this status is visible afterwards. */
static inline u8 sidecar_status(const struct sidecar_cpu *cpu)
{
	return smp_load_acquire(cpu->status);
}

static inline bool sidecar_in_command(const struct sidecar_cpu *cpu)
{
	u8 status = sidecar_status(cpu);

	return status == SIDECAR_CPU_STATUS_RUN || status == SIDECAR_CPU_STATUS_STOP;
}

/* The one place where the status byte is changed: by compare-exchange, and only as the ABI's table
 * allows. Returns the status found: the move was made if it is `old`. A full barrier either way.
 * sync_: of other locked operations a Linux that has but one CPU online takes the lock prefix away.
 */
static inline u8 sidecar_move(struct sidecar_cpu *cpu, enum sidecar_cpu_status old,
			      enum sidecar_cpu_status new)
{
	if (WARN_ONCE(!sidecar_cpu_transition_allowed(old, new, SIDECAR_PARTY_DRIVER),
		      SIDECAR_CPU_FMT ": the driver may not move its status from %u to %u\n",
		      SIDECAR_CPU_ARGS(cpu), old, new))
		return ~old;
	return sync_cmpxchg(cpu->status, (u8)old, (u8)new);
}

const char *sidecar_status_name(u8 status);
const char *sidecar_state_name(enum sidecar_state state);
const char *sidecar_command_name(u32 command);
void sidecar_set_state(struct sidecar_cpu *cpu, enum sidecar_state state);
void sidecar_publish_state(struct sidecar_cpu *cpu, enum sidecar_state state);
bool sidecar_in_flight(const struct sidecar_cpu *cpu);
struct sidecar_cpu *sidecar_find_cpu(unsigned int number);
struct sidecar_cpu *sidecar_node_cpu(struct sidecar_node *node, unsigned long number);
int sidecar_require_available(const struct sidecar_cpu *cpu, const struct sidecar_file *file);
void sidecar_own(struct sidecar_cpu *cpu, struct sidecar_file *file);
int sidecar_claim(struct sidecar_cpu *cpu, struct sidecar_file *file);
int sidecar_release(struct sidecar_cpu *cpu, struct sidecar_file *file);
void sidecar_scrub(struct sidecar_cpu *cpu);

/* fault.c */
void sidecar_tell_fault(struct sidecar_cpu *cpu);
const char *sidecar_vector_name(u32 vector);
int sidecar_format_fault(const struct sidecar_fault_record *record, char *text, size_t size);

/* run.c */
int sidecar_run(struct sidecar_cpu *cpu, struct sidecar_file *file);
int sidecar_start(struct sidecar_cpu *cpu, struct sidecar_file *file);
int sidecar_stop(struct sidecar_cpu *cpu, struct sidecar_file *file);
struct sidecar_cpu *sidecar_next_finished(struct sidecar_file *file);
void sidecar_told(struct sidecar_cpu *cpu);
void sidecar_scan(struct sidecar_node *node);
void sidecar_abandon(struct sidecar_file *file);
bool sidecar_cancel(struct sidecar_cpu *cpu);

/* restart.c */
void sidecar_request(const struct sidecar_cpu *cpu);
void sidecar_halt_by_init(const struct sidecar_cpu *cpu);
bool sidecar_bring_up(struct sidecar_cpu *cpu);
void sidecar_time_out(struct sidecar_cpu *cpu, const char *what);
int sidecar_restart(struct sidecar_cpu *cpu, struct sidecar_file *file);

/*
 * True as soon as `condition` holds, false if it does not until `deadline`. Looks now and then by
 * itself, so that an interrupt that went to a CPU on its way offline costs only time. By the
 * monotonic clock: jiffies stand still and jump where the machine is itself a guest.
 */
#define SIDECAR_LOOK_AGAIN (HZ / 10)
#define sidecar_wait_until(wq, condition, deadline) \
({ \
	bool __held; \
	while (!(__held = (condition)) && ktime_before(ktime_get(), deadline)) \
		wait_event_timeout(wq, condition, sidecar_patience(deadline)); \
	__held || (condition); \
})

static inline ktime_t sidecar_deadline(unsigned int ms)
{
	return ktime_add_ms(ktime_get(), ms);
}

/* Jiffies to sleep before the next look. */
static inline long sidecar_patience(ktime_t deadline)
{
	s64 left = ktime_us_delta(deadline, ktime_get());

	return left > 0 ? min_t(long, SIDECAR_LOOK_AGAIN, usecs_to_jiffies(left) + 1) : 1;
}

/* vector.c */
int sidecar_response_set_up(struct sidecar_node *node);
void sidecar_response_tear_down(struct sidecar_node *node);
void sidecar_response_move(struct sidecar_node *node, unsigned int to);
void sidecar_response_follow(struct sidecar_node *node);
void sidecar_response_silence(struct sidecar_node *node);

/* file.c */
void sidecar_file_init(struct sidecar_file *file, struct sidecar_node *node);
void sidecar_file_end(struct sidecar_file *file);
extern const struct file_operations sidecar_file_operations;

/* mapping.c */
int sidecar_mmap(struct file *filp, struct vm_area_struct *vma);
void sidecar_unmap(struct sidecar_file *file, const struct sidecar_cpu *cpu);

/* hotplug.c */
int sidecar_hotplug_register(void);
void sidecar_hotplug_unregister(void);

/* attach.c */
int sidecar_attach(void);
void sidecar_detach(void);

/* background.c */
void sidecar_background_start(void);
void sidecar_background_stop(void);

/* heartbeat.c */
void sidecar_heartbeat_start(void);
void sidecar_heartbeat_stop(void);
u64 sidecar_stuck_ms(const struct sidecar_cpu *cpu);

/* power.c */
int sidecar_power_register(void);
void sidecar_power_unregister(void);

/* sysfs.c */
int sidecar_class_register(void);
void sidecar_class_unregister(void);
int sidecar_node_publish(struct sidecar_node *node);
void sidecar_node_unpublish(struct sidecar_node *node);

#endif /* SIDECAR_H */
