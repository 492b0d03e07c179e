// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Has the Nth call fail of those that nth_failure.h wraps, and counts what they have given out and
 * not got back. Outlives the module under test, so that a failed load can be looked at too.
 *
 * /sys/module/nth_failure/parameters: `armed` is N, 0 for none; `failed` the call that has failed
 * since, or empty; `live` what is given out.
 */
#include <linux/atomic.h>
#include <linux/module.h>
#include <linux/string.h>

#define NAME_BYTES 64

static atomic_t left;
static atomic64_t live;
static char failed[NAME_BYTES];

bool nth_failure_here(const char *what)
{
	if (atomic_read(&left) <= 0 || atomic_dec_return(&left) != 0)
		return false;
	strscpy(failed, what, sizeof(failed));
	return true;
}
EXPORT_SYMBOL_GPL(nth_failure_here);

void nth_failure_live(long change)
{
	atomic64_add(change, &live);
}
EXPORT_SYMBOL_GPL(nth_failure_live);

static int arm(const char *text, const struct kernel_param *param)
{
	int nth, err = kstrtoint(text, 0, &nth);

	if (err)
		return err;
	atomic_set(&left, 0);
	failed[0] = 0;
	atomic_set(&left, nth);
	return 0;
}

static int show_live(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%lld\n", atomic64_read(&live));
}

static const struct kernel_param_ops armed_ops = { .set = arm };
static const struct kernel_param_ops live_ops = { .get = show_live };

module_param_cb(armed, &armed_ops, NULL, 0200);
module_param_cb(live, &live_ops, NULL, 0400);
module_param_string(failed, failed, sizeof(failed), 0400);

MODULE_DESCRIPTION("has the Nth call of a module under test fail");
MODULE_LICENSE("Dual MIT/GPL");
