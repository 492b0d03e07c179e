/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Included by the compiler before each source of the driver: calls that need memory of Linux's fail
 * when it is their turn (nth_failure.c), with what they return where there is none; what they give
 * out and get back is counted.
 *
 * A wrapper that is a function comes before the macro that replaces the call: in some kernels the
 * call is a macro itself.
 */
#ifndef NTH_FAILURE_H
#define NTH_FAILURE_H

#include <linux/acpi.h>
#include <linux/anon_inodes.h>
#include <linux/cdev.h>
#include <linux/cpuhotplug.h>
#include <linux/device.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/kobject.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

/* The driver says its own. */
#undef pr_fmt

bool nth_failure_here(const char *what);
void nth_failure_live(long change);

/* --- pointers; NULL where there is no memory ------------------------------------------------ */

static inline void *nth_kept(void *what)
{
	nth_failure_live(!!what);
	return what;
}

static inline void *nth_kzalloc(size_t size, gfp_t flags)
{
	return nth_failure_here("kzalloc") ? NULL : nth_kept(kzalloc(size, flags));
}

static inline void *nth_kcalloc(size_t count, size_t size, gfp_t flags)
{
	return nth_failure_here("kcalloc") ? NULL : nth_kept(kcalloc(count, size, flags));
}

static inline void *nth_kmemdup(const void *from, size_t size, gfp_t flags)
{
	return nth_failure_here("kmemdup") ? NULL : nth_kept(kmemdup(from, size, flags));
}

static inline char *nth_kstrdup(const char *from, gfp_t flags)
{
	return nth_failure_here("kstrdup") ? NULL : nth_kept(kstrdup(from, flags));
}

static inline void nth_kfree(const void *what)
{
	nth_failure_live(-!!what);
	kfree(what);
}

static inline unsigned long nth_get_zeroed_page(gfp_t flags)
{
	return nth_failure_here("get_zeroed_page") ? 0 :
	       (unsigned long)nth_kept((void *)get_zeroed_page(flags));
}

static inline unsigned long nth_get_free_page(gfp_t flags)
{
	return nth_failure_here("__get_free_page") ? 0 :
	       (unsigned long)nth_kept((void *)__get_free_page(flags));
}

static inline void nth_free_page(unsigned long page)
{
	nth_failure_live(-!!page);
	free_page(page);
}

static inline void *nth_alloc_pages_exact(size_t size, gfp_t flags)
{
	return nth_failure_here("alloc_pages_exact") ? NULL :
	       nth_kept(alloc_pages_exact(size, flags));
}

static inline void nth_free_pages_exact(void *pages, size_t size)
{
	nth_failure_live(-1);
	free_pages_exact(pages, size);
}

static inline void *nth_memremap(resource_size_t at, size_t size, unsigned long flags)
{
	return nth_failure_here("memremap") ? NULL : nth_kept(memremap(at, size, flags));
}

static inline void nth_memunmap(void *mapping)
{
	nth_failure_live(-1);
	memunmap(mapping);
}

static inline struct resource *nth_request_mem_region(resource_size_t at, resource_size_t size,
						      const char *name)
{
	return nth_failure_here("request_mem_region") ? NULL :
	       nth_kept(request_mem_region(at, size, name));
}

static inline void nth_release_mem_region(resource_size_t at, resource_size_t size)
{
	nth_failure_live(-1);
	release_mem_region(at, size);
}

/* --- registrations; -ENOMEM where there is no memory ---------------------------------------- */

static inline int nth_done(int err)
{
	nth_failure_live(err >= 0);
	return err;
}

static inline acpi_status nth_acpi_get_table(char *signature, u32 instance,
					     struct acpi_table_header **table)
{
	acpi_status status = AE_NO_MEMORY;

	if (!nth_failure_here("acpi_get_table"))
		status = acpi_get_table(signature, instance, table);
	nth_failure_live(ACPI_SUCCESS(status));
	return status;
}

static inline void nth_acpi_put_table(struct acpi_table_header *table)
{
	nth_failure_live(-1);
	acpi_put_table(table);
}

static inline int nth_alloc_chrdev_region(dev_t *first, unsigned int from, unsigned int count,
					  const char *name)
{
	return nth_failure_here("alloc_chrdev_region") ? -ENOMEM :
	       nth_done(alloc_chrdev_region(first, from, count, name));
}

static inline void nth_unregister_chrdev_region(dev_t first, unsigned int count)
{
	nth_failure_live(-1);
	unregister_chrdev_region(first, count);
}

static inline int nth_class_register(struct class *what)
{
	return nth_failure_here("class_register") ? -ENOMEM : nth_done(class_register(what));
}

static inline void nth_class_unregister(struct class *what)
{
	nth_failure_live(-1);
	class_unregister(what);
}

static inline int nth_cdev_device_add(struct cdev *cdev, struct device *dev)
{
	return nth_failure_here("cdev_device_add") ? -ENOMEM : nth_done(cdev_device_add(cdev, dev));
}

static inline void nth_cdev_device_del(struct cdev *cdev, struct device *dev)
{
	nth_failure_live(-1);
	cdev_device_del(cdev, dev);
}

static inline int nth_irq_domain_alloc_irqs(struct irq_domain *domain, unsigned int count, int node,
					    void *info)
{
	return nth_failure_here("irq_domain_alloc_irqs") ? -ENOMEM :
	       nth_done(irq_domain_alloc_irqs(domain, count, node, info));
}

static inline void nth_irq_dispose_mapping(unsigned int irq)
{
	nth_failure_live(-1);
	irq_dispose_mapping(irq);
}

static inline int nth_request_irq(unsigned int irq, irq_handler_t handler, unsigned long flags,
				  const char *name, void *data)
{
	return nth_failure_here("request_irq") ? -ENOMEM :
	       nth_done(request_irq(irq, handler, flags, name, data));
}

static inline void nth_free_irq(unsigned int irq, void *data)
{
	nth_failure_live(-1);
	free_irq(irq, data);
}

static inline int nth_setup_state(enum cpuhp_state state, const char *name,
				  int (*startup)(unsigned int), int (*teardown)(unsigned int))
{
	return nth_failure_here("cpuhp_setup_state") ? -ENOMEM :
	       nth_done(cpuhp_setup_state_nocalls_cpuslocked(state, name, startup, teardown));
}

static inline void nth_remove_state(enum cpuhp_state state)
{
	nth_failure_live(-1);
	cpuhp_remove_state_nocalls(state);
}

static inline void nth_remove_state_cpuslocked(enum cpuhp_state state)
{
	nth_failure_live(-1);
	cpuhp_remove_state_nocalls_cpuslocked(state);
}

static inline int nth_anon_inode_getfd(const char *name, const struct file_operations *operations,
				       void *data, int flags)
{
	return nth_failure_here("anon_inode_getfd") ? -ENOMEM :
	       anon_inode_getfd(name, operations, data, flags);
}

static inline vm_fault_t nth_vmf_insert_pfn(struct vm_area_struct *vma, unsigned long at,
					    unsigned long pfn)
{
	return nth_failure_here("vmf_insert_pfn") ? VM_FAULT_OOM : vmf_insert_pfn(vma, at, pfn);
}

/* --- what is referred to -------------------------------------------------------------------- */

static inline int nth_pin_user_pages_fast(unsigned long start, int count, unsigned int flags,
					  struct page **pages)
{
	int done = nth_failure_here("pin_user_pages_fast") ? -ENOMEM :
		   pin_user_pages_fast(start, count, flags, pages);

	nth_failure_live(max(done, 0));
	return done;
}

static inline void nth_unpin_user_pages(struct page **pages, unsigned long count)
{
	nth_failure_live(-(long)count);
	unpin_user_pages(pages, count);
}

static inline void nth_unpin_range(struct page *page, unsigned long count, bool dirty)
{
	nth_failure_live(-(long)count);
	unpin_user_page_range_dirty_lock(page, count, dirty);
}

static inline struct eventfd_ctx *nth_eventfd_ctx_fileget(struct file *file)
{
	struct eventfd_ctx *eventfd = eventfd_ctx_fileget(file);

	nth_failure_live(!IS_ERR(eventfd));
	return eventfd;
}

static inline void nth_eventfd_ctx_put(struct eventfd_ctx *eventfd)
{
	nth_failure_live(-1);
	eventfd_ctx_put(eventfd);
}

static inline void nth_mmgrab(struct mm_struct *mm)
{
	nth_failure_live(1);
	mmgrab(mm);
}

static inline void nth_mmdrop(struct mm_struct *mm)
{
	nth_failure_live(-1);
	mmdrop(mm);
}

static inline struct file *nth_fget(unsigned int fd)
{
	return nth_kept(fget(fd));
}

static inline void nth_fput(struct file *file)
{
	nth_failure_live(-1);
	fput(file);
}

static inline void nth_device_initialize(struct device *dev)
{
	nth_failure_live(1);
	device_initialize(dev);
}

static inline void nth_put_device(struct device *dev)
{
	nth_failure_live(-1);
	put_device(dev);
}

static inline void nth_kobject_put(struct kobject *kobj)
{
	nth_failure_live(-1);
	kobject_put(kobj);
}

/* These take a format. The second has made the object one to be put even where it fails. */
#define dev_set_name(...) \
	(nth_failure_here("dev_set_name") ? -ENOMEM : dev_set_name(__VA_ARGS__))
#define kobject_init_and_add(kobj, type, ...) \
	(nth_failure_live(1), nth_failure_here("kobject_init_and_add") ? \
	 (kobject_init(kobj, type), -ENOMEM) : kobject_init_and_add(kobj, type, __VA_ARGS__))

#undef kzalloc
#undef kcalloc
#undef kmemdup
#undef kstrdup
#undef get_zeroed_page
#undef __get_free_page
#undef free_page
#undef alloc_pages_exact
#undef request_mem_region
#undef release_mem_region
#undef class_register

#define kzalloc nth_kzalloc
#define kcalloc nth_kcalloc
#define kmemdup nth_kmemdup
#define kstrdup nth_kstrdup
#define kfree nth_kfree
#define get_zeroed_page nth_get_zeroed_page
#define __get_free_page nth_get_free_page
#define free_page nth_free_page
#define alloc_pages_exact nth_alloc_pages_exact
#define free_pages_exact nth_free_pages_exact
#define memremap nth_memremap
#define memunmap nth_memunmap
#define request_mem_region nth_request_mem_region
#define release_mem_region nth_release_mem_region
#define acpi_get_table nth_acpi_get_table
#define acpi_put_table nth_acpi_put_table
#define alloc_chrdev_region nth_alloc_chrdev_region
#define unregister_chrdev_region nth_unregister_chrdev_region
#define class_register nth_class_register
#define class_unregister nth_class_unregister
#define cdev_device_add nth_cdev_device_add
#define cdev_device_del nth_cdev_device_del
#define irq_domain_alloc_irqs nth_irq_domain_alloc_irqs
#define irq_dispose_mapping nth_irq_dispose_mapping
#define request_irq nth_request_irq
#define free_irq nth_free_irq
#define cpuhp_setup_state_nocalls_cpuslocked nth_setup_state
#define cpuhp_remove_state_nocalls nth_remove_state
#define cpuhp_remove_state_nocalls_cpuslocked nth_remove_state_cpuslocked
#define anon_inode_getfd nth_anon_inode_getfd
#define vmf_insert_pfn nth_vmf_insert_pfn
#define pin_user_pages_fast nth_pin_user_pages_fast
#define unpin_user_pages nth_unpin_user_pages
#define unpin_user_page_range_dirty_lock nth_unpin_range
#define eventfd_ctx_fileget nth_eventfd_ctx_fileget
#define eventfd_ctx_put nth_eventfd_ctx_put
#define mmgrab nth_mmgrab
#define mmdrop nth_mmdrop
#define fget nth_fget
#define fput nth_fput
#define device_initialize nth_device_initialize
#define put_device nth_put_device
#define kobject_put nth_kobject_put

#endif /* NTH_FAILURE_H */
