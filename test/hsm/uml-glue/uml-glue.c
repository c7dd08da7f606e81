// SPDX-License-Identifier: GPL-2.0
/*
 * ACRN's hypercalls and its upcall for a User-Mode Linux kernel: the hypervisor is a process outside, reached through
 * two Unix sockets. README.md beside this file has the protocol.
 */
#include <linux/export.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/printk.h>
#include <linux/reboot.h>
#include <linux/spinlock.h>

#include <asm/acrn.h>
#include <asm/hypervisor.h>

#include <irq_kern.h>
#include <irq_user.h>
#include <mem.h>
#include <os.h>

#define HELLO		0x6c6d752d6e726361ULL	/* "acrn-uml" */

extern unsigned long long physmem_size;

enum x86_hypervisor_type x86_hyper_type = X86_HYPER_NATIVE;

static const char *folder;
static int call_fd = -1;
static int upcall_fd = -1;
static void (*upcall_handler)(void);
static DEFINE_SPINLOCK(call_lock);

static int __init uml_acrn_folder(char *value)
{
	folder = value;
	return 1;
}
__setup("acrn=", uml_acrn_folder);

/* Without its hypervisor the machine has no purpose, and nobody else would end it. */
static void hypervisor_is_gone(void)
{
	pr_err("acrn-uml: the hypervisor has closed its socket\n");
	machine_power_off();
}

static int transfer(int (*step)(int fd, char *at, int bytes), void *buffer, int bytes)
{
	int done = 0;

	while (done < bytes) {
		int n = step(call_fd, (char *)buffer + done, bytes - done);

		/* The timer's signal interrupts the call, not the message. */
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0)
			return -EIO;
		done += n;
	}
	return 0;
}

static int send_step(int fd, char *at, int bytes)
{
	return os_write_file(fd, at, bytes);
}

static int receive_step(int fd, char *at, int bytes)
{
	return os_read_file(fd, at, bytes);
}

/* Interrupts stay off: to the machine, as on ACRN, a hypercall is one instruction. */
long uml_acrn_call(u64 id, u64 param1, u64 param2)
{
	u64 message[3] = { id, param1, param2 };
	unsigned long flags;
	s64 result = -EIO;
	int failed;

	if (call_fd < 0)
		return -ENODEV;

	spin_lock_irqsave(&call_lock, flags);
	failed = transfer(send_step, message, sizeof(message));
	if (!failed)
		failed = transfer(receive_step, &result, sizeof(result));
	if (failed)
		hypervisor_is_gone();
	spin_unlock_irqrestore(&call_lock, flags);
	return result;
}

static irqreturn_t upcall_interrupt(int irq, void *device)
{
	char bytes[64];
	int n;

	do {
		n = os_read_file(upcall_fd, bytes, sizeof(bytes));
	} while (n > 0 || n == -EINTR);
	if (n != -EAGAIN)
		hypervisor_is_gone();
	if (upcall_handler)
		upcall_handler();
	return IRQ_HANDLED;
}

void acrn_setup_intr_handler(void (*handler)(void))
{
	upcall_handler = handler;
}

void acrn_remove_intr_handler(void)
{
	upcall_handler = NULL;
}

static int __init connect_to(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = os_connect_socket(path);
	if (fd < 0)
		pr_err("acrn-uml: cannot connect to %s: %d\n", path, fd);
	return fd;
}

static int __init uml_acrn_init(void)
{
	unsigned long long offset;
	int ret;

	if (!folder)
		return 0;
	call_fd = connect_to("calls");
	upcall_fd = connect_to("upcalls");
	if (call_fd < 0 || upcall_fd < 0)
		return -ENODEV;
	os_set_fd_block(call_fd, 1);
	os_set_fd_block(upcall_fd, 0);
	ret = um_request_irq(UM_IRQ_ALLOC, upcall_fd, IRQ_READ, upcall_interrupt, 0, "acrn", &upcall_fd);
	if (ret < 0) {
		pr_err("acrn-uml: no interrupt line: %d\n", ret);
		return ret;
	}
	if (uml_acrn_call(HELLO, phys_mapping(0, &offset), physmem_size) < 0)
		return -ENODEV;
	x86_hyper_type = X86_HYPER_ACRN;
	return 0;
}
subsys_initcall(uml_acrn_init);
