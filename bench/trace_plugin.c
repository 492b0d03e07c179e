// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A plugin for QEMU's TCG that notes the instructions that each CPU executes.
 *
 *	qemu-system-x86_64 -plugin file=trace_plugin.so,notes=FILE
 *
 * FILE, made by who starts QEMU, is shared with it while the machine runs: see struct notes. What is translated while
 * `wanted` is set is noted when it is executed; the rest runs as fast as without. So whoever sets it then has QEMU
 * translate anew, for which another number of instructions per block will do (HMP: one-insn-per-tb on).
 *
 * An execution log would do the same a hundred times slower; then the guest's timer interrupts are so frequent, in
 * instructions, that it does nothing else any more.
 *
 * Ref: QEMU documentation, "QEMU TCG Plugins"; what is declared here is the same since version 2 of that interface.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* --- QEMU's side ---------------------------------------------------------------------------- */

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated_fn)(uint64_t id, struct qemu_plugin_tb *block);
typedef void (*executed_fn)(unsigned int cpu, void *data);
enum registers { NO_REGISTERS };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated_fn call);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction, executed_fn call,
					    enum registers registers, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);

EXPORTED int qemu_plugin_version = 2;
EXPORTED int qemu_plugin_install(uint64_t id, const void *about, int count, char **arguments);

/* --- our side ------------------------------------------------------------------------------- */

/* `used` may grow beyond `room`; what does not fit is lost. A note: bits 63:56 the CPU, the rest the address, whose
 * uppermost bits follow from bit 55.
 */
struct notes {
	_Atomic uint64_t wanted;
	_Atomic uint64_t used;
	uint64_t room;
	uint64_t reserved;
	uint64_t note[];
};

static struct notes *notes;

static void executed(unsigned int cpu, void *address)
{
	uint64_t place;

	if (!atomic_load_explicit(&notes->wanted, memory_order_relaxed))
		return;
	place = atomic_fetch_add_explicit(&notes->used, 1, memory_order_relaxed);
	if (place < notes->room)
		notes->note[place] = (uint64_t)cpu << 56 | ((uintptr_t)address & ~(0xffULL << 56));
}

static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
	size_t count = qemu_plugin_tb_n_insns(block), i;

	(void)id;
	if (!atomic_load(&notes->wanted))
		return;
	for (i = 0; i < count; i++) {
		struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
		uintptr_t address = qemu_plugin_insn_vaddr(instruction);

		qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed, NO_REGISTERS, (void *)address);
	}
}

int qemu_plugin_install(uint64_t id, const void *about, int count, char **arguments)
{
	struct stat info;
	int file;

	(void)about;
	if (count != 1 || strncmp(arguments[0], "notes=", 6)) {
		fprintf(stderr, "trace_plugin: expected notes=FILE\n");
		return 1;
	}
	file = open(arguments[0] + 6, O_RDWR);
	if (file < 0 || fstat(file, &info) || info.st_size < (off_t)sizeof(*notes)) {
		fprintf(stderr, "trace_plugin: %s is no file for notes\n", arguments[0] + 6);
		return 1;
	}
	notes = mmap(NULL, info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (notes == MAP_FAILED)
		return 1;
	notes->room = (info.st_size - sizeof(*notes)) / sizeof(notes->note[0]);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
