// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * A contained fault: one line in the kernel log, told once, and the same text for sysfs.
 *
 * Sample: `CPU 5 (APIC id 0x5, node 0, index 5): #PF (vector 14), error code 0x2, rip image+0x1f3c,
 * cr2 0x1000, in command 0x100`
 */
#include "sidecar.h"

#include <linux/kernel.h>

#define PAGE_FAULT 14

const char *sidecar_vector_name(u32 vector)
{
#define NAMED(number, name) [number] = (name),
	static const char *const names[] = { SIDECAR_EXCEPTIONS(NAMED) };
#undef NAMED

	return vector < ARRAY_SIZE(names) && names[vector] ? names[vector] : "exception";
}

/* Returns the length of the text, which ends without a line feed. */
int sidecar_format_fault(const struct sidecar_fault_record *record, char *text, size_t size)
{
	bool inside = record->rip - SIDECAR_IMAGE_VA < SIDECAR_IMAGE_LIMIT;
	int length;

	length = scnprintf(text, size, "%s (vector %u), error code %#llx, rip %s%#llx",
			   sidecar_vector_name(record->vector), record->vector,
			   record->error_code, inside ? "image+" : "",
			   inside ? record->rip - SIDECAR_IMAGE_VA : record->rip);
	if (record->vector == PAGE_FAULT)
		length += scnprintf(text + length, size - length, ", cr2 %#llx", record->cr2);
	if (record->command)
		length += scnprintf(text + length, size - length, ", in command %#x",
				    record->command);
	if (record->nested)
		length += scnprintf(text + length, size - length,
				    ", while a fault was being handled");
	return length;
}

/* Tells of a fault that has not been told of. The record is complete once the status is FAULTED. */
void sidecar_tell_fault(struct sidecar_cpu *cpu)
{
	const struct sidecar_fault_record *record = &cpu->diagnostic->fault;
	char text[160];
	unsigned long flags;
	bool news = false;

	if (sidecar_status(cpu) != SIDECAR_CPU_STATUS_FAULTED)
		return;
	spin_lock_irqsave(&cpu->node->lock, flags);
	if (record->count != cpu->faults_told) {
		cpu->faults_told = record->count;
		sidecar_format_fault(record, text, sizeof(text));
		news = true;
	}
	spin_unlock_irqrestore(&cpu->node->lock, flags);
	if (news)
		sidecar_cpu_err(cpu, "%s; it is faulted until it is restarted", text);
}
